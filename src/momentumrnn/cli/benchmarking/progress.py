"""Telling how a benchmark goes: a bar with the time left on a terminal, a line a part elsewhere."""

from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from momentumrnn.cli.benchmarking.tasks import Task

LONGEST_LABEL = 44


class Watcher:
    """Who is told how a benchmark goes; a context manager.

    Args:
        tasks: What will be measured.
        console: Where it is told.
    """

    def __init__(self, tasks: Sequence[Task], console: Console) -> None:
        self._console, self._count, self._begun = console, len(tasks), 0
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=16),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        # Parts count with their expected seconds, or the time left would be that of the last shape.
        self._bar = self._bars.add_task("", total=sum(task.seconds for task in tasks))

    def __enter__(self) -> "Watcher":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, task: Task) -> Callable[[], None]:
        """A part begins.

        Args:
            task: Which.

        Returns:
            What is to be called after every turn.
        """
        self._begun += 1
        if not self._console.is_terminal:
            print(f"{self._begun}/{self._count} {task.label}", flush=True)
        label = task.label
        if len(label) > LONGEST_LABEL:
            label = f"{label[: LONGEST_LABEL - 1]}…"
        self._bars.update(self._bar, description=f"{label:{LONGEST_LABEL}}")
        return lambda: self._bars.advance(self._bar, task.seconds / task.turns)
