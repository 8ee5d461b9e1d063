"""What runs are judged by, against epochs."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from momentumrnn.results.numbers import show_range
from momentumrnn.results.runs import RunRecord, group_runs, metric_of
from momentumrnn.tasks import Metric
from momentumrnn.tasks.contract import ACCURACY, LOSS, AnyPart
from momentumrnn.training.files import write_atomically
from momentumrnn.training.history import Epoch

# Okabe and Ito's colours, told apart by colour-blind readers, with a brown for their yellow, which is too
# light for lines; with the dashes, by black-and-white printers.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F4F24")
DASHES = (
    "solid",
    (0, (6, 2)),
    (0, (2, 1.5)),
    (0, (6, 2, 1.5, 2)),
    (0, (10, 2)),
    (0, (1, 1)),
    (0, (4, 1)),
    (0, (8, 2, 1.5, 2, 1.5, 2)),
)
# Losses further apart than this are drawn on a logarithmic axis.
DECADES = 1.5
FORMATS = ("png", "svg")
UNESCAPED = re.compile(r"(?<!\\)\$")


def convergence_figure(runs: Sequence[RunRecord], title: str) -> Figure:
    """Validation metric against epoch: a mean line a model, a band of one standard deviation over seeds.

    What can be had without learning on the same sequences, where it is known, is a dotted line.

    Args:
        runs: Any runs that are judged by one metric; where nothing was held out, the test takes the
            validation's place.
        title: Above the plot.

    Raises:
        RecipeError: They are judged by different metrics.
    """
    metric = metric_of(runs)
    figure = new_figure((8, 5))
    axes = figure.add_subplot()
    held_out = all(epoch.validation_metric is not None for run in runs for epoch in run.history)
    part = "validation" if held_out else "test"

    def value(epoch: Epoch) -> float | None:
        return epoch.validation_metric if held_out else epoch.test_metric

    seeds = draw_curves(axes, group_runs(runs), value, metric, f"{part} {metric.name}")
    _draw_baselines(axes, runs, "validation" if held_out else "test")
    axes.set_title(f"{title}\n{_band(seeds)}", fontsize=12)
    axes.legend(
        loc="lower right" if metric.higher_is_better else "upper right", fontsize=11, handlelength=3.5
    )
    return figure


def training_figure(groups: Mapping[str, Sequence[RunRecord]], metric: Metric, title: str) -> Figure:
    """Loss of training at the left, loss of the test at the right; then the test metric, where it is no loss.

    A mean line a model and a band of one standard deviation over seeds, on a logarithmic axis where losses
    span decades.

    Args:
        groups: Label → runs; a model without any keeps its colour and is not drawn.
        metric: What they are judged by.
        title: Above the plot.
    """
    panels: list[tuple[AnyPart, str, Metric, Callable[[Epoch], float | None]]] = [
        ("training", "training loss", LOSS, lambda epoch: epoch.train_loss),
        ("test", "test loss", LOSS, lambda epoch: epoch.test_loss),
    ]
    if metric.higher_is_better:
        panels.append(("test", f"test {metric.name}", metric, lambda epoch: epoch.test_metric))
    figure = new_figure((4.7 * len(panels), 5.0))
    runs = [run for members in groups.values() for run in members]
    seeds: list[int] = []
    for index, (part, name, shown, value) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        seeds += draw_curves(axes, groups, value, shown, name)
        if shown == metric:
            _draw_baselines(axes, runs, part)
    figure.suptitle(f"{title}\n{_band(seeds)}", fontsize=12)
    # Or an axis touches the name of the next one's.
    figure.set_layout_engine("constrained", wspace=0.05)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=4, fontsize=10, handlelength=3.5, frameon=False
    )
    return figure


def draw_curves(
    axes: Axes,
    groups: Mapping[str, Sequence[RunRecord]],
    value: Callable[[Epoch], float | None],
    metric: Metric,
    name: str,
) -> list[int]:
    """Draw a mean line a model, with its band, as far as all its seeds go.

    Args:
        axes: Where.
        groups: Label → runs; a model without any keeps its colour.
        value: From an epoch to what is drawn, unscaled.
        metric: What it is an amount of.
        name: Of the vertical axis.

    Returns:
        Over how many seeds each line is.
    """
    seeds, means = [], []
    for index, (label, members) in enumerate(groups.items()):
        curves = [_curve(run, value, metric) for run in members if run.history]
        if not curves:
            continue
        seeds.append(len(curves))
        shown = min(len(curve) for curve in curves)
        stacked = np.stack([curve[:shown] for curve in curves])
        epochs, mean = np.arange(1, shown + 1), stacked.mean(axis=0)
        colour, dashes = look(index)
        # A single epoch has no line.
        mark = "o" if shown == 1 else None
        axes.plot(epochs, mean, color=colour, linestyle=dashes, linewidth=2, marker=mark, label=label)
        means.append(mean)
        if len(curves) > 1:
            spread = stacked.std(axis=0, ddof=1)
            low, high = mean - spread, mean + spread
            if metric == ACCURACY:
                high = np.minimum(high, 100)
            elif metric == LOSS:
                # On a logarithmic axis a deviation as large as the mean would be a spike without end.
                low = np.maximum(low, stacked.min(axis=0))
            axes.fill_between(epochs, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.set_xlabel("epoch", fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(f"{name}, {metric.unit}" if metric.unit else name, fontsize=12)
    if metric == ACCURACY:
        axes.set_ylim(0, 101)
    elif metric == LOSS:
        _choose_scale(axes, means)
    if means:
        axes.set_xlim(left=1)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return seeds


def look(index: int) -> tuple[str, str | tuple[int, tuple[float, ...]]]:
    """Colour and dashes of the n-th of several models; no two of the first 49 are alike.

    Args:
        index: From 0.
    """
    return COLOURS[index % len(COLOURS)], DASHES[(index + index // len(COLOURS)) % len(DASHES)]


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure that can be saved, without the state of ``pyplot``.

    Args:
        size: Width and height in inches.
    """
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure, suffix: str) -> bytes:
    """A figure as the contents of a file.

    Args:
        figure: Any.
        suffix: ``png`` or ``svg``.
    """
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        # Names of folders and models, not mathematics. Those at an axis' ticks are made while it is drawn.
        text.set_text(UNESCAPED.sub(r"\$", text.get_text()))
    drawn = io.BytesIO()
    figure.savefig(drawn, format=suffix, dpi=150)
    return drawn.getvalue()


