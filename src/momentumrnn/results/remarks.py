"""What a reader of a set of runs should be warned of."""

from collections import Counter
from collections.abc import Sequence

from momentumrnn.results.quantities import is_finite
from momentumrnn.results.runs import RunRecord
from momentumrnn.training.run_folder import NUMERICAL

# More names than this say no more.
NAMES = 8


def warnings_of(runs: Sequence[RunRecord]) -> list[str]:
    """Runs that are not finished, that diverged, that were not made with the same versions.

    Args:
        runs: Those that are reported.
    """
    warnings = []
    unfinished = [
        f"{run.folder.name} ({len(run.history)} of {run.recipe.training.epochs} epochs)"
        for run in runs
        if not run.finished and run.diverged is None
    ]
    if unfinished:
        warnings.append(f"{len(unfinished)} of {len(runs)} runs are not finished: {_some(unfinished)}")
    for run in runs:
        where = run.diverged
        bad = next((epoch.epoch for epoch in run.history if not is_finite(epoch)), None)
        if where is None and bad is not None:
            where = f"not every number of epoch {bad} is finite"
        if where is not None:
            warnings.append(f"{run.folder.name} has diverged: {where}")
    unknown = [run.folder.name for run in runs if not run.starts]
    if unknown:
        warnings.append(f"what they were made with is not known of {_some(unknown)}")
    return [*warnings, *_different_versions(runs)]


def versions_of(runs: Sequence[RunRecord]) -> dict[str, Counter[str]]:
    """What runs were made with: key → value → in how many runs; a run that went on elsewhere counts for both.

    Args:
        runs: Any.
    """
    found = {}
    for key in NUMERICAL:
        values = Counter(value for run in runs for value in {_told(start.get(key)) for start in run.starts})
        if values:
            found[key] = values
    return found


def show_counts(values: Counter[str]) -> str:
    """Values, with how often each was met where there are several.

    Args:
        values: Any.

    >>> show_counts(Counter({"2.13": 3, "2.11": 1}))
    '2.13 (3 runs), 2.11 (1 run)'
    """
    if len(values) == 1:
        return next(iter(values))
    return ", ".join(f"{value} ({n} {'run' if n == 1 else 'runs'})" for value, n in values.most_common())


def _different_versions(runs: Sequence[RunRecord]) -> list[str]:
    return [
        f"runs differ in {key}: {show_counts(values)}"
        for key, values in versions_of(runs).items()
        if len(values) > 1
    ]


def _told(value: object) -> str:
    return "unknown" if value is None else str(value)


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES
    return ", ".join(names[:NAMES]) + (f" and {more} more" if more > 0 else "")
