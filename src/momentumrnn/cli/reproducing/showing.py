"""The plan as a table."""

import statistics
from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from momentumrnn.cli.reproducing.estimates import Estimate, seconds_left
from momentumrnn.cli.reproducing.survey import Run
from momentumrnn.training.progress import duration
from momentumrnn.training.sections import DataSection

NOT_KNOWN = "–"


def show_plan(
    runs: Sequence[Run],
    missing: Mapping[DataSection, str],
    estimates: Mapping[str, Estimate],
    console: Console,
) -> None:
    """Print what is done and what is not, a line a row; the settings of a grid share one.

    Args:
        runs: All.
        missing: Data that are not there.
        estimates: What runs take.
        console: The terminal.
    """
    rows: dict[tuple[bool, str, tuple[str, ...]], list[Run]] = {}
    for run in runs:
        varied = tuple(override.partition("=")[0] for override in run.row.overrides)
        rows.setdefault((run.gradients, run.row.recipe, varied), []).append(run)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("row", "runs"):
        table.add_column(heading, overflow="fold")
    for heading in ("a run", "left") if estimates else ():
        table.add_column(heading, justify="right", no_wrap=True)
    for (gradients, recipe, _), members in rows.items():
        settings = {run.row.name for run in members}
        name = members[0].row.name if len(settings) == 1 else f"{recipe}, {len(settings)} settings"
        lacking = members[0].recipe.data in missing
        taken = times(members, estimates) if estimates else ()
        table.add_row(f"{name}{', gradients' if gradients else ''}", stand(members, lacking), *taken)
    console.print(table)
    for section, told in missing.items():
        # Unwrapped lines of a path can be copied.
        console.print(f"not here: {section.name}. {told}", highlight=False, markup=False, soft_wrap=True)


def stand(members: Sequence[Run], lacking: bool) -> str:
    """Where a row's runs stand, in words.

    Args:
        members: Its runs.
        lacking: Whether its data are not here.
    """
    done = sum(run.standing == "done" for run in members)
    begun = [run for run in members if run.standing == "begun"]
    missing = len(members) - done - len(begun)
    words = [f"{done} done"] if done else []
    for run in begun:
        epochs = f" after epoch {len(run.history)} of {run.recipe.training.epochs}" if run.history else ""
        words.append(f"1 begun{epochs}")
    if missing:
        words.append(f"{missing} {'without data' if lacking else 'to be made'}")
    return ", ".join(words)


def times(members: Sequence[Run], estimates: Mapping[str, Estimate]) -> tuple[str, str]:
    """What a run of a row takes from beginning to end, and what all of them still take.

    Args:
        members: Its runs.
        estimates: What runs take.
    """
    left = [seconds_left(run, estimates) for run in members]
    known = [seconds for seconds in left if seconds is not None]
    total = duration(sum(known)) if known and len(known) == len(left) else NOT_KNOWN
    if all(run.standing == "done" for run in members):
        total = ""
    found = estimates.get(members[0].row.name)
    if members[0].gradients:
        whole = statistics.median(known) if known else 0.0
    else:
        whole = found.epoch_seconds * members[0].recipe.training.epochs if found else 0.0
    return duration(whole) if whole else NOT_KNOWN, total


def describe_unknown(possible: Sequence[Run], estimates: Mapping[str, Estimate]) -> str:
    """Which rows are of unknown time, and what makes it known; empty where there is none.

    Args:
        possible: The runs that are to be made.
        estimates: What runs take.
    """
    rows = dict.fromkeys(run.row.name for run in possible)
    unknown = dict.fromkeys(run.row.name for run in possible if seconds_left(run, estimates) is None)
    if not unknown:
        return ""
    which = ", ".join(unknown) if len(unknown) < len(rows) else "any row"
    return (
        f"not known yet, how long a run takes of {which}: no epoch is finished and no step was measured; the "
        "command measures a few steps first, without --plan"
    )
