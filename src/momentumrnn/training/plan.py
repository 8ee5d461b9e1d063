"""Which runs make up some tables and figures, and where they lie."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from momentumrnn.errors import CheckpointError, RecipeError
from momentumrnn.training.experiments import Row, load_experiment
from momentumrnn.training.files import write_atomically
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.smoke import shrink
from momentumrnn.training.toml_io import parse_toml, read_text, write_toml
from momentumrnn.training.typed import build

PLAN = "plan.toml"


def refuse_seed(overrides: Iterable[str]) -> None:
    """Refuse a seed where the seeds are counted from 0.

    Args:
        overrides: Such as ``"model.hidden_size=128"``.

    Raises:
        RecipeError: One of them is of the seed.
    """
    if any(override.partition("=")[0].strip() == "training.seed" for override in overrides):
        raise RecipeError("--set training.seed: the seeds are counted from 0; choose how many with --seeds")


@dataclass(frozen=True)
class Plan:
    """Tables and figures, and the seeds that each row is run with. Tables share the runs they have in common.

    Attributes:
        experiments: Names of tables and figures.
        seeds: How many, counted from 0.
        overrides: Changes to every recipe, as for ``Recipe.override``.
        smoke: Whether every recipe is shrunk to seconds: a test of the path, not a result.
        only: Where given, only rows whose name holds one of these.
    """

    experiments: tuple[str, ...]
    seeds: int = 5
    overrides: tuple[str, ...] = ()
    smoke: bool = False
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject what cannot be planned."""
        if self.seeds < 1:
            raise RecipeError(f"--seeds: expected 1 or more, got {self.seeds}")
        refuse_seed(self.overrides)

    def rows(self) -> list[Row]:
        """The rows that are trained, each once, in the order of their tables."""
        panels = (panel for name in self.experiments for panel in load_experiment(name).panels)
        rows = dict.fromkeys(row for panel in panels if panel.trains for row in panel.all_rows())
        return [row for row in rows if self.includes(row)]

    def includes(self, row: Row) -> bool:
        """Whether a row is asked for.

        Args:
            row: Any row of the experiments.
        """
        return not self.only or any(part in row.name for part in self.only)

    def recipe(self, row: Row, seed: int = 0) -> Recipe:
        """What a row is run as.

        Args:
            row: One of ``rows()``.
            seed: Of the run.
        """
        recipe = _recipe_of(row, self.overrides, self.smoke)
        return replace(recipe, training=replace(recipe.training, seed=seed))

    def runs(self) -> dict[str, Recipe]:
        """Folder → recipe; the first seed of every row, then the second."""
        rows = self.rows()
        return {run_name(row, seed): self.recipe(row, seed) for seed in range(self.seeds) for row in rows}

    def joined(self, present: "Plan") -> "Plan":
        """What is asked for now together with what was asked for before, in the same folder.

        Args:
            present: The plan that lies there.

        Raises:
            RecipeError: Their runs are of different recipes.
        """
        for option, here, there in (
            ("--set", " ".join(self.overrides), " ".join(present.overrides)),
            ("--smoke", self.smoke, present.smoke),
        ):
            if here != there:
                raise RecipeError(
                    f"{option}: {here or 'not given'} now, {there or 'not given'} when the folder was begun; "
                    "all runs of a folder are made alike, so choose another with --out"
                )
        # Without a choice every row is meant.
        everything = not (self.only and present.only)
        return replace(
            self,
            experiments=tuple(dict.fromkeys((*present.experiments, *self.experiments))),
            seeds=max(self.seeds, present.seeds),
            only=() if everything else tuple(dict.fromkeys((*present.only, *self.only))),
        )

    def save(self, folder: Path) -> None:
        """Write the plan beside its runs.

        Args:
            folder: Where the run folders are.
        """
        values = {
            "experiments": self.experiments,
            "seeds": self.seeds,
            "overrides": self.overrides,
            "smoke": self.smoke,
            "only": self.only,
        }
        write_atomically(folder / PLAN, write_toml({"plan": values}))


# A plan asks for every row once for each seed.
@functools.lru_cache(maxsize=1024)
def _recipe_of(row: Row, overrides: tuple[str, ...], smoke: bool) -> Recipe:
    recipe = row.load()
    return (shrink(recipe) if smoke else recipe).override([*overrides, "training.seed=0"])


def run_name(row: Row, seed: int) -> str:
    """The name of a run's folder.

    Args:
        row: Its row.
        seed: Its seed.

    >>> run_name(Row("mnist-lstm-128"), 3)
    'mnist-lstm-128-seed-3'
    """
    return f"{row.name}-seed-{seed}"


def load_plan(folder: Path) -> Plan | None:
    """The plan that lies beside runs, ``None`` where none does.

    Args:
        folder: Where the run folders are.

    Raises:
        CheckpointError: It cannot be read.
    """
    path = folder / PLAN
    if not path.exists():
        return None
    try:
        plan: Plan = build(Plan, parse_toml(read_text(path), str(path)).get("plan"), "plan")
    except RecipeError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return plan
