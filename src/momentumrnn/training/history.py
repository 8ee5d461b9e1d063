"""What a run measured, epoch by epoch, and what the two protocols make of it."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from momentumrnn.errors import CheckpointError
from momentumrnn.regular_files import open_regular
from momentumrnn.tasks.contract import ACCURACY, METRICS, Metric
from momentumrnn.training.files import write_atomically


@dataclass(frozen=True)
class Epoch:
    """One line of ``metrics.csv``, where the word ``metric`` is replaced by the name of the metric.

    Attributes:
        epoch: From 1.
        step: Optimizer steps since the start.
        train_loss: Mean over the epoch, each example under the weights it was learned with.
        train_metric: Likewise; an accuracy is in [0, 1].
        validation_loss: ``None`` where nothing is held out.
        validation_metric: ``None`` where nothing is held out.
        test_loss: At the end of the epoch.
        test_metric: At the end of the epoch.
        seconds: Of training and evaluation, without the time between an interruption and going on.
        metric: Which it is.
    """

    epoch: int
    step: int
    train_loss: float
    train_metric: float
    validation_loss: float | None
    validation_metric: float | None
    test_loss: float
    test_metric: float
    seconds: float
    metric: Metric = ACCURACY

    @property
    def validation_accuracy(self) -> float | None:
        """``validation_metric`` of a classification."""
        self._check_is(ACCURACY)
        return self.validation_metric

    @property
    def test_accuracy(self) -> float:
        """``test_metric`` of a classification."""
        self._check_is(ACCURACY)
        return self.test_metric

    def _check_is(self, metric: Metric) -> None:
        if self.metric != metric:
            raise AttributeError(f"this run is judged by its {self.metric.name} and has no {metric.name}")

    def columns(self) -> dict[str, int | float | None]:
        """Column of ``metrics.csv`` → value; a metric that is the loss has no columns of its own."""
        return {column: getattr(self, field) for field, column in _columns(self.metric).items()}

    @staticmethod
    def from_columns(values: Mapping[str, int | float | None], metric: Metric) -> "Epoch":
        """The inverse of ``columns``.

        Args:
            values: Column → value.
            metric: Which metric's columns they are.
        """
        fields: dict[str, Any] = {field: values[column] for field, column in _columns(metric).items()}
        return Epoch(**fields, metric=metric)


FIELDS = (
    "epoch",
    "step",
    "train_loss",
    "train_metric",
    "validation_loss",
    "validation_metric",
    "test_loss",
    "test_metric",
    "seconds",
)


def _columns(metric: Metric) -> dict[str, str]:
    return {field: field.replace("metric", metric.name) for field in FIELDS}


@dataclass(frozen=True)
class RunResult:
    """A run, finished or not, in numbers.

    Attributes:
        folder: The run folder.
        history: What was measured.
        finished: Whether every epoch of the recipe is in the history, and in the checkpoint if there is one.
        already_finished: Whether the run was finished before it was asked for.
    """

    folder: Path
    history: tuple[Epoch, ...]
    finished: bool
    already_finished: bool = False


def best_validation_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """The epoch the honest protocol reports: the first with the best validation metric.

    Args:
        history: What was measured.
    """
    ranks = {
        index: epoch.metric.rank(epoch.validation_metric)
        for index, epoch in enumerate(history)
        if epoch.validation_metric is not None and math.isfinite(epoch.validation_metric)
    }
    return history[max(ranks, key=ranks.__getitem__)] if ranks else None


def best_test_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """The epoch that the test set itself chooses, as in the paper's Table 1: the first with the best metric.

    Args:
        history: What was measured.
    """
    finite = [epoch for epoch in history if math.isfinite(epoch.test_metric)]
    return max(finite, key=lambda epoch: epoch.metric.rank(epoch.test_metric), default=None)


def first_epoch_at(history: Sequence[Epoch], accuracy: float) -> int | None:
    """The first epoch whose validation accuracy is at least ``accuracy``.

    Args:
        history: What was measured.
        accuracy: In [0, 1].
    """
    reached = (
        epoch.epoch
        for epoch in history
        if epoch.validation_accuracy is not None and epoch.validation_accuracy >= accuracy
    )
    return next(reached, None)


def write_metrics(path: Path, history: Sequence[Epoch], metric: Metric = ACCURACY) -> None:
    """Write the whole history.

    Args:
        path: The CSV file, replaced as a whole.
        history: What was measured.
        metric: What names the columns where the history is empty.
    """
    text = io.StringIO()
    metric = history[0].metric if history else metric
    # A dictionary, since a metric that is the loss shares its columns.
    writer = csv.DictWriter(text, list(dict.fromkeys(_columns(metric).values())), lineterminator="\n")
    writer.writeheader()
    writer.writerows(epoch.columns() for epoch in history)
    write_atomically(path, text.getvalue())


def read_metrics(path: Path) -> tuple[Epoch, ...]:
    """Read a history; empty where the file does not exist.

    Args:
        path: The CSV file.

    Raises:
        CheckpointError: It holds something else, or epochs that do not follow one another from the first.
    """
    if not path.exists():
        return ()
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            metric = _metric_of(reader.fieldnames or ())
            history = tuple(_parse(row, metric) for row in reader)
            _check_order(history)
            return history
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise CheckpointError(
            f"{path}: cannot be read as metrics: {error}. Delete it, and momentumrnn train writes it anew "
            "from the run's checkpoint"
        ) from error


def check_same(
    path: Path, history: Sequence[Epoch], stored: Sequence[Mapping[str, int | float | None]]
) -> None:
    """Refuse metrics that are not those of a checkpoint, as far as both go.

    One may be longer: a process killed between the two writes leaves the metrics behind, and a damaged last
    checkpoint leaves the one before it.

    Args:
        path: The CSV file, for the error message.
        history: What was read from it.
        stored: The rows of the checkpoint, from ``Epoch.columns``.

    Raises:
        CheckpointError: A row of one is another in the other.
    """
    for row, expected in zip(history, stored, strict=False):
        # As text, in which what is no number is equal to itself.
        if repr(row.columns()) != repr(dict(expected)):
            raise CheckpointError(
                f"{path}: expected the row of epoch {row.epoch} that the run's checkpoint holds, got another "
                "one. Either was edited, or copied from another run: delete the file, and momentumrnn train "
                "writes it anew from the checkpoint"
            )


def _check_order(history: Sequence[Epoch]) -> None:
    step = 0
    for expected, row in enumerate(history, start=1):
        if row.epoch != expected:
            raise ValueError(f"expected the row of epoch {expected}, got that of epoch {row.epoch}")
        if row.step <= step:
            raise ValueError(f"epoch {row.epoch}: expected a step after {step}, got {row.step}")
        step = row.step


def _metric_of(columns: Sequence[str]) -> Metric:
    for metric in METRICS.values():
        if list(dict.fromkeys(_columns(metric).values())) == list(columns):
            return metric
    raise ValueError(
        f"expected the columns {list(_columns(ACCURACY).values())}, or those of another metric "
        f"({', '.join(METRICS)}), got {list(columns)}"
    )


def _parse(row: dict[str, str], metric: Metric) -> Epoch:
    def number(column: str) -> int | float | None:
        text = row[column]
        if column in ("epoch", "step"):
            return int(text)
        return float(text) if text or not column.startswith("validation_") else None

    return Epoch.from_columns({column: number(column) for column in row}, metric)
