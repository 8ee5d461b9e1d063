"""Wall time until a metric is reached."""

import math
from collections.abc import Sequence

from matplotlib.figure import Figure

from momentumrnn.results.numbers import NOTHING, Spread, show_number, show_spread
from momentumrnn.results.plots import look, new_figure
from momentumrnn.results.quantities import digits_of
from momentumrnn.results.rows import NOT_RUN, NOTHING_YET, PanelResult, RowResult
from momentumrnn.results.runs import RunRecord
from momentumrnn.results.table import Table
from momentumrnn.tasks import Metric

MINUTE = 60.0


def minutes_to(run: RunRecord, target: float, metric: Metric) -> float | None:
    """Minutes of training and evaluation up to the end of the first epoch whose test metric is at the target.

    Args:
        run: Any.
        target: As it is shown.
        metric: What it is an amount of.
    """
    seconds = 0.0
    for epoch in run.history:
        seconds += epoch.seconds
        shown = metric.scale * epoch.test_metric
        # The factor of percent rounds: 100 * 0.0007 is less than 0.07.
        if math.isclose(shown, target) or metric.rank(shown) >= metric.rank(target):
            return seconds / MINUTE
    return None


def minutes_over(row: RowResult, target: float, metric: Metric) -> Spread:
    """Minutes over the seeds that reached the target, unfinished ones among them.

    Args:
        row: A model.
        target: As it is shown.
        metric: What it is an amount of.
    """
    reached = (minutes_to(run, target, metric) for run in row.runs)
    return Spread(tuple(value for value in reached if value is not None))


def published_minutes(panel: PanelResult) -> list[float | None]:
    """The paper's minutes for each row; ``None`` where it is not the paper's row that was run.

    Args:
        panel: One that shows time.
    """
    assert panel.panel is not None
    theirs: Sequence[float | None] = panel.panel.published or [None] * len(panel.rows)
    return [
        value if row.row is not None and not panel.smoke and row.recipe.is_row_of(row.row.load()) else None
        for value, row in zip(theirs, panel.rows, strict=True)
    ]


def time_table(panel: PanelResult, title: str) -> Table:
    """Minutes to the target beside the paper's.

    Args:
        panel: One that shows time.
        title: Above the table.
    """
    target = _target(panel)
    rows = []
    published = published_minutes(panel)
    first = minutes_over(panel.rows[0], target, panel.metric).mean
    for row, theirs in zip(panel.rows, published, strict=True):
        spread = minutes_over(row, target, panel.metric)
        if spread.values:
            ours = show_spread(spread.mean, spread.std, 1)
        else:
            ours = "not reached" if row.counted else NOTHING_YET if row.runs else NOT_RUN
        rows.append(
            (
                row.label,
                ours,
                f"{len(spread.values)} of {sum(bool(run.history) for run in row.runs)}"
                if row.runs
                else NOTHING,
                NOTHING if theirs is None else f"{theirs:g}",
                show_number(spread.mean / first, 2),
                NOTHING if theirs is None or published[0] is None else show_number(theirs / published[0], 2),
                row.show_epochs(),
            )
        )
    name = panel.metric.name
    return Table(
        title,
        (
            "model",
            "minutes",
            "seeds that\nreached it",
            "paper",
            "ratio to\nthe first",
            "paper's\nratio",
            "epochs",
        ),
        tuple(rows),
        (
            f"Minutes of training and evaluation up to the first epoch whose test {name} is at "
            f"{show_number(target, digits_of(panel.metric))}{panel.metric.unit}. The paper's were taken on "
            "another machine: the ratios between models can be compared, the minutes cannot.",
        ),
    )


def time_figure(panel: PanelResult, title: str) -> Figure:
    """Test metric against minutes, a line a run, with the target.

    Args:
        panel: One that shows time.
        title: Above the plot.
    """
    target, metric = _target(panel), panel.metric
    figure = new_figure((8, 5))
    axes = figure.add_subplot()
    for index, row in enumerate(panel.rows):
        colour, dashes = look(index)
        for number, run in enumerate(run for run in row.runs if run.history):
            minutes, values = _course(run, metric)
            axes.plot(
                minutes,
                values,
                color=colour,
                linestyle=dashes,
                linewidth=1.7,
                label="" if number else row.label,
            )
            at = minutes_to(run, target, metric)
            if at is not None:
                there = values[minutes.index(at)]
                axes.plot([at], [there], color=colour, marker="o", markersize=7, linestyle="none")
    axes.axhline(target, color="grey", linestyle="dotted", linewidth=1.5)
    axes.annotate(
        f"{target:g}{metric.unit}",
        # Every course begins on the far side of the target.
        (0.0, target),
        xycoords=("axes fraction", "data"),
        xytext=(5, 4),
        textcoords="offset points",
        color="#555555",
        fontsize=11,
    )
    axes.set_xlabel("minutes of training and evaluation", fontsize=12)
    axes.set_ylabel(
        f"test {metric.name}, {metric.unit}" if metric.unit else f"test {metric.name}", fontsize=12
    )
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{title}\na line a run, a dot where it reaches the target", fontsize=12)
    axes.legend(
        loc="lower right" if metric.higher_is_better else "upper right", fontsize=11, handlelength=3.5
    )
    return figure


def _target(panel: PanelResult) -> float:
    assert panel.panel is not None
    return math.nan if panel.panel.target is None else panel.panel.target


def _course(run: RunRecord, metric: Metric) -> tuple[list[float], list[float]]:
    minutes, seconds = [], 0.0
    for epoch in run.history:
        seconds += epoch.seconds
        minutes.append(seconds / MINUTE)
    return minutes, [metric.scale * epoch.test_metric for epoch in run.history]
