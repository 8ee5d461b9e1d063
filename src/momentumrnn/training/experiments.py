"""What the paper shows, table by table and figure by figure, as rows that are recipes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

from momentumrnn.errors import RecipeError
from momentumrnn.nearest import did_you_mean
from momentumrnn.training.library import SUFFIX, load_recipe
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.toml_io import parse_toml
from momentumrnn.training.typed import build

Kind = Literal["table", "curves", "grid", "time", "cost", "gradients"]
# In the paper's order; ``small`` is not of the paper.
PAPER = (
    *(f"table{number}" for number in range(1, 6)),
    *(f"fig{number}" for number in range(2, 7)),
    "cost",
    "response",
)


@dataclass(frozen=True)
class Row:
    """A model with its settings, to be run with several seeds.

    Attributes:
        recipe: The name of an installed recipe.
        overrides: What differs from it, as for ``Recipe.override``.
    """

    recipe: str
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The recipe and what differs, fit for the name of a folder.

        >>> Row("mnist-lstm-128", ("rule.momentum=0.3", "rule.step_size=1.0")).name
        'mnist-lstm-128-momentum-0.3-step_size-1.0'
        """
        changes = (override.partition(".")[2].replace("=", "-") for override in self.overrides)
        return "-".join([self.recipe, *changes])

    def load(self) -> Recipe:
        """The recipe with what differs, for seed 0."""
        return load_recipe(self.recipe).override(self.overrides)


@dataclass(frozen=True)
class Panel:
    """One part of a table or figure.

    Attributes:
        title: Its heading.
        shows: What is made of the runs: ``table``; ``curves``, convergence; ``grid``, the best metric over
            two settings; ``time``, wall time to a metric. Or what is measured instead of runs: ``cost``,
            seconds and memory of a step; ``gradients``, how far they reach back.
        rows: Recipes, each with overrides behind it where it has some. A grid has none: they follow from
            ``base`` and ``axes``.
        base: A grid's recipe.
        grid: A grid's settings: key → values, in two entries.
        target: The metric that ``time`` is taken to, as it is shown.
        published: Minutes to the target, for each row.
    """

    title: str
    shows: tuple[Kind, ...]
    rows: tuple[str, ...] = ()
    base: str | None = None
    grid: dict[str, tuple[float, ...]] | None = None
    target: float | None = None
    published: tuple[float, ...] = ()

    @property
    def trains(self) -> bool:
        """Whether runs are shown, not measurements of their own."""
        return not {"cost", "gradients"} & set(self.shows)

    def all_rows(self) -> list[Row]:
        """The rows; those of a grid with the last setting varying first."""
        if self.base is None:
            return [Row(*_split(row)) for row in self.rows]
        axes = [[f"{key}={value}" for value in values] for key, values in (self.grid or {}).items()]
        return [Row(self.base, overrides) for overrides in itertools.product(*axes)]


@dataclass(frozen=True)
class Experiment:
    """A table or a figure.

    Attributes:
        name: Such as ``table1``.
        title: Its heading.
        panels: Its parts.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]


def experiment_names() -> list[str]:
    """The paper's tables and figures in its order, then those of our own."""
    files = (resources.files("momentumrnn.recipes") / "experiments").iterdir()
    installed = {file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX)}
    return [name for name in PAPER if name in installed] + sorted(installed - set(PAPER))


def load_experiment(name: str) -> Experiment:
    """A table or a figure by its name.

    Args:
        name: One of ``experiment_names()``.

    Raises:
        RecipeError: There is none; the message names the nearest.

    >>> load_experiment("fig3").panels[0].all_rows()[1].load().model.name
    'MomentumLSTM'
    """
    names = experiment_names()
    if name not in names:
        hint = did_you_mean(name, names, f"known are {', '.join(names)}, all")
        raise RecipeError(f"there is no table or figure {name!r}{hint}")
    file = resources.files("momentumrnn.recipes") / "experiments" / f"{name}{SUFFIX}"
    sections = parse_toml(file.read_text(encoding="utf-8"), f"experiment {name}")
    panels = tuple(build(Panel, panel) for panel in sections["panels"])
    return Experiment(name, sections["title"], panels)


def _split(row: str) -> tuple[str, tuple[str, ...]]:
    recipe, *overrides = row.split()
    return recipe, tuple(overrides)


def expand_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of experiments with ``all`` replaced by those of the paper, each once.

    Args:
        names: Of ``experiment_names()``, or ``all``.

    Raises:
        RecipeError: There is no such table or figure.
    """
    papers = [name for name in experiment_names() if name in PAPER]
    expanded = [each for name in names for each in (papers if name == "all" else [name])]
    for name in expanded:
        load_experiment(name)
    return tuple(dict.fromkeys(expanded))
