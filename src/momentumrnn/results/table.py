"""A summary as a table, on the terminal and in Markdown."""

import math

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from momentumrnn.tasks.contract import ACCURACY, METRICS, MSE, PERPLEXITY, Metric


def _metric(summary: pd.DataFrame) -> Metric:
    return next(metric for name, metric in METRICS.items() if f"test_{name}" in summary.columns)


def _headings(metric: Metric) -> list[tuple[str, str]]:
    # Two lines each, so that the table fits a terminal of 80 columns.
    unit = f"{metric.name}, {metric.unit}" if metric.unit else metric.name
    return [
        ("model", ""),
        ("parameters", ""),
        ("test", unit),
        ("best test", unit),
        *([("epochs", "to 90 %")] if metric == ACCURACY else []),
        ("seconds", "an epoch"),
    ]


def _notes(summary: pd.DataFrame) -> list[str]:
    metric = _metric(summary)
    # Of the other tasks the paper reports the test at the best validation epoch, or the loss of training.
    as_paper = ", as the paper reports" if metric == ACCURACY else ""
    to_target = " Epochs to 90 %: of validation accuracy, over the seeds that reached it." if as_paper else ""
    notes = [
        f"Mean ± sample standard deviation over {_range(summary['seeds'])} seed(s). Test {metric.name}: at "
        f"the best validation epoch; best test {metric.name}: the best over epochs, chosen by the test set "
        f"itself{as_paper}.{to_target} Seconds: the median epoch, training and evaluation."
    ]
    unfinished = int(summary["unfinished"].sum())
    if unfinished:
        notes.append(f"{unfinished} run(s) are not finished and count with what they have measured.")
    return notes


def print_table(summary: pd.DataFrame, console: Console, title: str | None = None) -> None:
    """Print a summary.

    Args:
        summary: From ``momentumrnn.results.summarise``.
        console: The terminal.
        title: Above the table.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for index, (first, second) in enumerate(_headings(_metric(summary))):
        table.add_column(f"{first}\n{second}", justify="right" if index else "left", no_wrap=True)
    for cells in _cells(summary):
        table.add_row(*cells)
    console.print(table)
    for note in _notes(summary):
        console.print(note)


def to_markdown(summary: pd.DataFrame, title: str | None = None) -> str:
    """A summary as Markdown.

    Args:
        summary: From ``momentumrnn.results.summarise``.
        title: Above the table.
    """
    lines = [f"# {title}", ""] if title else []
    headings = [f"{first} {second}".strip() for first, second in _headings(_metric(summary))]
    lines.append(f"| {' | '.join(headings)} |")
    lines.append("|---|" + "---:|" * (len(headings) - 1))
    lines.extend(f"| {' | '.join(cells)} |" for cells in _cells(summary))
    for note in _notes(summary):
        lines.extend(["", note])
    return "\n".join(lines) + "\n"


def _cells(summary: pd.DataFrame) -> list[tuple[str, ...]]:
    metric = _metric(summary)
    digits = 2 if metric in (ACCURACY, MSE, PERPLEXITY) else 4
    return [
        (
            str(row["model"]),
            f"{int(row['parameters']):,}",
            *(_spread(row[name], row[f"{name}_std"], digits) for name in _test_columns(metric)),
            *(
                [_epochs(row["epochs_to_90"], int(row["reached_90"]), int(row["seeds"]))]
                if metric == ACCURACY
                else []
            ),
            _number(row["seconds_per_epoch"], 2),
        )
        for row in summary.to_dict("records")
    ]


def _test_columns(metric: Metric) -> tuple[str, str]:
    return f"test_{metric.name}", f"best_test_{metric.name}"


def _number(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _spread(mean: float, std: float, digits: int) -> str:
    return _number(mean, digits) if math.isnan(std) else f"{mean:.{digits}f} ± {std:.{digits}f}"


def _epochs(mean: float, reached: int, seeds: int) -> str:
    if reached == 0:
        return "not reached"
    return f"{mean:.1f}" if reached == seeds else f"{mean:.1f} ({reached}/{seeds})"


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"
