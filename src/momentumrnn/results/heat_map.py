"""The best metric over a grid of two settings: Fig. 6."""

import math

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from momentumrnn.results.panel_tables import grid_axes, show_value
from momentumrnn.results.plots import new_figure
from momentumrnn.results.quantities import quantities_of
from momentumrnn.results.rows import PanelResult
from momentumrnn.tasks import Metric

# The yellow end is the better one, whichever way the metric goes.
MAP = "viridis"
# In median distances from the best; what is worse has the colour of the end.
FURTHEST = 4.0


def heat_map(panel: PanelResult, title: str) -> Figure:
    """A cell a pair of settings, the value written in it; hatched where it was not run.

    Args:
        panel: A grid.
        title: Above the plot.
    """
    assert panel.panel is not None
    quantity = quantities_of(panel.metric)[0]
    (first, down), (second, across) = grid_axes(panel.panel)
    means = np.array([quantity.over(row.runs).mean for row in panel.rows]).reshape(len(down), len(across))
    colours = colormaps[MAP if panel.metric.higher_is_better else f"{MAP}_r"]
    scale, beyond = _scale(means, panel.metric)
    figure = new_figure((2.6 + 1.15 * len(across), 1.8 + 0.8 * len(down)))
    axes = figure.add_subplot()
    image = axes.pcolormesh(
        np.ma.masked_invalid(means), cmap=colours, norm=scale, edgecolors="white", linewidth=2
    )
    for index, row in enumerate(panel.rows):
        y, x = divmod(index, len(across))
        value = means[y, x]
        if math.isnan(value):
            ground = Rectangle(
                (x, y), 1, 1, facecolor="#eeeeee", edgecolor="#bbbbbb", hatch="///", linewidth=0
            )
            axes.add_patch(ground)
            axes.add_patch(Rectangle((x, y), 1, 1, facecolor="none", edgecolor="white", linewidth=2))
            ink = "#333333"
        else:
            red, green, blue, _ = colours(scale(value))
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        told = show_value(quantity, row).replace(" ± ", "\n±")
        if row.provisional:
            told += f"\n{row.show_epochs()}"
        # A word on hatching needs a ground of its own.
        plain = {"facecolor": "#eeeeee", "edgecolor": "none", "pad": 1.5} if math.isnan(value) else None
        axes.text(x + 0.5, y + 0.5, told, ha="center", va="center", color=ink, fontsize=10, bbox=plain)
    axes.set_xticks(np.arange(len(across)) + 0.5, [f"{value:g}" for value in across], fontsize=11)
    axes.set_yticks(np.arange(len(down)) + 0.5, [f"{value:g}" for value in down], fontsize=11)
    axes.set_xlim(0, len(across))
    axes.set_ylim(0, len(down))
    axes.set_xlabel(second, fontsize=12)
    axes.set_ylabel(first, fontsize=12)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=12)
    if np.isfinite(means).any():
        better = "higher" if panel.metric.higher_is_better else "lower"
        figure.colorbar(image, ax=axes, pad=0.02, extend=beyond).set_label(
            f"{quantity.heading.replace(chr(10), ' ')} ({better} is better)", fontsize=11
        )
    return figure


def _scale(means: np.ndarray[tuple[int, int], np.dtype[np.float64]], metric: Metric) -> tuple[Normalize, str]:
    """The colours' scale, and which end of it has values beyond it."""
    ranks = metric.rank(1.0) * means[np.isfinite(means)]
    if not len(ranks):
        return Normalize(0.0, 1.0), "neither"
    distances = ranks.max() - ranks
    # A setting that learns nothing would make all the others one colour.
    shown = min(distances.max(), FURTHEST * np.median(distances)) or distances.max()
    best = metric.rank(ranks.max())
    # One value alone has no scale.
    low, high = sorted([best, best - metric.rank(shown or 1.0)])
    outside = "min" if metric.higher_is_better else "max"
    return Normalize(low, high), outside if distances.max() > shown else "neither"