def write_figure(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and SVG.

    Args:
        figure: Any.
        path: Where, without a suffix.

    Returns:
        The files.
    """
    files = [path.with_name(f"{path.name}.{suffix}") for suffix in FORMATS]
    for file, suffix in zip(files, FORMATS, strict=True):
        write_atomically(file, render(figure, suffix))
    return files


def plot_convergence(runs: Sequence[RunRecord], title: str, path: Path) -> list[Path]:
    """Write the convergence plot as PNG and SVG.

    Args:
        runs: Any runs.
        title: Above the plot.
        path: Where, without a suffix.

    Returns:
        The files.
    """
    return write_figure(convergence_figure(runs, title), path)


def _choose_scale(axes: Axes, means: Sequence[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> None:
    values = np.concatenate(means) if means else np.array([])
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0 or math.log10(values.max() / values.min()) < DECADES:
        return
    axes.set_yscale("log")
    # A band that reaches below zero must not stretch the axis.
    axes.set_ylim(bottom=values.min() / 2)


def _draw_baselines(axes: Axes, runs: Sequence[RunRecord], part: AnyPart) -> None:
    # Every epoch of training draws other sequences: there the line is the expectation over all of them.
    for baseline in {run.recipe.task().baseline(part) for run in runs}:
        if baseline is not None:
            axes.axhline(baseline.value, color="grey", linestyle="dotted", linewidth=1.5, label=baseline.name)


def _band(seeds: Sequence[int]) -> str:
    if max(seeds, default=1) == 1:
        return "one seed"
    return f"mean of {show_range(seeds)} seeds, band ± one standard deviation"


def _curve(
    run: RunRecord, value: Callable[[Epoch], float | None], metric: Metric
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = [value(epoch) for epoch in run.history]
    return metric.scale * np.array(values, dtype=np.float64)
