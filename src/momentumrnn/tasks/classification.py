"""Classifying a sequence by the last hidden state of a recurrent layer."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from momentumrnn.data import Splits
from momentumrnn.data.registry import ClassifiedDataset
from momentumrnn.tasks.contract import ACCURACY, AnyPart, Batch, Batches, Part, Sampling, Score, Task
from momentumrnn.tasks.readouts import LastStepReadout


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of a batch.

    Args:
        logits: (B, classes).
        labels: (B,).
    """
    return F.cross_entropy(logits, labels)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of a batch are classified right, as a tensor that stays on the device.

    Args:
        logits: (B, classes).
        labels: (B,).
    """
    return (logits.argmax(dim=1) == labels).sum()


class Classification(Task):
    """Cross entropy and accuracy, over sequences.

    Args:
        dataset: What is classified.
        validation: Training examples held out; the dataset's default where absent.
    """

    metric = ACCURACY
    sequence_dim = 0

    def __init__(self, dataset: ClassifiedDataset, validation: int | None = None) -> None:
        self.dataset, self.validation = dataset, validation
        self.features = dataset.features

    def build_model(self, layer: nn.Module, hidden_size: int) -> LastStepReadout:
        return LastStepReadout(layer, hidden_size, self.dataset.classes)

    def load(self, folder: Path, sampling: Sampling, device: torch.device | str) -> Batches:
        splits = self.dataset.load(folder, self.validation, sampling.seed)
        return ClassifiedBatches(splits.first(sampling.subset).to(device), sampling)

    def score(self, outputs: Tensor, batch: Batch) -> Score:
        return Score(classification_loss(outputs, batch.targets), count_correct(outputs, batch.targets))

    def baseline(
        self, part: AnyPart = "training", sampling: Sampling | None = None, epoch: int | None = None
    ) -> None:
        return None


class ClassifiedBatches:
    """Sequences in memory, every one once an epoch, in an order of its own.

    Args:
        splits: The sequences.
        sampling: How batches are made.
    """

    def __init__(self, splits: Splits, sampling: Sampling) -> None:
        self.splits, self.sampling = splits, sampling

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; the last batch may be smaller."""
        return math.ceil(len(self.splits.train) / self.sampling.batch_size)

    def training(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The rest of an epoch.

        Args:
            epoch: From 1.
            first_step: How many of its steps are done.
        """
        data, size = self.splits.train, self.sampling.batch_size
        order = np.random.RandomState([self.sampling.seed, epoch]).permutation(len(data))
        rows = torch.from_numpy(order).to(data.labels.device)
        for step in range(first_step, self.steps_per_epoch):
            inputs, labels = data.batch(rows[step * size : (step + 1) * size])
            yield Batch(inputs, labels, len(labels))

    def evaluation(self, part: Part) -> Iterator[Batch] | None:
        """All of a part.

        Args:
            part: Which.
        """
        data = self.splits.validation if part == "validation" else self.splits.test
        if data is None:
            return None
        size = self.sampling.eval_batch_size
        batches = (data.batch(slice(first, first + size)) for first in range(0, len(data), size))
        return (Batch(inputs, labels, len(labels)) for inputs, labels in batches)
