"""Runs side by side: one row a model."""

import statistics
from collections.abc import Sequence
from typing import Any

import pandas as pd

from momentumrnn.results.numbers import Spread, show_number, show_range, show_spread
from momentumrnn.results.quantities import digits_of, heading_of
from momentumrnn.results.runs import RunRecord, group_runs, metric_of
from momentumrnn.results.table import Table
from momentumrnn.tasks import METRICS, Metric
from momentumrnn.tasks.contract import ACCURACY
from momentumrnn.training.history import best_test_epoch, best_validation_epoch, first_epoch_at

TARGET_ACCURACY = 0.9


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


def summary_table(summary: pd.DataFrame, title: str = "") -> Table:
    """A summary as text.

    Args:
        summary: From ``summarise``.
        title: Above the table.
    """
    metric = next(metric for name, metric in METRICS.items() if f"test_{name}" in summary.columns)
    head = heading_of(metric)
    # Two lines each, so that the table fits a terminal of 80 columns.
    to_target = ["epochs\nto 90 %"] if metric == ACCURACY else []
    return Table(
        title,
        ("model", "parameters", f"test\n{head}", f"best test\n{head}", *to_target, "seconds\nan epoch"),
        tuple(_cells(row, metric) for row in summary.to_dict("records")),
        tuple(_notes(summary, metric)),
    )


def _row(label: str, runs: Sequence[RunRecord], metric: Metric) -> dict[str, object]:
    honest = [best_validation_epoch(run.history) for run in runs]
    best = [best_test_epoch(run.history) for run in runs]
    test = _spread(metric, [epoch.test_metric for epoch in honest if epoch is not None])
    best_test = _spread(metric, [epoch.test_metric for epoch in best if epoch is not None])
    validation = _spread(metric, [epoch.validation_metric for epoch in honest if epoch is not None])
    return {
        "model": label,
        "parameters": runs[0].parameters,
        "seeds": len(runs),
        "unfinished": sum(not run.finished for run in runs),
        f"test_{metric.name}": test.mean,
        f"test_{metric.name}_std": test.std,
        f"best_test_{metric.name}": best_test.mean,
        f"best_test_{metric.name}_std": best_test.std,
        f"validation_{metric.name}": validation.mean,
        **(_to_target(runs) if metric == ACCURACY else {}),
        "seconds_per_epoch": _median([epoch.seconds for run in runs for epoch in run.history]),
    }


def _to_target(runs: Sequence[RunRecord]) -> dict[str, object]:
    to_target = [first_epoch_at(run.history, TARGET_ACCURACY) for run in runs]
    reached = [float(epoch) for epoch in to_target if epoch is not None]
    return {"epochs_to_90": Spread(tuple(reached)).mean, "reached_90": len(reached)}


def _spread(metric: Metric, values: Sequence[float | None]) -> Spread:
    return Spread(tuple(metric.scale * value for value in values if value is not None))


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def _notes(summary: pd.DataFrame, metric: Metric) -> list[str]:
    # Of the other tasks the paper reports the test at the best validation epoch, or the loss of training.
    as_paper = ", as the paper reports" if metric == ACCURACY else ""
    to_target = " Epochs to 90 %: of validation accuracy, over the seeds that reached it." if as_paper else ""
    notes = [
        f"Mean ± sample standard deviation over {show_range(list(summary['seeds']))} seed(s). Test "
        f"{metric.name}: at the best validation epoch; best test {metric.name}: the best over epochs, chosen "
        f"by the test set itself{as_paper}.{to_target} Seconds: the median epoch, training and evaluation."
    ]
    unfinished = int(summary["unfinished"].sum())
    if unfinished:
        notes.append(f"{unfinished} run(s) are not finished and count with what they have measured.")
    return notes


def _cells(row: dict[str, Any], metric: Metric) -> tuple[str, ...]:
    digits = digits_of(metric)
    to_target = [_epochs(row["epochs_to_90"], row["reached_90"], row["seeds"])] if metric == ACCURACY else []
    return (
        str(row["model"]),
        f"{int(row['parameters']):,}",
        *(show_spread(row[name], row[f"{name}_std"], digits) for name in _test_columns(metric)),
        *to_target,
        show_number(row["seconds_per_epoch"], 2),
    )


def _test_columns(metric: Metric) -> tuple[str, str]:
    return f"test_{metric.name}", f"best_test_{metric.name}"


def _epochs(mean: float, reached: int, seeds: int) -> str:
    if reached == 0:
        return "not reached"
    return f"{mean:.1f}" if reached == seeds else f"{mean:.1f} ({reached}/{seeds})"
