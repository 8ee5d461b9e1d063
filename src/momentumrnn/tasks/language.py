"""Saying which word follows, in texts that are read through without a break."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from momentumrnn.data.registry import TextDataset
from momentumrnn.data.text import END, IGNORED, Columns, TextSplits, draw_lengths
from momentumrnn.data.text.streams import expected_length
from momentumrnn.errors import RecipeError
from momentumrnn.tasks.contract import (
    PERPLEXITY,
    AnyPart,
    Batch,
    Batches,
    LayerChoice,
    Part,
    Sampling,
    Score,
    Task,
)
from momentumrnn.tasks.fingerprint import FINGERPRINT_FILE, fingerprint
from momentumrnn.tasks.language_model import Dropouts, LanguageModel, LanguageOutputs
from momentumrnn.tasks.models import build_layer, rule_arguments
from momentumrnn.tasks.stack import LayerStack

VOCABULARY_FILE = "vocabulary.txt"


@dataclass(frozen=True)
class LanguageOptions:
    """What a language model is made of beside its recurrent layers, and how its text is cut.

    Attributes:
        embedding_size: Features of an embedded word.
        tied: Whether the decoder has the embedding's weight; then the last layer has ``embedding_size``
            units.
        word_dropout: Of whole words, each at all its places in a batch.
        embedding_dropout: Of features of embedded words, the same at all time steps.
        output_dropout: Of features of what the last layer says, likewise.
        activation_penalty: α, times the mean square of what the last layer says, behind its dropout.
        slowness_penalty: β, times the mean square of its change from one step to the next.
        sequence_length: How many words of each column a step reads, about.
        variable_lengths: Whether that number is drawn for each training step.
    """

    embedding_size: int
    tied: bool = True
    word_dropout: float = 0.0
    embedding_dropout: float = 0.0
    output_dropout: float = 0.0
    activation_penalty: float = 0.0
    slowness_penalty: float = 0.0
    sequence_length: int = 70
    variable_lengths: bool = True

    @staticmethod
    def of(given: Mapping[str, Any]) -> "LanguageOptions":
        """The options of a recipe.

        Args:
            given: Those that it names.

        Raises:
            RecipeError: The one that has no default is not among them.
        """
        if "embedding_size" not in given:
            raise RecipeError(
                "language.embedding_size: a language model needs it; add it to the section [language]"
            )
        return LanguageOptions(**given)


class LanguageModelling(Task):
    """Cross entropy over words, and its exponential, the perplexity.

    Args:
        dataset: The text.
        options: The model beside its recurrent layers.
        folder: The folder of the text, where the dataset has none of its own.
        vocabulary: How many words are known, where the dataset does not say it.
    """

    metric = PERPLEXITY
    sequence_dim = 1

    def __init__(
        self,
        dataset: TextDataset,
        options: LanguageOptions,
        folder: str | None = None,
        vocabulary: int | None = None,
    ) -> None:
        words = dataset.words or vocabulary
        assert words is not None
        self.dataset, self.options, self.folder, self.words = dataset, options, folder, words
        self.features = options.embedding_size

    def build_layer(self, choice: LayerChoice, device: str | None = None) -> LayerStack:
        options = dict(choice.options)
        if rule_arguments(choice.name):
            options["carry_momentum"] = True
        sizes = [choice.hidden_size] * (choice.num_layers - 1) + [self._last_size(choice.hidden_size)]
        if choice.num_layers == 1 and sizes != [choice.hidden_size]:
            raise RecipeError(
                "model.hidden_size: a single layer whose decoder is tied to the embedding has as many units, "
                f"expected language.embedding_size = {self.features}, got {choice.hidden_size}; change one "
                "of them, or set language.tied=false"
            )
        layers = [
            build_layer(choice.name, below, size, rule=dict(choice.rule), options=options, device=device)
            for below, size in zip([self.features, *sizes], sizes, strict=False)
        ]
        return LayerStack(layers, choice.dropout)

    def build_model(self, layer: nn.Module, hidden_size: int) -> LanguageModel:
        assert isinstance(layer, LayerStack)
        options = self.options
        return LanguageModel(
            layer,
            self.words,
            options.embedding_size,
            self._last_size(hidden_size),
            options.tied,
            Dropouts(options.word_dropout, options.embedding_dropout, options.output_dropout),
        )

    def load(self, folder: Path, sampling: Sampling, device: torch.device | str) -> "TextBatches":
        text = self.dataset.load(folder, self.folder, self.words).first(sampling.subset)
        return TextBatches(text, sampling, self.options, device)

    def documents(self, batches: Batches) -> Mapping[str, str]:
        assert isinstance(batches, TextBatches)
        columns = {"train": batches.train, "validation": batches.validation, "test": batches.test}
        words = {part: laid.targets.cpu().numpy() for part, laid in columns.items()}
        return {
            VOCABULARY_FILE: "".join(f"{word}\n" for word in batches.vocabulary.words),
            FINGERPRINT_FILE: fingerprint(**words),
        }

    def score(self, outputs: LanguageOutputs, batch: Batch) -> Score:
        logits, targets = outputs.logits.flatten(0, 1), batch.targets.flatten()
        # Not the mean over what counts: of a share that may be nothing.
        loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum") / max(batch.weight, 1)
        return Score(loss, loss.detach().double() * batch.weight, self._penalty(outputs))

    def baseline(
        self, part: AnyPart = "training", sampling: Sampling | None = None, epoch: int | None = None
    ) -> None:
        return None

    def _last_size(self, hidden_size: int) -> int:
        return self.options.embedding_size if self.options.tied else hidden_size

    def _penalty(self, outputs: LanguageOutputs) -> Tensor | None:
        alpha, beta = self.options.activation_penalty, self.options.slowness_penalty
        terms = [alpha * outputs.dropped.square().mean()] if alpha else []
        # A single step changes nothing, and has no mean.
        if beta and len(outputs.last) > 1:
            terms.append(beta * outputs.last.diff(dim=0).square().mean())
        return torch.stack(terms).sum() if terms else None


class TextBatches:
    """A text in as many columns as a batch has sequences, a piece of all of them a step.

    Training reads every word once an epoch, but for fewer than there are columns at the end of the text;
    in validation and test every word counts once.

    Args:
        text: The text.
        sampling: How batches are made.
        options: How columns are cut.
        device: Where they are.
    """

    def __init__(
        self, text: TextSplits, sampling: Sampling, options: LanguageOptions, device: torch.device | str
    ) -> None:
        self.vocabulary, self.sampling, self.options = text.vocabulary, sampling, options
        end, size = text.vocabulary.numbers[END], sampling.eval_batch_size
        self.train = Columns.of(text.train, sampling.batch_size, end, whole=False).to(device)
        self.validation = Columns.of(text.validation, size, end, whole=True).to(device)
        self.test = Columns.of(text.test, size, end, whole=True).to(device)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; about as many, where lengths are drawn."""
        length = self.options.sequence_length
        mean = expected_length(length) if self.options.variable_lengths else length
        return math.ceil(len(self.train) / mean)

    def training(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The rest of an epoch.

        Args:
            epoch: From 1.
            first_step: How many of its steps are done.
        """
        rows, mean = len(self.train), self.options.sequence_length
        if self.options.variable_lengths:
            lengths = draw_lengths(rows, mean, (self.sampling.seed, epoch))
        else:
            lengths = _equal_lengths(rows, mean)
        pieces = _pieces(self.train, lengths)
        return (
            batch._replace(lr_scale=len(batch.inputs) / mean) for batch in islice(pieces, first_step, None)
        )

    def evaluation(self, part: Part) -> Iterator[Batch] | None:
        """All of a part, in pieces of equal length.

        Args:
            part: Which.
        """
        columns = self.validation if part == "validation" else self.test
        return _pieces(columns, _equal_lengths(len(columns), self.options.sequence_length))


def _equal_lengths(rows: int, length: int) -> list[int]:
    return [min(length, rows - first) for first in range(0, rows, length)]


def _pieces(columns: Columns, lengths: Sequence[int]) -> Iterator[Batch]:
    first = 0
    for length in lengths:
        rows = slice(first, first + length)
        counted = tuple(min(max(column - first, 0), length) for column in columns.lengths)
        yield Batch(
            columns.inputs[rows], columns.targets[rows], sum(counted), lengths=counted, continues=first > 0
        )
        first += length
