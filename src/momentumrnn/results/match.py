"""Which run is which row of which table."""

import dataclasses
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache

from momentumrnn.errors import RecipeError
from momentumrnn.results.find import Found
from momentumrnn.results.runs import RunRecord, setting_of
from momentumrnn.training.experiments import Row, experiment_names, load_experiment
from momentumrnn.training.plan import Plan, run_name
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.sections import PublishedSection


@dataclass(frozen=True)
class Setting:
    """What all runs of some tables have in common: they stand in tables of their own.

    Attributes:
        overrides: Changes to every recipe.
        smoke: Whether every recipe was shrunk to seconds.
    """

    overrides: tuple[str, ...] = ()
    smoke: bool = False

    def recipe(self, row: Row) -> Recipe:
        """What a row is run as; the row as it is where it does not take the changes.

        Args:
            row: Any.
        """
        try:
            return Plan(("small",), overrides=self.overrides, smoke=self.smoke).recipe(row)
        except RecipeError:
            return dataclasses.replace(row.load(), published=PublishedSection())


@dataclass
class Placed:
    """The runs of one setting, at their rows.

    Attributes:
        setting: What they have in common.
        plans: Which plans have this setting.
        runs: Row → its runs, by their seeds.
    """

    setting: Setting
    plans: list[Plan] = field(default_factory=list)
    runs: dict[Row, dict[int, RunRecord]] = field(default_factory=dict)

    def runs_of(self, row: Row, recipe: Recipe) -> list[RunRecord]:
        """The runs of a row, by their seeds; those of a row that is equal but for its name where it has none.

        Args:
            row: Any.
            recipe: What it is run as.
        """
        runs = self.runs.get(row)
        # Shrunk, rows that differ in their size are equal.
        if runs is None and not self.setting.smoke:
            wanted = setting_of(recipe)
            equal = (there for there in self.runs.values() if setting_of(_any(there).recipe) == wanted)
            runs = next(equal, None)
        return [] if runs is None else [runs[seed] for seed in sorted(runs)]

    def seeds(self, row: Row, experiment: str) -> int | None:
        """How many a row is planned with, ``None`` where it is not.

        Args:
            row: Any.
            experiment: The table or figure that it stands in.
        """
        plans = [plan for plan in self.plans if experiment in plan.experiments and plan.includes(row)]
        return max((plan.seeds for plan in plans), default=None)

    @property
    def planned(self) -> list[str]:
        """The tables and figures that are planned, each once."""
        return list(dict.fromkeys(name for plan in self.plans for name in plan.experiments))


@dataclass(frozen=True)
class Matched:
    """Every run in its place.

    Attributes:
        placed: A setting each; the paper's own, with nothing changed, first.
        others: Runs that are no row.
        warnings: What was found on the way.
    """

    placed: list[Placed]
    others: list[RunRecord]
    warnings: list[str]


def match_runs(found: Found) -> Matched:
    """Find the row of every run: by the name of its folder where a plan lies beside it, else by its recipe.

    Args:
        found: What lies in the folders.
    """
    warnings: list[str] = []
    placed = {Setting(): Placed(Setting())}
    for folder, plan in found.plans.items():
        setting = Setting(plan.overrides, plan.smoke)
        try:
            for name in plan.experiments:
                load_experiment(name)
        except RecipeError as error:
            warnings.append(f"the plan in {folder} is left out: {error}")
            continue
        placed.setdefault(setting, Placed(setting)).plans.append(plan)
    others: dict[Hashable, dict[int, RunRecord]] = {}
    for run in found.runs:
        beside = found.plans.get(run.folder.resolve().parent)
        row, setting = None, Setting()
        if beside is not None:
            setting = Setting(beside.overrides, beside.smoke)
            row = _row_by_name(run, setting, warnings)
        if row is None:
            row, setting = _row_by_recipe(run), Setting()
        if row is None:
            _place(others.setdefault(setting_of(run.recipe), {}), run, warnings)
        else:
            at = placed.setdefault(setting, Placed(setting))
            _place(at.runs.setdefault(row, {}), run, warnings)
    return Matched(
        sorted(placed.values(), key=lambda at: (at.setting.smoke, len(at.setting.overrides))),
        [run for runs in others.values() for run in runs.values()],
        warnings,
    )


def experiments_to_show(matched: Matched, asked: Sequence[str]) -> list[tuple[Placed, str]]:
    """The tables and figures of a report, each with the setting of its runs.

    Args:
        matched: Every run in its place.
        asked: Names, where only some are wanted. Those that were neither planned nor run are among them.

    Returns:
        Those that are planned, and those that runs without a plan belong to.
    """
    shown = []
    for at in matched.placed:
        names = list(asked) or at.planned
        covered = {row for name in at.planned for row in _rows(name)}
        for name in experiment_names():
            runs_here = set(_rows(name)) & set(at.runs)
            if name in names:
                if not asked or runs_here or name in at.planned:
                    shown.append((at, name))
            elif not asked and runs_here - covered:
                shown.append((at, name))
    have = {name for _, name in shown}
    shown.extend((matched.placed[0], name) for name in asked if name not in have)
    return shown


def _row_by_name(run: RunRecord, setting: Setting, warnings: list[str]) -> Row | None:
    parts = re.fullmatch(r"(.+)-seed-(\d+)", run.folder.resolve().name)
    row = _rows_by_name().get(parts[1]) if parts else None
    if row is None or run_name(row, run.seed) != run.folder.resolve().name:
        return None
    if setting_of(run.recipe) == setting_of(setting.recipe(row)):
        return row
    warnings.append(f"{run.folder} has the name of a planned run, but another recipe; it is shown apart")
    return None


def _row_by_recipe(run: RunRecord) -> Row | None:
    return _rows_by_recipe().get(setting_of(run.recipe))


def _place(runs: dict[int, RunRecord], run: RunRecord, warnings: list[str]) -> None:
    there = runs.get(run.seed)
    if there is None:
        runs[run.seed] = run
        return
    kept, dropped = (run, there) if len(run.history) > len(there.history) else (there, run)
    runs[run.seed] = kept
    warnings.append(
        f"{dropped.folder} is left out: {kept.folder} is the same run, seed {run.seed}, with "
        f"{len(kept.history)} epochs beside {len(dropped.history)}"
    )


def _any(runs: dict[int, RunRecord]) -> RunRecord:
    return next(iter(runs.values()))


@cache
def _rows(experiment: str) -> tuple[Row, ...]:
    panels = load_experiment(experiment).panels
    return tuple(row for panel in panels if panel.trains for row in panel.all_rows())


@cache
def _rows_by_name() -> dict[str, Row]:
    return {row.name: row for name in experiment_names() for row in _rows(name)}


@cache
def _rows_by_recipe() -> dict[Hashable, Row]:
    # The first of equal ones counts: a cell of Fig. 6 may be a row of Table 1.
    rows = reversed(_rows_by_name().values())
    return {setting_of(row.load()): row for row in rows}
