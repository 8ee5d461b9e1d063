"""Run folders as they are reported, and what their models are called."""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from momentumrnn.errors import CheckpointError, RecipeError
from momentumrnn.tasks import Metric
from momentumrnn.training.history import Epoch
from momentumrnn.training.model import build_model
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.run_folder import RunFolder
from momentumrnn.training.sections import DataSection, TrainingSection


@dataclass(frozen=True)
class RunRecord:
    """A run as it is reported.

    Attributes:
        folder: The run folder.
        recipe: Its recipe.
        history: What was measured.
        parameters: How many numbers the model learns.
        starts: Versions, platform and command of every time the run was started.
        diverged: Where it diverged; ``None`` where it did not.
    """

    folder: Path
    recipe: Recipe
    history: tuple[Epoch, ...]
    parameters: int
    starts: tuple[Mapping[str, Any], ...] = ()
    diverged: str | None = None

    @property
    def finished(self) -> bool:
        """Whether every epoch of the recipe was measured."""
        return len(self.history) >= self.recipe.training.epochs

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.recipe.training.seed


def read_run(folder: Path) -> RunRecord:
    """Read a run folder.

    Args:
        folder: The run folder.

    Raises:
        CheckpointError: It is none, or is damaged.
        RecipeError: Its recipe cannot be read.
    """
    run = RunFolder(folder)
    recipe = run.recipe()
    if recipe is None:
        raise CheckpointError(f"{folder} is no run folder: it holds no recipe.toml")
    history = run.history()
    return RunRecord(folder, recipe, history, _count_parameters(recipe), tuple(run.starts()), run.diverged())


def read_runs(folders: Iterable[Path]) -> list[RunRecord]:
    """Read run folders.

    Args:
        folders: The run folders.
    """
    return [read_run(folder) for folder in folders]


def setting_of(recipe: Recipe) -> Hashable:
    """All of a recipe that its numbers follow from, but for the seed: equal where runs are of one model.

    What the paper says of it is none, and how often a checkpoint is written.

    Args:
        recipe: Any.
    """
    seconds = TrainingSection.checkpoint_seconds
    training = dataclasses.replace(recipe.training, seed=0, checkpoint_seconds=seconds)
    own = (entry.name for entry in dataclasses.fields(recipe) if entry.name not in ("training", "published"))
    return (*(getattr(recipe, name) for name in own), training)


def counted(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that a mean is taken over: the finished ones, and where there are none, what there is.

    Args:
        runs: Of one model in one setting.
    """
    return [run for run in runs if run.finished] or [run for run in runs if run.history]


def group_runs(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs that differ in nothing but the seed, under the name of their model.

    Args:
        runs: Any runs; the order of their first ones is kept.

    Returns:
        Label, of ``label_models``, → runs.
    """
    groups: dict[Hashable, list[RunRecord]] = {}
    for run in runs:
        groups.setdefault(setting_of(run.recipe), []).append(run)
    labels = label_models([members[0].recipe for members in groups.values()])
    return dict(zip(labels, groups.values(), strict=True))


def label_models(recipes: Sequence[Recipe]) -> list[str]:
    """A name for each of several models.

    Args:
        recipes: What stands side by side; no two are equal.

    Returns:
        The model's name; its size, where a name appears in several; and whatever else differs between those
        that are still called alike.
    """
    sizes: dict[str, set[int]] = {}
    for recipe in recipes:
        sizes.setdefault(recipe.model.name, set()).add(recipe.model.hidden_size)
    several = any(len(found) > 1 for found in sizes.values())
    names = [
        f"{each.model.name} {each.model.hidden_size}" if several else each.model.name for each in recipes
    ]
    labels: list[str] = []
    for name, recipe in zip(names, recipes, strict=True):
        alike = [other for other, called in zip(recipes, names, strict=True) if called == name]
        labels.append(" ".join([name, *_differences(recipe, alike)]))
    return labels


def show_data(data: DataSection) -> str:
    """What is learned from, as a title says it.

    Args:
        data: Of a recipe.

    >>> show_data(DataSection("adding", length=750))
    'adding, T = 750'
    """
    parts = [
        data.name,
        data.folder,
        data.length and f"T = {data.length:,}",
        data.vocabulary and f"{data.vocabulary:,} words",
        data.subset and f"{data.subset:,} sequences of each part",
    ]
    return ", ".join(part for part in parts if part)


def metric_of(runs: Sequence[RunRecord]) -> Metric:
    """What runs are judged by.

    Args:
        runs: One or more.

    Raises:
        RecipeError: They are judged by different things.
    """
    found = {run.recipe.task().metric for run in runs}
    if len(found) != 1:
        names = ", ".join(sorted(metric.name for metric in found)) or "no run"
        raise RecipeError(f"expected runs that are judged by one metric, got {names}; report them apart")
    return found.pop()


def _count_parameters(recipe: Recipe) -> int:
    model = build_model(recipe, device="meta")
    return sum(value.numel() for value in model.parameters() if value.requires_grad)


def _differences(recipe: Recipe, alike: Sequence[Recipe]) -> list[str]:
    every = [other.sections() for other in alike]
    keys = dict.fromkeys(
        (section, key) for sections in every for section in sections for key in sections[section]
    )
    own = recipe.sections()
    return [
        f"{key}={own.get(section, {}).get(key, 'none')}"
        for section, key in keys
        if section != "published"
        and (section, key) not in (("training", "seed"), ("training", "checkpoint_seconds"))
        and len({repr(sections.get(section, {}).get(key)) for sections in every}) > 1
    ]
