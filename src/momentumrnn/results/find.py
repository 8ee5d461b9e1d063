"""From names on the command line to the runs, plans and measurements that lie there."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from momentumrnn.errors import CheckpointError, RecipeError
from momentumrnn.results.runs import RunRecord, read_run
from momentumrnn.training.plan import Plan, load_plan
from momentumrnn.training.run_folder import METRICS, RECIPE

COST, COST_MACHINE, GRADIENTS = "cost.csv", "cost.json", "gradients"
WHAT_IS_A_RUN = (
    f"a run folder is what `momentumrnn train` and `momentumrnn reproduce` write: it holds {RECIPE} and, "
    f"after the first epoch, {METRICS}"
)


@dataclass(frozen=True)
class Found:
    """What lies in some folders.

    Attributes:
        runs: In the order of their folders.
        plans: Folder that holds run folders → the plan in it.
        measured: Folders with measurements that are no runs: cost, gradients.
        warnings: What was left out, and why.
    """

    runs: tuple[RunRecord, ...]
    plans: dict[Path, Plan]
    measured: tuple[Path, ...]
    warnings: tuple[str, ...]


def find_runs(paths: Sequence[Path]) -> Found:
    """Read every run folder; one that is damaged is left out with a warning.

    Args:
        paths: Run folders, or folders that hold some, however deep; of a run folder, the plan beside it
            counts, too.

    Raises:
        CheckpointError: None is given, one does not exist, or in none of them is a run, a plan or a
            measurement.
    """
    if not paths:
        raise CheckpointError(f"expected one or more folders, got none; {WHAT_IS_A_RUN}")
    runs: list[RunRecord] = []
    plans: dict[Path, Plan] = {}
    measured: list[Path] = []
    warnings: list[str] = []
    run_folders: dict[Path, Path] = {}
    holders: dict[Path, Path] = {}
    for path in paths:
        if not path.exists():
            raise CheckpointError(f"{path}: there is no such folder; {WHAT_IS_A_RUN}")
        if not path.is_dir():
            # A shell makes of runs/* the files beside the runs as well.
            continue
        for folder in _walk(path, warnings):
            if (folder / RECIPE).exists():
                run_folders.setdefault(folder.resolve(), folder)
                holders.setdefault(folder.resolve().parent, folder.parent)
            else:
                holders.setdefault(folder.resolve(), folder)
                if (folder / METRICS).exists():
                    warnings.append(f"{folder} is left out: it holds {METRICS}, but no {RECIPE}")
    for folder in holders.values():
        try:
            plan = load_plan(folder)
        except CheckpointError as error:
            warnings.append(f"{error}; the runs beside it are reported without it")
            plan = None
        if plan is not None:
            plans[folder.resolve()] = plan
        if (folder / COST).exists() or (folder / GRADIENTS).is_dir():
            measured.append(folder)
    for folder in run_folders.values():
        try:
            runs.append(read_run(folder))
        except (CheckpointError, RecipeError, OSError) as error:
            warnings.append(f"{folder} is left out: {error}")
    if not runs and not plans and not measured:
        where = ", ".join(map(str, paths))
        left_out = "".join(f"; {warning}" for warning in warnings)
        raise CheckpointError(f"{where}: expected a run folder there, found none; {WHAT_IS_A_RUN}{left_out}")
    return Found(tuple(runs), plans, tuple(measured), tuple(warnings))


def default_out(paths: Sequence[Path]) -> Path:
    """Where a report goes that was given no place: ``report`` beside the runs.

    Args:
        paths: As for ``find_runs``.
    """
    first = next((path for path in paths if path.is_dir()), paths[0])
    beside = first.parent if first.name not in ("", "..") else first.resolve().parent
    return (beside if (first / RECIPE).exists() else first) / "report"


def _walk(path: Path, warnings: list[str]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        warnings.append(f"{error.filename} is left out: {error.strerror}")

    for folder, inside, _ in os.walk(path, onerror=unreadable):
        # A run folder holds no other; what begins with a dot is nobody's result.
        run = (Path(folder) / RECIPE).exists()
        inside[:] = [] if run else sorted(name for name in inside if not name.startswith("."))
        yield Path(folder)
