"""Telling how many runs go at once: a bar a run and one over all on a terminal, lines elsewhere."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from momentumrnn.cli.reproducing.jobs import Outcome
from momentumrnn.tasks.contract import METRICS, Metric
from momentumrnn.training.history import Epoch
from momentumrnn.training.progress import SECONDS_BETWEEN_LINES, describe, describe_values, duration

TOLD = {"done": "done", "failed": "failed", "missing": "data not here", "stopped": "stopped"}
# Before that a guess is better than what was seen.
SECONDS_BEFORE_A_RATE = 60.0


@dataclass
class _Stage:
    """How far a run is, as a share of the whole."""

    epochs: int
    steps: int
    metric: Metric
    first: float
    share: float
    began: float
    last_line: float
    bar: TaskID | None = None
    measured: str = ""

    def fraction(self) -> float:
        """Of what was left of it when it was begun."""
        return 1.0 if self.first >= 1 else (self.share - self.first) / (1 - self.first)


class Watcher:
    """Who is told how runs go; a context manager.

    Args:
        seconds: About how long each of them still takes, by name; nothing where it is not known.
        at_once: How many are made at once.
        console: Where it is told.
        clock: The time in seconds.

    Attributes:
        outcomes: What came of those that have ended, by name.
    """

    def __init__(
        self,
        seconds: Mapping[str, float | None],
        at_once: int,
        console: Console,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.outcomes: dict[str, Outcome] = {}
        known = [value for value in seconds.values() if value]
        # One that was not measured counts as the others do on average.
        usual = sum(known) / len(known) if known else 1.0
        self._weights = {name: value or usual for name, value in seconds.items()}
        self._guessed = bool(known)
        self._at_once, self._console, self._clock = at_once, console, clock
        self._began: float | None = None
        self._stages: dict[str, _Stage] = {}
        self._done_before, self._ended = 0.0, 0
        self._bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f}%"),
            # Cut rather than wrapped: a bar that changes its height leaves traces.
            TextColumn(
                "{task.fields[told]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")
            ),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("all", total=1.0, told="")

    def __enter__(self) -> "Watcher":
        self._bars.start()
        self._show_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line, above the bars where there are some."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def tell(self, name: str, event: str, values: dict[str, Any]) -> None:
        """Show what a run tells."""
        if event == "warning":
            self.say(f"{name}: {values['text']}")
        elif event == "begin":
            self._begin(name, values)
        elif name not in self._stages:
            # Its beginning was lost, with the process that events wait in on a cluster.
            return
        elif event == "step":
            stage = self._stages[name]
            told = describe_values(values["loss"], stage.metric, values["metric"])
            self._move(name, values["epoch"], values["step"], told)
        elif event == "epoch":
            stage = self._stages[name]
            row = Epoch.from_columns(values["columns"], METRICS[values["metric"]])
            held_out = row.validation_metric
            shown = row.test_metric if held_out is None else held_out
            stage.measured = f" {'test' if held_out is None else 'validation'} {row.metric.show(shown)}"
            self._move(name, row.epoch, stage.steps, describe(row), measured=True)

    def ended(self, name: str, outcome: Outcome) -> None:
        """Say what came of a run, and take its bar away."""
        self.outcomes[name] = outcome
        stage, weight = self._stages.pop(name, None), self._weights.pop(name)
        taken = weight if outcome.state == "done" else weight * stage.fraction() if stage else 0.0
        self._done_before += taken
        if outcome.state == "stopped":
            self._weights[name] = weight - taken
            count = ""
        else:
            self._ended += 1
            count = f"{self._ended}/{self._ended + len(self._weights)} "
        if stage is not None and stage.bar is not None:
            self._bars.remove_task(stage.bar)
        told = f": {outcome.told}" if outcome.told else ""
        left = self._left() if outcome.state == "done" and not self._console.is_terminal else ""
        self.say(f"{count}{name}: {TOLD[outcome.state]}{told}{left}")
        self._show_all()

    def _begin(self, name: str, at: dict[str, Any]) -> None:
        epochs, steps, now = at["epochs"], at["steps"], self._clock()
        # The start of processes tells nothing about the work.
        self._began = now if self._began is None else self._began
        share = ((at["epoch"] - 1) * steps + at["step"]) / (epochs * steps)
        before = self._stages.get(name)
        bar = before.bar if before else None
        if bar is None and self._console.is_terminal:
            bar = self._bars.add_task(name, total=1.0, told="")
        first = min(before.first, share) if before else share
        self._stages[name] = _Stage(epochs, steps, METRICS[at["metric"]], first, share, now, now, bar)
        if share:
            self._line(
                name, f"going on in epoch {at['epoch']} of {epochs} after step {at['step']} of {steps}"
            )

    def _move(self, name: str, epoch: int, step: int, told: str, *, measured: bool = False) -> None:
        stage, now = self._stages[name], self._clock()
        stage.share = ((epoch - 1) * stage.steps + step) / (stage.epochs * stage.steps)
        at = f"epoch {epoch}/{stage.epochs} step {step}/{stage.steps}"
        left = ""
        if 0 < stage.fraction() < 1:
            seconds = (now - stage.began) * (1 - stage.fraction()) / stage.fraction()
            left = f", {duration(seconds)} left"
        if stage.bar is not None:
            words = f"{at}{stage.measured}" if measured else f"{at} {told}{stage.measured}"
            self._bars.update(stage.bar, completed=stage.share, told=f"{words}{left}")
            self._show_all()
        elif now - stage.last_line >= SECONDS_BETWEEN_LINES * self._at_once:
            # As many lines in all as of a single run.
            self._line(name, f"{at} {told}{left}")
            stage.last_line = now

    def _line(self, name: str, told: str) -> None:
        if not self._console.is_terminal:
            self.say(f"{name}: {told}")

    def _work(self) -> tuple[float, float]:
        """Seconds of work that were done here, and those that are left."""
        begun = sum(self._weights[name] * stage.fraction() for name, stage in self._stages.items())
        return self._done_before + begun, sum(self._weights.values()) - begun

    def _left(self) -> str:
        done, left = self._work()
        elapsed = 0.0 if self._began is None else self._clock() - self._began
        if done and elapsed > SECONDS_BEFORE_A_RATE:
            seconds = left * elapsed / done
        elif self._guessed:
            seconds = left / self._at_once
        else:
            return ""
        return f", about {duration(seconds)} left in all" if left else ""

    def _show_all(self) -> None:
        done, left = self._work()
        count = self._ended + len(self._weights)
        self._bars.update(
            self._all,
            completed=done,
            total=done + left,
            told=f"{self._ended} of {count} runs{self._left()}",
        )
