"""Carrying out a trial: its runs, seed by seed, until they end or it is stopped."""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from momentumrnn.cli.sweeping.axes import Value
from momentumrnn.cli.sweeping.definition import Definition
from momentumrnn.cli.sweeping.trial import Outcome, Trial, run_folders
from momentumrnn.errors import DivergedError, RecipeError
from momentumrnn.tasks.contract import ACCURACY, Metric
from momentumrnn.training import Epoch, train
from momentumrnn.training.history import best_validation_epoch
from momentumrnn.training.progress import Progress
from momentumrnn.training.run_folder import RunFolder

Judge = Callable[[Mapping[int, float]], bool]


class PrunedError(Exception):
    """A trial fell behind and is stopped."""


class OutOfTimeError(Exception):
    """The minutes are over; a checkpoint was written."""


class Deadline:
    """When to stop.

    Args:
        minutes: From now on; no end where absent.
        clock: The time in seconds.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = math.inf if minutes is None else clock() + 60 * minutes
        self._asked = False

    @property
    def passed(self) -> bool:
        """Whether the time is over."""
        return self._clock() >= self._end

    def ask_to_stop(self) -> None:
        """Have the run write a checkpoint and stop, once, where the time is over."""
        if self.passed and not self._asked:
            self._asked = True
            # As Ctrl-C does: the loop stops between two steps, which an exception raised here could not.
            signal.raise_signal(signal.SIGINT)


class _Watched:
    """Passes on how a run goes, and stops it where it falls behind or the time is over."""

    def __init__(self, shown: Progress, deadline: Deadline, judge: Callable[[Epoch], None]) -> None:
        self._shown, self._deadline, self._judge = shown, deadline, judge
        self.end = shown.end

    def begin(
        self, run: str, epochs: int, steps: int, epoch: int, step: int, metric: Metric = ACCURACY
    ) -> None:
        self._shown.begin(run, epochs, steps, epoch, step, metric)

    def step(self, epoch: int, step: int, loss: float, metric: float) -> None:
        self._shown.step(epoch, step, loss, metric)
        self._deadline.ask_to_stop()

    def epoch(self, row: Epoch) -> None:
        self._shown.epoch(row)
        self._judge(row)
        self._deadline.ask_to_stop()


def carry_out(
    definition: Definition,
    number: int,
    values: Mapping[str, Value],
    *,
    out: Path,
    data: Path | None,
    device: str,
    threads: int | None,
    shown: Progress,
    deadline: Deadline,
    judge: Judge,
) -> Trial:
    """Carry out a trial, or go on with one.

    Args:
        definition: What is swept.
        number: The trial's.
        values: ``section.key`` → value.
        out: The folder of the sweep.
        data: The data folder.
        device: Where to run.
        threads: How many CPU threads to use.
        shown: Who is told how its runs go.
        deadline: When to stop.
        judge: Whether a trial with this curve is to be stopped.

    Raises:
        OutOfTimeError: The time is over.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written before.
        RecipeError: Nothing is held out.
    """
    folders = run_folders(out, number, definition.seeds)
    curve: dict[int, float] = {}
    outcome: Outcome = "complete"
    try:
        for index, (recipe, folder) in enumerate(zip(definition.runs(values), folders, strict=True)):
            last = recipe.training.epochs if definition.seeds == 1 else math.inf

            def note(row: Epoch, first: bool = index == 0, last: float = last) -> None:
                if row.validation_metric is None:
                    raise RecipeError(
                        f"data.validation: {definition.recipe.data.name!r} holds nothing out here, and a "
                        "sweep is judged by held-out examples, never by the test"
                    )
                # The first seed decides: others would be compared by means over unlike numbers of runs.
                if first:
                    curve[row.epoch] = row.validation_metric
                    if row.epoch < last and judge(curve):
                        raise PrunedError

            for row in RunFolder(folder).history():
                note(row)
            if deadline.passed:
                raise OutOfTimeError
            watched = _Watched(shown, deadline, note)
            train(recipe, folder, data=data, device=device, threads=threads, progress=watched)
    except PrunedError:
        outcome = "pruned"
    except DivergedError:
        outcome = "diverged"
    except KeyboardInterrupt:
        if deadline.passed:
            raise OutOfTimeError from None
        raise
    return _trial(number, values, outcome, folders, curve)


def _trial(
    number: int,
    values: Mapping[str, Value],
    outcome: Outcome,
    folders: Sequence[Path],
    curve: Mapping[int, float],
) -> Trial:
    histories = [RunFolder(folder).history() for folder in folders]
    found = [best for best in map(best_validation_epoch, histories) if best is not None]
    scores = tuple(row.validation_metric for row in found if row.validation_metric is not None)
    if not all(map(math.isfinite, scores)):
        outcome = "diverged"
    if outcome == "diverged":
        scores, found = (), []
    seconds = sum(row.seconds for history in histories for row in history)
    epochs = tuple(row.epoch for row in found)
    return Trial(number, values, outcome, scores, epochs, seconds, curve)
