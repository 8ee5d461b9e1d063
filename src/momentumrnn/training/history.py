"""What a run measured, epoch by epoch, and what the two protocols make of it."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from momentumrnn.errors import CheckpointError
from momentumrnn.training.files import write_atomically


@dataclass(frozen=True)
class Epoch:
    """One line of ``metrics.csv``.

    Attributes:
        epoch: From 1.
        step: Optimizer steps since the start.
        train_loss: Mean over the epoch, each example under the weights it was learned with.
        train_accuracy: Likewise, in [0, 1].
        validation_loss: ``None`` where nothing is held out.
        validation_accuracy: ``None`` where nothing is held out.
        test_loss: At the end of the epoch.
        test_accuracy: At the end of the epoch.
        seconds: Of training and evaluation, without the time between an interruption and going on.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    test_loss: float
    test_accuracy: float
    seconds: float


COLUMNS = [field.name for field in dataclasses.fields(Epoch)]


@dataclass(frozen=True)
class RunResult:
    """A run, finished or not, in numbers.

    Attributes:
        folder: The run folder.
        history: What was measured.
        finished: Whether every epoch of the recipe is in the history.
        already_finished: Whether the run was finished before it was asked for.
    """

    folder: Path
    history: tuple[Epoch, ...]
    finished: bool
    already_finished: bool = False


def best_validation_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """The epoch the honest protocol reports: the first with the highest validation accuracy.

    Args:
        history: What was measured.
    """
    judged = [epoch for epoch in history if epoch.validation_accuracy is not None]
    return max(judged, key=lambda epoch: epoch.validation_accuracy or 0.0, default=None)


def best_test_epoch(history: Sequence[Epoch]) -> Epoch | None:
    """The epoch the paper's protocol reports: the first with the highest test accuracy.

    Args:
        history: What was measured.
    """
    return max(history, key=lambda epoch: epoch.test_accuracy, default=None)


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


def write_metrics(path: Path, history: Sequence[Epoch]) -> None:
    """Write the whole history.

    Args:
        path: The CSV file, replaced as a whole.
        history: What was measured.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(epoch) for epoch in history)
    write_atomically(path, text.getvalue())


def read_metrics(path: Path) -> tuple[Epoch, ...]:
    """Read a history; empty where the file does not exist.

    Args:
        path: The CSV file.

    Raises:
        CheckpointError: It holds something else.
    """
    if not path.exists():
        return ()
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames != COLUMNS:
                raise ValueError(f"expected the columns {COLUMNS}, got {reader.fieldnames}")
            return tuple(_parse(row) for row in reader)
    except (ValueError, TypeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read as metrics: {error}") from error


def _parse(row: dict[str, str]) -> Epoch:
    def optional(name: str) -> float | None:
        return float(row[name]) if row[name] else None

    return Epoch(
        epoch=int(row["epoch"]),
        step=int(row["step"]),
        train_loss=float(row["train_loss"]),
        train_accuracy=float(row["train_accuracy"]),
        validation_loss=optional("validation_loss"),
        validation_accuracy=optional("validation_accuracy"),
        test_loss=float(row["test_loss"]),
        test_accuracy=float(row["test_accuracy"]),
        seconds=float(row["seconds"]),
    )
