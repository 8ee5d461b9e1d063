"""Which runs are done, begun or missing, and which cannot be made for want of data."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from momentumrnn.cli.reproducing.gradients import gradient_rows
from momentumrnn.errors import DataError, DataMissingError, RecipeError
from momentumrnn.results.gradient_records import gradient_file, is_recorded
from momentumrnn.training.experiments import Row
from momentumrnn.training.history import Epoch
from momentumrnn.training.plan import Plan, run_name
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.run_folder import RunFolder, check_name
from momentumrnn.training.sections import DataSection

Standing = Literal["done", "begun", "missing"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of the plan, or a row of Fig. 2, and where it stands.

    Attributes:
        name: That of its folder.
        row: Its row.
        recipe: What is run.
        place: The run folder, or the file of gradients.
        standing: How far it is.
        history: What it measured so far.
        gradients: Whether it is a row of Fig. 2.
    """

    name: str
    row: Row
    recipe: Recipe
    place: Path
    standing: Standing
    history: tuple[Epoch, ...] = ()
    gradients: bool = False


def survey(plan: Plan, out: Path) -> list[Run]:
    """All runs of a plan in the order in which they are made: the first seed of every row, then the second.

    Args:
        plan: Which.
        out: Where they are.

    Raises:
        RecipeError: A row that cannot be changed in this way.
        CheckpointError: A folder holds another run, is damaged, or has a name that is no text.
    """
    check_name(out)
    rows = plan.rows()
    found = [_gradients(plan, row, out) for rows in gradient_rows(plan).values() for row in rows]
    return found + [_run(plan, row, seed, out) for seed in range(plan.seeds) for row in rows]


def recipe_of(plan: Plan, row: Row, seed: int = 0) -> Recipe:
    """What a row is run as; an error names the row.

    Args:
        plan: Of the row.
        row: Which.
        seed: Of the run.

    Raises:
        RecipeError: The row cannot be changed in this way.
    """
    try:
        return plan.recipe(row, seed)
    except RecipeError as error:
        raise RecipeError(f"{row.name}: {error}; --only chooses among the rows") from error


def _run(plan: Plan, row: Row, seed: int, out: Path) -> Run:
    recipe, name = recipe_of(plan, row, seed), run_name(row, seed)
    folder = RunFolder(out / name)
    folder.check_recipe(recipe)
    result = folder.result(recipe)
    begun = folder.recipe() is not None
    standing: Standing = "done" if result.finished else "begun" if begun else "missing"
    return Run(name=name, row=row, recipe=recipe, place=out / name, standing=standing, history=result.history)


def _gradients(plan: Plan, row: Row, out: Path) -> Run:
    recipe, place = recipe_of(plan, row), gradient_file(out, row.name)
    done = is_recorded(place, plan.smoke)
    standing: Standing = "done" if done else "begun" if place.exists() else "missing"
    name = f"gradients of {row.name}"
    return Run(name=name, row=row, recipe=recipe, place=place, standing=standing, gradients=True)


def missing_data(runs: Sequence[Run], data: Path) -> dict[DataSection, str]:
    """What cannot be read of what the runs need, and how to get it.

    Args:
        runs: Those that are not done.
        data: The data folder.
    """
    problems = {}
    for section, recipe in {run.recipe.data: run.recipe for run in runs}.items():
        if section.length is not None:
            # Drawn, not read.
            continue
        try:
            recipe.task().load(data, replace(recipe.sampling(), seed=0), "cpu")
        except (DataMissingError, DataError) as error:
            problems[section] = str(error)
    return problems


def seconds_per_epoch(runs: Sequence[Run]) -> dict[str, float]:
    """What an epoch took, by the name of the row, where one was measured.

    Args:
        runs: All.
    """
    taken: dict[str, list[float]] = {}
    for run in runs:
        taken.setdefault(run.row.name, []).extend(epoch.seconds for epoch in run.history)
    return {name: statistics.median(seconds) for name, seconds in taken.items() if seconds}
