"""Telling how a sweep goes: bars on a terminal, plain lines elsewhere. The test is never told."""

import math
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

from momentumrnn.cli.sweeping.axes import Value
from momentumrnn.cli.sweeping.trial import Trial
from momentumrnn.tasks.contract import ACCURACY, Metric
from momentumrnn.training import Epoch
from momentumrnn.training.progress import SECONDS_BETWEEN_LINES, describe_values, duration


class Teller:
    """Who is told how a sweep goes; a context manager, and a ``Progress`` of every run in it.

    Args:
        console: Where it is told.
        metric: What trials are judged by.
        trials: How many there will be.
        seeds: How many runs a trial has.
        clock: The time in seconds.
    """

    def __init__(
        self,
        console: Console,
        metric: Metric,
        trials: int,
        seeds: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._metric, self._trials, self._seeds = console, metric, trials, seeds
        self._clock = clock
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[told]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("trials", total=trials, told="")
        self._one = self._bars.add_task("", total=1, told="", visible=False)
        self._best = ""
        # In trials; a part of one counts with the share of its steps.
        self._done, self._share, self._begun_with = 0, 0.0, -1.0
        self._run, self._runs_before, self._epochs, self._steps = "", 0, 1, 1
        self._told_epoch = ""
        self._started = self._last = clock()

    def __enter__(self) -> "Teller":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def trial_begins(self, number: int, values: Mapping[str, Value], best: Trial | None) -> None:
        """A trial begins, or goes on.

        Args:
            number: Its.
            values: What it tries.
            best: The best one until now.
        """
        self._done, self._share, self._runs_before = number, 0.0, 0
        self._told_epoch = ""
        self._note(best)
        self._write(f"trial {number} ({number + 1} of {self._trials}): {show_values(values)}")
        self._move()

    def trial_ends(self, trial: Trial, best: Trial | None) -> None:
        """A trial is over.

        Args:
            trial: Which.
            best: The best one until now.
        """
        self._done, self._share = trial.number + 1, 0.0
        self._note(best)
        self._write(f"trial {trial.number}: {joined(show_outcome(trial, self._metric), self._about())}")
        self._move()

    def begin(
        self, run: str, epochs: int, steps: int, epoch: int, step: int, metric: Metric = ACCURACY
    ) -> None:
        """A run of the trial begins, or goes on."""
        self._run, self._epochs, self._steps = run, epochs, steps
        # Of a trial that is gone on with, the finished runs do not begin again: the name counts.
        self._runs_before = int(run.rpartition("-")[2]) if self._seeds > 1 else 0
        self._reach(epoch, step)
        if self._begun_with < 0:
            # The time left follows from what is done in this process.
            self._begun_with, self._started = self._done + self._share, self._clock()
        self._last = self._clock()
        self._bars.reset(self._one, total=epochs * steps, description=run, visible=True, told="")
        self._move()

    def step(self, epoch: int, step: int, loss: float, metric: float) -> None:
        """Some steps of it were taken."""
        self._reach(epoch, step)
        values = describe_values(loss, self._metric, metric)
        self._tell(f"epoch {epoch}/{self._epochs} step {step}/{self._steps} {values} {self._told_epoch}")

    def epoch(self, row: Epoch) -> None:
        """An epoch of it was measured."""
        self._reach(row.epoch, self._steps)
        if row.validation_metric is not None:
            self._told_epoch = f"validation {self._metric.show(row.validation_metric)}"
        self._tell(f"epoch {row.epoch}/{self._epochs} loss {row.train_loss:.4f} {self._told_epoch}")

    def end(self) -> None:
        """Leave the bar where it stands."""

    def _note(self, best: Trial | None) -> None:
        self._best = (
            f"best {self._metric.name} {self._metric.show(best.value)} (trial {best.number})" if best else ""
        )

    def _reach(self, epoch: int, step: int) -> None:
        run = ((epoch - 1) * self._steps + step) / max(1, self._epochs * self._steps)
        self._share = (self._runs_before + run) / self._seeds

    def _tell(self, told: str) -> None:
        self._move(told)
        if self._clock() - self._last >= SECONDS_BETWEEN_LINES:
            self._write(joined(f"{self._run}: {told.strip()}", self._left()))

    def _move(self, told: str = "") -> None:
        share = self._share * self._seeds - self._runs_before
        self._bars.update(self._one, completed=share * self._epochs * self._steps, told=told)
        self._bars.update(self._all, completed=self._done + self._share, told=self._about())

    def _about(self) -> str:
        return joined(self._best, self._left())

    def _left(self) -> str:
        reached = self._done + self._share
        taken, left = reached - self._begun_with, self._trials - reached
        if self._begun_with < 0 or taken <= 0 or left <= 0 or math.isclose(left, 0):
            return ""
        return f"{duration((self._clock() - self._started) / taken * left)} left"

    def _write(self, line: str) -> None:
        self._last = self._clock()
        if not self._console.is_terminal:
            print(line, flush=True)


def joined(*parts: str) -> str:
    """Parts of a line, without those that are empty.

    Args:
        parts: The parts.

    >>> joined("best", "", "3 s left")
    'best, 3 s left'
    """
    return ", ".join(part for part in parts if part)


def show_values(values: Mapping[str, Value], digits: int = 4) -> str:
    """What a trial tries, in short.

    Args:
        values: ``section.key`` → value.
        digits: Of numbers.

    >>> show_values({"rule.momentum": 0.123456, "model.name": "LSTM"})
    'rule.momentum=0.1235 model.name=LSTM'
    """
    return " ".join(f"{key}={show_value(value, digits)}" for key, value in values.items())


def show_value(value: Value, digits: int = 4) -> str:
    """A value in short.

    Args:
        value: Of a recipe.
        digits: Of a number that is not whole.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def show_outcome(trial: Trial, metric: Metric) -> str:
    """How a trial ended, in a few words.

    Args:
        trial: Which.
        metric: What it is judged by.
    """
    if trial.outcome == "diverged":
        return "diverged"
    reached = f"validation {metric.name} {metric.show(trial.value)}"
    return reached if trial.outcome == "complete" else f"pruned after epoch {max(trial.curve)} at {reached}"
