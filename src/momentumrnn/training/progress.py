"""Telling how a run goes: bars on a terminal, plain lines elsewhere, or nothing."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from momentumrnn.training.history import Epoch

SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Who is told how a run goes."""

    def begin(self, run: str, epochs: int, steps: int, epoch: int, step: int) -> None:
        """A run begins, or goes on.

        Args:
            run: Its name.
            epochs: How many it has.
            steps: How many an epoch has.
            epoch: The one it is in, from 1.
            step: How many steps of it are done.
        """

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """Some steps were taken; called about twice a second.

        Args:
            epoch: From 1.
            step: How many steps of it are done.
            loss: Mean over the epoch so far.
            accuracy: Mean over the epoch so far.
        """

    def epoch(self, row: Epoch) -> None:
        """An epoch was measured.

        Args:
            row: What was measured.
        """

    def end(self) -> None:
        """The run ends, finished or not."""


class Silent:
    """Says nothing."""

    def begin(self, run: str, epochs: int, steps: int, epoch: int, step: int) -> None:
        """Say nothing."""

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """Say nothing."""

    def epoch(self, row: Epoch) -> None:
        """Say nothing."""

    def end(self) -> None:
        """Say nothing."""


class Lines:
    """A plain line now and then, for logs.

    Args:
        write: Where lines go.
        clock: The time in seconds.
    """

    def __init__(
        self, write: Callable[[str], None] = print, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write, self._clock = write, clock
        self._run, self._epochs, self._steps = "", 0, 0
        self._last = -SECONDS_BETWEEN_LINES

    def begin(self, run: str, epochs: int, steps: int, epoch: int, step: int) -> None:
        """Say where the run stands."""
        self._run, self._epochs, self._steps, self._last = run, epochs, steps, self._clock()
        if epoch > 1 or step > 0:
            self._write(f"{run}: going on in epoch {epoch} of {epochs} after step {step} of {steps}")

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """Say it if nothing was said for a while."""
        if self._due():
            self._write(
                f"{self._run}: epoch {epoch}/{self._epochs} step {step}/{self._steps} "
                f"loss {loss:.4f} accuracy {accuracy:.2%}"
            )

    def epoch(self, row: Epoch) -> None:
        """Say it if nothing was said for a while, and of the last epoch in any case."""
        if self._due() or row.epoch == self._epochs:
            self._write(f"{self._run}: epoch {row.epoch}/{self._epochs} {describe(row)}")

    def end(self) -> None:
        """Say nothing: the last epoch was said."""

    def _due(self) -> bool:
        if self._clock() - self._last < SECONDS_BETWEEN_LINES:
            return False
        self._last = self._clock()
        return True


class Bars:
    """Live bars on a terminal, as a context manager; one for the run, one over all runs where there are more.

    Args:
        console: The terminal.
        runs: How many runs there will be.
    """

    def __init__(self, console: Console, runs: int = 1) -> None:
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
            console=console,
        )
        self._all: TaskID | None = None
        if runs > 1:
            self._all = self._bars.add_task("all runs", total=runs, told="")
        self._run = self._bars.add_task("", total=None, told="", visible=False)
        self._done = 0
        self._epochs, self._steps, self._epoch_told = 0, 0, ""

    def __enter__(self) -> "Bars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, run: str, epochs: int, steps: int, epoch: int, step: int) -> None:
        """Show the run's bar."""
        self._epochs, self._steps, self._epoch_told = epochs, steps, ""
        self._bars.reset(self._run, description=run, total=epochs * steps, visible=True, told="")
        self._move(epoch, step, "")

    def step(self, epoch: int, step: int, loss: float, accuracy: float) -> None:
        """Move the run's bar."""
        told = f"epoch {epoch}/{self._epochs} step {step}/{self._steps} loss {loss:.4f}"
        self._move(epoch, step, f"{told} {self._epoch_told}")

    def epoch(self, row: Epoch) -> None:
        """Move the run's bar, and show what was measured."""
        measured = row.validation_accuracy
        shown = row.test_accuracy if measured is None else measured
        self._epoch_told = f"{'test' if measured is None else 'validation'} {shown:.2%}"
        told = f"epoch {row.epoch}/{self._epochs} loss {row.train_loss:.4f} {self._epoch_told}"
        self._move(row.epoch, self._steps, told)

    def end(self) -> None:
        """Leave the bar where it stands."""

    def run_done(self) -> None:
        """Move the bar over all runs."""
        self._done += 1
        if self._all is not None:
            self._bars.update(self._all, completed=self._done)

    def _move(self, epoch: int, step: int, told: str) -> None:
        done = (epoch - 1) * self._steps + step
        self._bars.update(self._run, completed=done, told=told)
        if self._all is not None:
            share = done / max(1, self._epochs * self._steps)
            self._bars.update(self._all, completed=min(self._done + share, self._done + 1))


def describe(row: Epoch) -> str:
    """What an epoch measured, in a few words.

    Args:
        row: What was measured.
    """
    words = [f"loss {row.train_loss:.4f}", f"train {row.train_accuracy:.2%}"]
    if row.validation_accuracy is not None:
        words.append(f"validation {row.validation_accuracy:.2%}")
    return " ".join([*words, f"test {row.test_accuracy:.2%}", f"({row.seconds:.1f} s)"])
