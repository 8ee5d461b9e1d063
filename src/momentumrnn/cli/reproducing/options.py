"""What is asked for, checked before anything is done."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from momentumrnn.cli.reproducing.errors import ReproduceError
from momentumrnn.data import data_folder
from momentumrnn.training.experiments import expand_names, experiment_names, load_experiment
from momentumrnn.training.launch import check_threads
from momentumrnn.training.plan import Plan

Executor = Literal["local", "ray"]
SEEDS = 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked for.

    Attributes:
        plan: Which tables and figures.
        out: Where runs go.
        minutes: How long this call may take; no bound where absent.
        jobs: How many runs at once; chosen where absent.
        executor: Where runs are carried out.
        data: The data folder.
        own_data: Whether it was named; else other machines look where they are told to.
        device: ``cpu``, ``cuda`` or ``auto``.
        threads: CPU threads of each run.
        plan_only: Whether to stop where the plan is shown.
    """

    plan: Plan
    out: Path
    minutes: float | None
    jobs: int | None
    executor: Executor
    data: Path
    own_data: bool
    device: str
    threads: int
    plan_only: bool


def check_options(
    *,
    names: tuple[str, ...],
    only: tuple[str, ...],
    seeds: int | None,
    minutes: float | None,
    overrides: tuple[str, ...],
    smoke: bool,
    plan_only: bool,
    jobs: int | None,
    executor: Executor,
    out: Path,
    data: Path | None,
    device: str,
    threads: int,
) -> Options:
    """Reject what makes no sense.

    Args:
        names: Tables and figures, or ``all``.
        only: Parts of rows' names.
        seeds: How many; five where absent, one of shrunk recipes.
        minutes: How long.
        overrides: Changes to every recipe.
        smoke: Whether recipes are shrunk.
        plan_only: Whether to stop where the plan is shown.
        jobs: How many runs at once.
        executor: Where runs are carried out.
        out: Where runs go.
        data: The data folder.
        device: Where to run.
        threads: CPU threads of each run.

    Raises:
        ReproduceError: Nothing is named, or a number is none that can be.
        BackendError: There are too many threads.
        RecipeError: There is no such table or figure.
    """
    if not names:
        raise ReproduceError(f"name tables or figures: {', '.join(experiment_names())}, all")
    for option, value in {"jobs": jobs, "threads": threads}.items():
        if value is not None and value < 1:
            raise ReproduceError(f"--{option}: expected 1 or more, got {value}")
    check_threads(threads)
    if minutes is not None and not 0 < minutes < math.inf:
        raise ReproduceError(f"--minutes: expected more than 0, got {minutes}")
    if seeds is None:
        seeds = 1 if smoke else SEEDS
    plan = Plan(expand_names(names), seeds, overrides, smoke, only)
    panels = (panel for name in plan.experiments for panel in load_experiment(name).panels)
    if not any(plan.includes(row) for panel in panels for row in panel.all_rows()):
        raise ReproduceError(
            f"--only {' '.join(only)}: no row of {', '.join(plan.experiments)} is named so; leave it out and "
            "--plan shows all rows"
        )
    return Options(
        plan=plan,
        out=out,
        minutes=minutes,
        jobs=jobs,
        executor=executor,
        data=data_folder(data).absolute(),
        own_data=data is not None,
        device=device,
        threads=threads,
        plan_only=plan_only,
    )
