"""``momentumrnn reproduce``: tables and figures of the paper, row by row."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console

from momentumrnn.cli.reproducing.at_once import choose_at_once, this_machine
from momentumrnn.cli.reproducing.cluster import RayExecutor, find_ray
from momentumrnn.cli.reproducing.cost import cost_panels, measure_cost
from momentumrnn.cli.reproducing.errors import ReproduceError
from momentumrnn.cli.reproducing.estimates import Estimate, estimate, seconds_left
from momentumrnn.cli.reproducing.gradients import plot_gradients
from momentumrnn.cli.reproducing.jobs import Job, Outcome
from momentumrnn.cli.reproducing.local import LocalExecutor
from momentumrnn.cli.reproducing.options import Options
from momentumrnn.cli.reproducing.showing import describe_unknown, show_plan
from momentumrnn.cli.reproducing.survey import Run, missing_data, survey
from momentumrnn.cli.reproducing.watching import Watcher
from momentumrnn.cli.terminal import make_console
from momentumrnn.results import check_folder, make_folder
from momentumrnn.results.find import COST
from momentumrnn.training.devices import choose_device
from momentumrnn.training.interrupt import Interrupt, catch_interrupts
from momentumrnn.training.lock import FolderLock
from momentumrnn.training.plan import Plan, load_plan
from momentumrnn.training.progress import duration
from momentumrnn.training.sections import DataSection


class TimeIsOutError(Exception):
    """The minutes that were given are over."""


class Clock:
    """Whether it is time to stop.

    Args:
        minutes: How many there are from now on; no end where absent.
    """

    def __init__(self, minutes: float | None) -> None:
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self.interrupt = Interrupt()

    @property
    def out(self) -> bool:
        """Whether time is out."""
        return self._end is not None and time.monotonic() >= self._end

    def wanted(self) -> bool:
        """Whether to stop, for either reason."""
        return self.out or self.interrupt.requested

    def check(self) -> None:
        """Raise where it is time to stop."""
        if self.interrupt.requested:
            raise KeyboardInterrupt
        if self.out:
            raise TimeIsOutError


def reproduce(options: Options) -> None:
    """Show the plan, and make what is missing.

    Args:
        options: What was asked for.

    Raises:
        ReproduceError: Some runs failed; the others were made.
        RecipeError: Changes that not every row can take.
        CheckpointError: The folder is none, holds other runs, or is in use.
        KeyboardInterrupt: Ctrl-C; runs were stopped with a checkpoint.
    """
    console, clock = make_console(), Clock(options.minutes)
    if options.executor == "ray":
        find_ray()
    check_folder(options.out)
    _whole_plan(options)
    runs = survey(options.plan, options.out)
    unfinished = [run for run in runs if run.standing != "done"]
    missing = missing_data(unfinished, options.data)
    possible = [run for run in unfinished if run.recipe.data not in missing]
    if options.plan_only:
        estimates = _estimates(possible, runs, options, clock, console)
        _show(runs, possible, missing, estimates, options, console)
        return
    make_folder(options.out)
    with FolderLock(options.out / "reproduce.lock"), catch_interrupts() as clock.interrupt:
        # Once more: another process may have added to it in between.
        whole = _whole_plan(options)
        whole.save(options.out)
        estimates = _estimates(possible, runs, options, clock, console)
        at_once = _show(runs, possible, missing, estimates, options, console)
        outcomes: dict[str, Outcome] = {}
        try:
            clock.check()
            _measure_cost(options, clock, console)
            _make(possible, at_once, estimates, options, clock, console, outcomes)
            clock.check()
        except TimeIsOutError:
            console.print(f"{options.minutes:g} minutes are over; the same command goes on")
        except KeyboardInterrupt:
            _conclude(runs, missing, outcomes, whole, options, console)
            raise KeyboardInterrupt(
                "what was begun holds a checkpoint, and the same command goes on"
            ) from None
        _conclude(runs, missing, outcomes, whole, options, console)
    failed = {name: outcome.told for name, outcome in outcomes.items() if outcome.state == "failed"}
    if failed:
        raise ReproduceError(
            f"{len(failed)} of {len(outcomes)} runs failed: {', '.join(failed)}; why stands above, and the "
            "others were made"
        )


def _whole_plan(options: Options) -> Plan:
    """What was asked for, with what was planned in the folder before; refused where they do not agree."""
    present = load_plan(options.out)
    return options.plan if present is None else options.plan.joined(present)


def _estimates(
    possible: Sequence[Run], runs: Sequence[Run], options: Options, clock: Clock, console: Console
) -> dict[str, Estimate]:
    """What the runs take; nothing for shrunk ones, which take less time than measuring them."""
    if options.plan.smoke:
        return {}
    return estimate(possible, runs, options, clock, lambda text: _say(console, text))


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _show(
    runs: Sequence[Run],
    possible: Sequence[Run],
    missing: Mapping[DataSection, str],
    estimates: Mapping[str, Estimate],
    options: Options,
    console: Console,
) -> int:
    """Print the plan; return how many runs are made at once."""
    show_plan(runs, missing, estimates, console)
    for panel, rows in cost_panels(options.plan):
        _say(console, f"cost of a step: {panel.title}, {len(rows)} rows")
    if not possible:
        return 1
    unknown = "" if options.plan.smoke else describe_unknown(possible, estimates)
    if options.plan_only and unknown:
        _say(console, unknown)
    machine = this_machine(choose_device(options.device))
    taken = [estimates[run.row.name] for run in possible if run.row.name in estimates]
    at_once, why = choose_at_once(machine, options.threads, len(possible), taken)
    if options.jobs is not None:
        at_once, why = options.jobs, "as asked for"
    left = [seconds for run in possible if (seconds := seconds_left(run, estimates)) is not None]
    told = [f"{len(possible)} runs to be made", f"{at_once} at once ({why})"]
    if len(left) == len(possible):
        # No run is divided among processes.
        told.append(f"about {duration(max(sum(left) / at_once, *left))} in all")
    _say(console, ", ".join(told))
    return at_once


def _measure_cost(options: Options, clock: Clock, console: Console) -> None:
    device = choose_device(options.device)
    plan, out = options.plan, options.out
    measure_cost(
        plan,
        out,
        device=device,
        threads=options.threads,
        told=lambda text: _say(console, text),
        check=clock.check,
    )


def _make(
    possible: Sequence[Run],
    at_once: int,
    estimates: Mapping[str, Estimate],
    options: Options,
    clock: Clock,
    console: Console,
    outcomes: dict[str, Outcome],
) -> None:
    """Make runs, and note what comes of each, however this ends."""
    jobs = [
        Job(
            kind="gradients" if run.gradients else "train",
            name=run.name,
            recipe=run.recipe,
            place=run.place,
            # Another machine may have its own.
            data=options.data if options.executor == "local" or options.own_data else None,
            device=options.device,
            threads=options.threads,
            smoke=options.plan.smoke,
        )
        for run in possible
    ]
    if not jobs:
        return
    executor: LocalExecutor | RayExecutor
    executor = LocalExecutor(at_once) if options.executor == "local" else RayExecutor(at_once, options.jobs)
    seconds = {run.name: seconds_left(run, estimates) for run in possible}
    with Watcher(seconds, at_once, console) as watcher:
        try:
            executor.run(jobs, watcher, clock)
        finally:
            outcomes.update(watcher.outcomes)


def _conclude(
    runs: Sequence[Run],
    missing: Mapping[DataSection, str],
    outcomes: Mapping[str, Outcome],
    whole: Plan,
    options: Options,
    console: Console,
) -> None:
    """Draw what can be drawn, and say how far everything is."""
    files = plot_gradients(whole, options.out)
    done = [run.name for run in runs if run.standing == "done"]
    done += [name for name, outcome in outcomes.items() if outcome.state == "done"]
    lacking = sum(run.recipe.data in missing for run in runs if run.name not in done)
    failed = sum(outcome.state == "failed" for outcome in outcomes.values())
    left = len(runs) - len(done) - lacking - failed
    words = [f"{len(done)} of {len(runs)} runs are done"]
    words += [f"{failed} failed"] if failed else []
    words += [f"{lacking} have no data here"] if lacking else []
    words += [f"{left} are left"] if left else []
    for file in files:
        _say(console, f"wrote {file}")
    if cost_panels(options.plan) and (options.out / COST).exists():
        _say(console, f"wrote {options.out / COST}")
    _say(console, f"{', '.join(words)}; to see them: momentumrnn report {options.out}")
