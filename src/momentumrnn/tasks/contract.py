"""What a task is to the training loop: batches, a model, a loss, a metric.

The loop knows no task by name. It asks a ``Task`` for a model around a recurrent layer, for its data, and for
the score of what the model made of a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Part = Literal["validation", "test"]


@dataclass(frozen=True)
class Metric:
    """A number by which epochs are judged.

    Attributes:
        name: As in the columns of ``metrics.csv``: ``test_accuracy``.
        higher_is_better: Or lower.
        unit: What a table writes behind the name; ``%`` multiplies by 100.
    """

    name: str
    higher_is_better: bool
    unit: str = ""

    @property
    def scale(self) -> float:
        """What a value is multiplied by before it is shown."""
        return 100.0 if self.unit == "%" else 1.0

    def show(self, value: float) -> str:
        """A value as text.

        >>> ACCURACY.show(0.5), LOSS.show(0.25)
        ('50.00%', '0.2500')
        """
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4f}"

    def rank(self, value: float) -> float:
        """A number that is larger for a better value."""
        return value if self.higher_is_better else -value


ACCURACY = Metric("accuracy", higher_is_better=True, unit="%")
MSE = Metric("mse", higher_is_better=False)
# Of tasks that are judged by what they are trained on.
LOSS = Metric("loss", higher_is_better=False)
METRICS = {metric.name: metric for metric in (ACCURACY, MSE, LOSS)}


class Batch(NamedTuple):
    """Sequences that are worked on at once.

    Attributes:
        inputs: What the model reads, (T, B, d).
        targets: What it should say, in a shape of the task's own.
        weight: How many terms the loss is a mean over: sequences, or frames. Known without asking the device.
        mask: Which targets count, 1 or 0; ``None`` where all do.
    """

    inputs: Tensor
    targets: Tensor
    weight: int
    mask: Tensor | None = None


class Score(NamedTuple):
    """What a model's outputs for a batch are worth.

    Attributes:
        loss: The mean over the batch's ``weight`` terms, (); what is differentiated.
        metric_sum: The metric, summed over the same terms, (): its mean over an epoch is the epoch's sum
            divided by the sum of the weights.
    """

    loss: Tensor
    metric_sum: Tensor


class Baseline(NamedTuple):
    """What can be had without learning.

    Attributes:
        name: Such as ``a memoryless guess``.
        value: Its metric.
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
        subset: Only the first so many sequences of each part; all where absent.
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
        """Optimizer steps an epoch."""

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


class Task(ABC):
    """What a model is asked to do. Making one reads no data.

    Attributes:
        metric: What epochs are judged by.
        features: d, the values per time step.
    """

    metric: ClassVar[Metric]
    features: int

    @abstractmethod
    def build_model(self, layer: nn.Module, hidden_size: int) -> nn.Module:
        """Put a head on a recurrent layer.

        Args:
            layer: One-directional, (T, B, d) → (T, B, h) and a state.
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

    @abstractmethod
    def score(self, outputs: Any, batch: Batch) -> Score:
        """Judge a model's outputs.

        Args:
            outputs: What the model made of ``batch.inputs``.
            batch: The batch.
        """

    @abstractmethod
    def baseline(self) -> Baseline | None:
        """What can be had without learning, where that is known beforehand."""
