"""Dropout with one mask for all time steps."""

import torch
from torch import Tensor
from torch.nn import functional as F


def locked_dropout(inputs: Tensor, probability: float, training: bool) -> Tensor:
    """Variational dropout: what is dropped at one time step is dropped at all of them.

    Args:
        inputs: (T, B, d).
        probability: Of a sequence's feature to be dropped; what is kept is scaled by 1/(1 − probability).
        training: Whether anything is dropped.
    """
    if not (training and probability):
        return inputs
    return inputs * F.dropout(inputs.new_ones(1, *inputs.shape[1:]), probability)


def word_dropout(words: Tensor, vocabulary: int, probability: float) -> Tensor:
    """Which words are dropped, each one wherever it stands.

    Args:
        words: (T, B), their numbers.
        vocabulary: How many words there are.
        probability: Of a word to be dropped.

    Returns:
        (T, B, 1): 0 for a dropped word and 1/(1 − probability) for a kept one.
    """
    kept = F.dropout(torch.ones(vocabulary, 1, device=words.device), probability)
    return F.embedding(words, kept)
