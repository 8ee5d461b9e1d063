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

# The yellow end is the better one, whichever way the metric goes.
MAP = "viridis"


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
    finite = means[np.isfinite(means)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    # One value alone has no scale.
    scale = Normalize(low, high if high > low else low + 1)
    figure = new_figure((2.6 + 1.15 * len(across), 1.8 + 0.8 * len(down)))
    axes = figure.add_subplot()
    image = axes.pcolormesh(
        np.ma.masked_invalid(means), cmap=colours, norm=scale, edgecolors="white", linewidth=2
    )
    for index, row in enumerate(panel.rows):
        y, x = divmod(index, len(across))
        value = means[y, x]
        if math.isnan(value):
            axes.add_patch(
                Rectangle((x, y), 1, 1, facecolor="#eeeeee", edgecolor="#bbbbbb", hatch="///", linewidth=0)
            )
            ink = "#333333"
        else:
            red, green, blue, _ = colours(scale(value))
            ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        told = show_value(quantity, row).replace(" ± ", "\n±")
        if row.provisional:
            told += f"\n{row.show_epochs()}"
        # A word on hatching needs a ground of its own.
        ground = {"facecolor": "#eeeeee", "edgecolor": "none", "pad": 1.5} if math.isnan(value) else None
        axes.text(x + 0.5, y + 0.5, told, ha="center", va="center", color=ink, fontsize=10, bbox=ground)
    axes.set_xticks(np.arange(len(across)) + 0.5, [f"{value:g}" for value in across], fontsize=11)
    axes.set_yticks(np.arange(len(down)) + 0.5, [f"{value:g}" for value in down], fontsize=11)
    axes.set_xlim(0, len(across))
    axes.set_ylim(0, len(down))
    axes.set_xlabel(second, fontsize=12)
    axes.set_ylabel(first, fontsize=12)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=12)
    if len(finite):
        better = "higher" if panel.metric.higher_is_better else "lower"
        figure.colorbar(image, ax=axes, pad=0.02).set_label(
            f"{quantity.heading.replace(chr(10), ' ')} ({better} is better)", fontsize=11
        )
    return figure
