"""Telling how a run goes: bars on a terminal, plain lines elsewhere, or nothing."""

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from momentumrnn.tasks.contract import ACCURACY, LOSS, Metric
from momentumrnn.training.history import Epoch

SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Who is told how a run goes."""

    def begin(
        self, run: str, epochs: int, steps: int, epoch: int, step: int, metric: Metric = ACCURACY
    ) -> None:
        """A run begins, or goes on.

        Args:
            run: Its name.
            epochs: How many it has.
            steps: How many an epoch has.
            epoch: The one it is in, from 1.
            step: How many steps of it are done.
            metric: What it is judged by.
        """

    def step(self, epoch: int, step: int, loss: float, metric: float) -> None:
        """Some steps were taken; called about twice a second.

        Args:
            epoch: From 1.
            step: How many steps of it are done.
            loss: Mean over the epoch so far.
            metric: Mean over the epoch so far.
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

    def begin(
        self, run: str, epochs: int, steps: int, epoch: int, step: int, metric: Metric = ACCURACY
    ) -> None:
        """Say nothing."""

    def step(self, epoch: int, step: int, loss: float, metric: float) -> None:
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
        self, write: Callable[[str], None] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # At once: a log is read while the run lasts, and a killed process writes nothing more.
        self._write, self._clock = write or partial(print, flush=True), clock
        self._run, self._epochs, self._steps = "", 0, 0
        self._metric = ACCURACY
        self._last = -SECONDS_BETWEEN_LINES
        self._began, self._done_before = 0.0, 0

    def begin(
        self, run: str, epochs: int, steps: int, epoch: int, step: int, metric: Metric = ACCURACY
    ) -> None:
        """Say where the run stands."""
        self._run, self._epochs, self._steps, self._metric = run, epochs, steps, metric
        self._began = self._last = self._clock()
        self._done_before = (epoch - 1) * steps + step
        if epoch > 1 or step > 0:
            self._write(f"{run}: going on in epoch {epoch} of {epochs} after step {step} of {steps}")

    def step(self, epoch: int, step: int, loss: float, metric: float) -> None:
        """Say it if nothing was said for a while."""
        if self._due():
            self._write(
                f"{self._run}: epoch {epoch}/{self._epochs} step {step}/{max(step, self._steps)} "
                f"{describe_values(loss, self._metric, metric)}{self._left(epoch, step)}"
            )

    def epoch(self, row: Epoch) -> None:
        """Say it if nothing was said for a while, and of the last epoch in any case."""
        if self._due() or row.epoch == self._epochs:
            left = self._left(row.epoch, self._steps)
            self._write(f"{self._run}: epoch {row.epoch}/{self._epochs} {describe(row)}{left}")

    def end(self) -> None:
        """Say nothing: the last epoch was said."""

    def _left(self, epoch: int, step: int) -> str:
        done = (epoch - 1) * self._steps + step
        taken, total = done - self._done_before, self._epochs * self._steps
        if taken <= 0 or done >= total:
            return ""
        seconds = (self._clock() - self._began) / taken * (total - done)
        return f", {duration(seconds)} left"

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
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=console,
        )
        self._all: TaskID | None = None
        if runs > 1:
            self._all = self._bars.add_task("all runs", total=runs, told="")
        self._run = self._bars.add_task("", total=None, told="", visible=False)
        self._done = 0
        self._epochs, self._steps, self._epoch_told = 0, 0, ""
        self._metric = ACCURACY

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(
        self, run: str, epochs: int, steps: int, epoch: int, step: int, metric: Metric = ACCURACY
    ) -> None:
        """Show the run's bar."""
        # Not before: of several processes on one terminal only the first is told anything.
        self._bars.start()
        self._epochs, self._steps, self._epoch_told, self._metric = epochs, steps, "", metric
        self._bars.reset(self._run, description=run, total=epochs * steps, visible=True, told="")
        self._move(epoch, step, "")

    def step(self, epoch: int, step: int, loss: float, metric: float) -> None:
        """Move the run's bar."""
        told = f"epoch {epoch}/{self._epochs} step {step}/{max(step, self._steps)}"
        values = describe_values(loss, self._metric, metric)
        self._move(epoch, step, f"{told} {values} {self._epoch_told}")

    def epoch(self, row: Epoch) -> None:
        """Move the run's bar, and show what was measured."""
        measured = row.validation_metric
        shown = row.test_metric if measured is None else measured
        self._epoch_told = f"{'test' if measured is None else 'validation'} {row.metric.show(shown)}"
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


def describe_values(loss: float, metric: Metric, value: float) -> str:
    """A loss and a metric in a few words; in fewer where they are the same.

    Args:
        loss: Of training, so far.
        metric: Which.
        value: Its value.

    >>> describe_values(0.25, ACCURACY, 0.5), describe_values(0.25, LOSS, 0.25)
    ('loss 0.2500 accuracy 50.00%', 'loss 0.2500')
    """
    return f"loss {loss:.4f}" + ("" if metric == LOSS else f" {metric.name} {metric.show(value)}")


def describe(row: Epoch) -> str:
    """What an epoch measured, in a few words.

    Args:
        row: What was measured.
    """
    show = row.metric.show
    words = [f"loss {row.train_loss:.4f}"]
    if row.metric != LOSS:
        words.append(f"train {show(row.train_metric)}")
    if row.validation_metric is not None:
        words.append(f"validation {show(row.validation_metric)}")
    return " ".join([*words, f"test {show(row.test_metric)}", f"({row.seconds:.1f} s)"])


def duration(seconds: float) -> str:
    """A time in its two largest units.

    Args:
        seconds: How long.

    >>> duration(42), duration(125), duration(7300)
    ('42 s', '2 min 5 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
