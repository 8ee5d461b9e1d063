"""What a table says of a run, and which of the paper's numbers it stands beside."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from momentumrnn.results.numbers import NOTHING, Spread, decimals
from momentumrnn.results.runs import RunRecord, counted
from momentumrnn.tasks import Metric
from momentumrnn.tasks.contract import ACCURACY, LOSS, AnyPart
from momentumrnn.training.history import Epoch, best_test_epoch, best_validation_epoch
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.sections import PublishedSection

PUBLISHED_KEYS = frozenset(field.name for field in dataclasses.fields(PublishedSection))


@dataclass(frozen=True)
class Quantity:
    """A number of a run.

    Attributes:
        key: Its name in CSV and JSON.
        heading: Its name in a table, on two lines.
        meaning: What it is, for a note.
        metric: What it is an amount of.
        of: From a history that is not empty to the number as it is shown, ``None`` where there is none.
        published: The key of ``PublishedSection`` that it stands beside.
        part: The sequences that it is measured on.
    """

    key: str
    heading: str
    meaning: str
    metric: Metric
    of: Callable[[Sequence[Epoch]], float | None]
    published: str | None = None
    part: AnyPart = "test"

    @property
    def digits(self) -> int:
        """Behind the point."""
        return digits_of(self.metric)

    def over(self, runs: Sequence[RunRecord]) -> Spread:
        """The number over the seeds that count.

        Args:
            runs: Of one model in one setting.
        """
        found = [self.of(run.history) for run in counted(runs)]
        return Spread(tuple(value for value in found if value is not None))

    def published_values(self, recipe: Recipe) -> tuple[float, ...]:
        """What the paper reports.

        Args:
            recipe: With its section ``published``.
        """
        return recipe.published.values().get(self.published or "", ())

    def published_std(self, recipe: Recipe) -> float | None:
        """The deviation that the paper reports; where a recipe has two values, it belongs to the last.

        Args:
            recipe: With its section ``published``.
        """
        keys = list(recipe.published.values())
        return recipe.published.std if keys and keys[-1] == self.published else None

    def show_published(self, recipe: Recipe) -> str:
        """What the paper reports, a line a source.

        Args:
            recipe: With its section ``published``.
        """
        values, std = self.published_values(recipe), self.published_std(recipe)
        numbers = [*values, *([] if std is None else [std])]
        least = self.digits if self.metric != LOSS else 0
        digits = max([least, *map(decimals, numbers)])
        deviation = "" if std is None else f" ± {std:.{digits}f}"
        return "\n".join(f"{value:.{digits}f}{deviation}" for value in values) or NOTHING


def digits_of(metric: Metric) -> int:
    """How many digits behind the point a metric is shown with.

    Args:
        metric: Any.
    """
    return 4 if metric == LOSS else 2


def heading_of(metric: Metric) -> str:
    """The metric's name and unit.

    Args:
        metric: Any.

    >>> heading_of(ACCURACY)
    'accuracy, %'
    """
    return f"{metric.name}, {metric.unit}" if metric.unit else metric.name


def quantities_of(metric: Metric) -> list[Quantity]:
    """What is reported of runs, the paper's own protocol first.

    Of accuracies the paper reports the best test over epochs; of tasks that are judged by their loss the loss
    of training; of others the test at the best validation epoch, and where it publishes that, the best
    validation.

    Args:
        metric: What the runs are judged by.
    """
    name, head = metric.name, heading_of(metric)
    test = Quantity(
        f"test_{name}",
        f"test\n{head}",
        f"Test {name}: at the best validation epoch.",
        metric,
        _scaled(metric, _test_at_best_validation),
        None if metric == ACCURACY else f"test_{name}",
    )
    if metric == ACCURACY:
        best = Quantity(
            f"best_test_{name}",
            f"best test\n{head}",
            f"Best test {name}: the best over epochs, chosen by the test set itself, as the paper reports.",
            metric,
            _scaled(metric, _best_test),
            f"test_{name}",
        )
        return [best, test]
    if metric == LOSS:
        final = Quantity(
            "train_loss",
            "final\ntraining loss",
            "Final training loss: the mean over the last epoch.",
            metric,
            lambda history: history[-1].train_loss,
            "train_loss",
            "training",
        )
        return [final, test]
    if f"validation_{name}" not in PUBLISHED_KEYS:
        return [test]
    validation = Quantity(
        f"validation_{name}",
        f"validation\n{head}",
        f"Validation {name}: the best over epochs.",
        metric,
        _scaled(metric, _best_validation),
        f"validation_{name}",
        "validation",
    )
    return [validation, test]


def _scaled(
    metric: Metric, of: Callable[[Sequence[Epoch]], float | None]
) -> Callable[[Sequence[Epoch]], float | None]:
    def shown(history: Sequence[Epoch]) -> float | None:
        # A diverged epoch is none that could be chosen.
        finite = [epoch for epoch in history if is_finite(epoch)]
        value = of(finite)
        return None if value is None else metric.scale * value

    return shown


def is_finite(epoch: Epoch) -> bool:
    """Whether every number that was measured is finite.

    Args:
        epoch: Any.
    """
    return all(math.isfinite(value) for value in epoch.columns().values() if value is not None)


def _best_test(history: Sequence[Epoch]) -> float | None:
    epoch = best_test_epoch(history)
    return None if epoch is None else epoch.test_metric


def _test_at_best_validation(history: Sequence[Epoch]) -> float | None:
    epoch = best_validation_epoch(history)
    return None if epoch is None else epoch.test_metric


def _best_validation(history: Sequence[Epoch]) -> float | None:
    epoch = best_validation_epoch(history)
    return None if epoch is None else epoch.validation_metric
