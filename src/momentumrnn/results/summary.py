"""From run folders to one row a model."""

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from momentumrnn.errors import CheckpointError, RecipeError
from momentumrnn.tasks import Metric
from momentumrnn.tasks.contract import ACCURACY
from momentumrnn.training.history import Epoch, best_test_epoch, best_validation_epoch, first_epoch_at
from momentumrnn.training.model import build_model
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.run_folder import RunFolder

TARGET_ACCURACY = 0.9


@dataclass(frozen=True)
class RunRecord:
    """A run as it is reported.

    Attributes:
        folder: The run folder.
        recipe: Its recipe.
        history: What was measured.
        parameters: How many numbers the model learns.
    """

    folder: Path
    recipe: Recipe
    history: tuple[Epoch, ...]
    parameters: int

    @property
    def finished(self) -> bool:
        """Whether every epoch of the recipe was measured."""
        return len(self.history) >= self.recipe.training.epochs


def read_run(folder: Path) -> RunRecord:
    """Read a run folder.

    Args:
        folder: The run folder.

    Raises:
        CheckpointError: It is none, or is damaged.
    """
    run = RunFolder(folder)
    recipe = run.recipe()
    if recipe is None:
        raise CheckpointError(f"{folder} is no run folder: it holds no recipe.toml")
    model = build_model(recipe, device="meta")
    parameters = sum(value.numel() for value in model.parameters() if value.requires_grad)
    return RunRecord(folder, recipe, run.history(), parameters)


def read_runs(folders: Iterable[Path]) -> list[RunRecord]:
    """Read run folders.

    Args:
        folders: The run folders.
    """
    return [read_run(folder) for folder in folders]


def group_runs(runs: Sequence[RunRecord]) -> dict[str, list[RunRecord]]:
    """Runs that differ in nothing but the seed, under the name of their model.

    Args:
        runs: Any runs; the order of their first ones is kept.

    Returns:
        Label → runs. Where one model appears in several settings, its size is added, then a number.
    """
    groups: dict[Recipe, list[RunRecord]] = {}
    for run in runs:
        training = dataclasses.replace(run.recipe.training, seed=0)
        groups.setdefault(dataclasses.replace(run.recipe, training=training), []).append(run)
    labelled: dict[str, list[RunRecord]] = {}
    names = [recipe.model.name for recipe in groups]
    for recipe, members in groups.items():
        label = recipe.model.name
        if names.count(label) > 1:
            label = f"{label} {recipe.model.hidden_size}"
        number, unique = 2, label
        while unique in labelled:
            number, unique = number + 1, f"{label} ({number})"
        labelled[unique] = members
    return labelled


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


def summarise(runs: Sequence[RunRecord]) -> pd.DataFrame:
    """One row a model, over its seeds.

    Accuracies are in percent; every ``std`` is the sample standard deviation over seeds (n − 1 in the
    denominator), empty for a single seed.

    Args:
        runs: Any runs that are judged by one metric, ``accuracy`` in the names of columns below; unfinished
            ones count with what they have measured, and are counted.

    Returns:
        Columns ``model, parameters, seeds, unfinished, test_accuracy, test_accuracy_std`` (at the best
        validation epoch), ``best_test_accuracy, best_test_accuracy_std`` (the best over epochs, as the paper
        reports), ``validation_accuracy`` (the best), ``epochs_to_90`` (mean over the seeds that reached 90 %
        validation accuracy), ``reached_90`` (how many did; both of accuracies alone), ``seconds_per_epoch``
        (the median, so that a disturbed epoch does not count).

    Raises:
        RecipeError: The runs are judged by different metrics.
    """
    metric = metric_of(runs)
    return pd.DataFrame([_row(label, members, metric) for label, members in group_runs(runs).items()])


def _row(label: str, runs: Sequence[RunRecord], metric: Metric) -> dict[str, object]:
    honest = [best_validation_epoch(run.history) for run in runs]
    best = [best_test_epoch(run.history) for run in runs]
    test = [metric.scale * epoch.test_metric for epoch in honest if epoch is not None]
    best_test = [metric.scale * epoch.test_metric for epoch in best if epoch is not None]
    validation = [
        metric.scale * epoch.validation_metric
        for epoch in honest
        if epoch is not None and epoch.validation_metric is not None
    ]
    return {
        "model": label,
        "parameters": runs[0].parameters,
        "seeds": len(runs),
        "unfinished": sum(not run.finished for run in runs),
        f"test_{metric.name}": _mean(test),
        f"test_{metric.name}_std": _std(test),
        f"best_test_{metric.name}": _mean(best_test),
        f"best_test_{metric.name}_std": _std(best_test),
        f"validation_{metric.name}": _mean(validation),
        **(_to_target(runs) if metric == ACCURACY else {}),
        "seconds_per_epoch": _median([epoch.seconds for run in runs for epoch in run.history]),
    }


def _to_target(runs: Sequence[RunRecord]) -> dict[str, object]:
    to_target = [first_epoch_at(run.history, TARGET_ACCURACY) for run in runs]
    reached = [float(epoch) for epoch in to_target if epoch is not None]
    return {"epochs_to_90": _mean(reached), "reached_90": len(reached)}


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else float("nan")


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float("nan")
