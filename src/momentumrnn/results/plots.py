"""What runs are judged by, against epochs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from momentumrnn.results.summary import RunRecord, group_runs, metric_of
from momentumrnn.tasks import Metric
from momentumrnn.tasks.contract import ACCURACY

# Okabe and Ito's colours, told apart by colour-blind readers; with the dashes, by black-and-white printers.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (10, 2)), (0, (1, 1)), (0, (4, 1)))


def convergence_figure(runs: Sequence[RunRecord], title: str) -> Figure:
    """Validation metric against epoch: a mean line a model, a band of one standard deviation over seeds.

    What can be had without learning, where it is known, is a dotted line.

    Args:
        runs: Any runs that are judged by one metric; where nothing was held out, the test takes the
            validation's place.
        title: Above the plot.

    Raises:
        RecipeError: They are judged by different metrics.
    """
    metric = metric_of(runs)
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    held_out = all(epoch.validation_metric is not None for run in runs for epoch in run.history)
    seeds = 0
    for index, (label, members) in enumerate(group_runs(runs).items()):
        curves = [_curve(run, held_out, metric) for run in members if run.history]
        if not curves:
            continue
        seeds = max(seeds, len(curves))
        shown = min(len(curve) for curve in curves)
        stacked = np.stack([curve[:shown] for curve in curves])
        epochs, mean = np.arange(1, shown + 1), stacked.mean(axis=0)
        colour, dashes = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
        axes.plot(epochs, mean, color=colour, linestyle=dashes, linewidth=2, label=label)
        if len(curves) > 1:
            spread = stacked.std(axis=0, ddof=1)
            low, high = mean - spread, mean + spread
            if metric == ACCURACY:
                high = np.minimum(high, 100)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.set_xlabel("epoch", fontsize=12)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    part, unit = "validation" if held_out else "test", f", {metric.unit}" if metric.unit else ""
    axes.set_ylabel(f"{part} {metric.name}{unit}", fontsize=12)
    if metric == ACCURACY:
        axes.set_ylim(0, 101)
    for baseline in {run.recipe.task().baseline() for run in runs}:
        if baseline is not None:
            axes.axhline(baseline.value, color="grey", linestyle="dotted", linewidth=1.5, label=baseline.name)
    axes.set_xlim(left=1)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    band = f"mean of {seeds} seeds, band ± one standard deviation" if seeds > 1 else "one seed"
    axes.set_title(f"{title}\n{band}", fontsize=12)
    axes.legend(
        loc="lower right" if metric.higher_is_better else "upper right", fontsize=11, handlelength=3.5
    )
    return figure


def plot_convergence(runs: Sequence[RunRecord], title: str, path: Path) -> list[Path]:
    """Write the convergence plot as PNG and SVG.

    Args:
        runs: Any runs.
        title: Above the plot.
        path: Where, without a suffix.

    Returns:
        The files.
    """
    figure = convergence_figure(runs, title)
    files = [path.with_suffix(".png"), path.with_suffix(".svg")]
    for file in files:
        figure.savefig(file, dpi=150)
    return files


def _curve(run: RunRecord, held_out: bool, metric: Metric) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = [epoch.validation_metric if held_out else epoch.test_metric for epoch in run.history]
    return metric.scale * np.array(values, dtype=np.float64)
