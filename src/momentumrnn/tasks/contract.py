"""What a task is to the training loop: batches, a model, a loss, a metric.

The loop knows no task by name. It asks a ``Task`` for a model around a recurrent layer, for its data, and for
the score of what the model made of a batch.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from momentumrnn.tasks.models import build_layer

Part = Literal["validation", "test"]
AnyPart = Literal["training", "validation", "test"]


@dataclass(frozen=True)
class Metric:
    """A number by which epochs are judged.

    Attributes:
        name: As in the columns of ``metrics.csv``: ``test_accuracy``.
        higher_is_better: Or lower.
        unit: What a table writes behind the name; ``%`` multiplies by 100.
        exponential: Whether it is e to the power of the mean that batches add to.
        digits: How many are shown behind the point, where the unit is not ``%``.
    """

    name: str
    higher_is_better: bool
    unit: str = ""
    exponential: bool = False
    digits: int = 4

    @property
    def scale(self) -> float:
        """What a value is multiplied by before it is shown."""
        return 100.0 if self.unit == "%" else 1.0

    def show(self, value: float) -> str:
        """A value as text.

        >>> ACCURACY.show(0.5), LOSS.show(0.25)
        ('50.00%', '0.2500')
        """
        return f"{value:.2%}" if self.unit == "%" else f"{value:.{self.digits}f}"

    def of_mean(self, mean: float) -> float:
        """The metric, from the mean over all terms of what ``Score.metric_sum`` sums.

        >>> ACCURACY.of_mean(0.5), PERPLEXITY.of_mean(0.0), PERPLEXITY.of_mean(1e4)
        (0.5, 1.0, inf)
        """
        if not self.exponential:
            return mean
        try:
            return math.exp(mean)
        except OverflowError:
            return math.inf

    def rank(self, value: float) -> float:
        """A number that is larger for a better value."""
        return value if self.higher_is_better else -value


ACCURACY = Metric("accuracy", higher_is_better=True, unit="%")
MSE = Metric("mse", higher_is_better=False)
# Of tasks that are judged by what they are trained on.
LOSS = Metric("loss", higher_is_better=False)
PERPLEXITY = Metric("perplexity", higher_is_better=False, exponential=True, digits=2)
METRICS = {metric.name: metric for metric in (ACCURACY, MSE, LOSS, PERPLEXITY)}


class Batch(NamedTuple):
    """Sequences that are worked on at once.

    Attributes:
        inputs: What the model reads, (T, B, d), or the numbers of words, (T, B).
        targets: What it should say, in a shape of the task's own.
        weight: How many terms the loss is a mean over: sequences, or frames. Known without asking the device.
        mask: Which targets count, 1 or 0, of as many dimensions as ``inputs``; ``None`` where all do.
        lengths: How many terms each sequence has; ``None`` where all have the same number.
        continues: Whether these sequences go on where those of the batch before ended: then the model is
            given the state it reached there.
        lr_scale: What the learning rates are multiplied by in this step.
    """

    inputs: Tensor
    targets: Tensor
    weight: int
    mask: Tensor | None = None
    lengths: tuple[int, ...] | None = None
    continues: bool = False
    lr_scale: float = 1.0


class Continued(NamedTuple):
    """What a model says that can go on where a batch ends.

    Such a model is called with a batch's inputs, and with a state where the batch continues another.

    Attributes:
        outputs: What is scored.
        state: What the model goes on from.
    """

    outputs: Any
    state: tuple[Tensor, ...]


class Score(NamedTuple):
    """What a model's outputs for a batch are worth.

    Attributes:
        loss: The mean over the batch's ``weight`` terms, ().
        metric_sum: The metric, summed over the same terms, (): its mean over an epoch is the epoch's sum
            divided by the sum of the weights, where ``Metric.of_mean`` makes nothing else of it.
        penalty: What is added to the loss where it is differentiated, (), and counts nowhere else.
    """

    loss: Tensor
    metric_sum: Tensor
    penalty: Tensor | None = None

    @property
    def objective(self) -> Tensor:
        """What is differentiated."""
        return self.loss if self.penalty is None else self.loss + self.penalty


class Baseline(NamedTuple):
    """What can be had without learning.

    Attributes:
        name: Such as ``a memoryless guess``.
        value: Its metric, on the same sequences as the numbers it is compared with.
    """

    name: str
    value: float


@dataclass(frozen=True)
class Sampling:
    """How batches are made.

    Attributes:
        seed: Of the run.
        batch_size: Sequences a step.
        eval_batch_size: Sequences a step where nothing is learned, at most.
        steps_per_epoch: Where the data are drawn without end.
        subset: Only the first so many sequences of each part, or words of a text; all where absent.
    """

    seed: int
    batch_size: int
    eval_batch_size: int
    steps_per_epoch: int | None = None
    subset: int | None = None


class Batches(Protocol):
    """The data of a task.

    What a batch holds follows from seed, epoch and step alone: a run that goes on inside an epoch sees what
    it would have seen.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; about as many, where their number is drawn."""

    def training(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The rest of an epoch.

        Args:
            epoch: From 1.
            first_step: How many of its steps are done.
        """

    def evaluation(self, part: Part) -> Iterator[Batch] | None:
        """All of a part, always the same; ``None`` where nothing is held out.

        Args:
            part: Which.
        """


@dataclass(frozen=True)
class LayerChoice:
    """Recurrent layers as a recipe names them.

    Attributes:
        name: A class name, as ``momentumrnn`` exports it.
        hidden_size: h.
        num_layers: How many are stacked.
        dropout: Between stacked layers.
        rule: The coefficients of its rule, by argument name.
        options: What else it takes, likewise.
    """

    name: str
    hidden_size: int
    num_layers: int = 1
    dropout: float = 0.0
    rule: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """What a model is asked to do. Making one reads no data.

    Attributes:
        metric: What epochs are judged by.
        sequence_dim: The dimension of ``Batch.targets`` that counts sequences.
        features: d, the values per time step.
    """

    metric: ClassVar[Metric]
    sequence_dim: ClassVar[int]
    features: int

    def build_layer(self, choice: LayerChoice, device: str | None = None) -> nn.Module:
        """Build the recurrent layer that ``build_model`` puts a head on.

        Args:
            choice: Which.
            device: Where its weights are made; ``"meta"`` checks the arguments without making any.

        Raises:
            RecipeError: The layer refuses these arguments; the message is its own.
        """
        return build_layer(
            choice.name,
            self.features,
            choice.hidden_size,
            choice.num_layers,
            choice.dropout,
            dict(choice.rule),
            dict(choice.options),
            device,
        )

    @abstractmethod
    def build_model(self, layer: nn.Module, hidden_size: int) -> nn.Module:
        """Put a head on a recurrent layer.

        Args:
            layer: One-directional, (T, B, d) → (T, B, h) and a state; from ``build_layer``.
            hidden_size: h.

        Returns:
            A model of what ``Batch.inputs`` holds.
        """

    @abstractmethod
    def load(self, folder: Path, sampling: Sampling, device: torch.device | str) -> Batches:
        """Read the data, or get ready to draw them.

        Args:
            folder: The data folder.
            sampling: How batches are made.
            device: Where they are.

        Raises:
            DataMissingError: The data are not there.
            DataError: They are damaged.
        """

    def documents(self, batches: Batches) -> Mapping[str, str]:
        """What a run folder must hold beside the weights for them to mean something.

        Args:
            batches: From ``load``.

        Returns:
            File name → text; nothing for most tasks.
        """
        return {}

    @abstractmethod
    def score(self, outputs: Any, batch: Batch) -> Score:
        """Judge a model's outputs.

        Args:
            outputs: What the model made of ``batch.inputs``.
            batch: The batch.
        """

    @abstractmethod
    def baseline(
        self, part: AnyPart = "training", sampling: Sampling | None = None, epoch: int | None = None
    ) -> Baseline | None:
        """What can be had without learning, where that is known without reading data.

        Args:
            part: The sequences that the baseline is computed on.
            sampling: How the batches of training are made.
            epoch: The epoch of training, from 1. Without these two the baseline of training is the
                expectation over all sequences that can be drawn. Validation and test do not depend on them.
        """
