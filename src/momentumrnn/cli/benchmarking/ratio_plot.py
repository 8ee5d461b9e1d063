"""A plot of ratios: a panel a baseline, in it a band a shape, in it a dot a contestant."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from momentumrnn.cli.benchmarking.contestants import BASELINES, CONTESTANTS
from momentumrnn.cli.benchmarking.measurement import Measurement
from momentumrnn.cli.benchmarking.shapes import Shape
from momentumrnn.results.plots import COLOURS

MARKERS = ("o", "D", "s", "^", "v", "P", "X")
TICKS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
# In inches: of a panel's width, of a contestant's line, and between two shapes.
PANEL, LINE, GAP = 3.3, 0.2, 0.16


def ratio_figure(measurements: Sequence[Measurement], title: str) -> Figure:
    """Ratios with their quartiles, on a logarithmic axis: twice as fast is as far from 1 as half as fast.

    Args:
        measurements: Of one quantity; those with no ratio and the baselines are left out.
        title: Above the plot.
    """
    shown = [one for one in measurements if one.contestant in CONTESTANTS and one.ratio > 0]
    shapes = list(dict.fromkeys(one.shape for one in shown))
    asked = {one.contestant for one in shown}
    families = {
        baseline: [name for name in CONTESTANTS if name in asked and CONTESTANTS[name].baseline == baseline]
        for baseline in BASELINES
    }
    families = {baseline: names for baseline, names in families.items() if names}
    lines = max(map(len, families.values()))
    widths = [PANEL * (1.5 if len(names) > 3 else 1.0) for names in families.values()]
    figure = Figure((1.4 + sum(widths), 2.0 + len(shapes) * (GAP + LINE * lines)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(families), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, (baseline, names) in zip(panels, families.items(), strict=True):
        _draw(
            axes,
            [one for one in shown if one.contestant in names],
            names,
            shapes,
            LINE / (GAP + LINE * lines),
        )
        axes.set_xlabel(f"ratio to {baseline}", fontsize=11)
    panels[0].set_yticks(
        range(len(shapes)), [f"T {shape.T:,}  B {shape.B}\nd {shape.d}  h {shape.h}" for shape in shapes]
    )
    panels[0].set_ylim(len(shapes) - 0.5, -0.5)
    figure.suptitle(f"{title} beside torch.nn (logarithmic; left of the line is better)", fontsize=13)
    return figure


def _draw(
    axes: Axes,
    measurements: Sequence[Measurement],
    names: Sequence[str],
    shapes: Sequence[Shape],
    line: float,
) -> None:
    axes.set_xscale("log")
    for k in range(0, len(shapes), 2):
        axes.axhspan(k - 0.5, k + 0.5, color="#f2f2f2", linewidth=0, zorder=0)
    axes.axvline(1.0, color="black", linewidth=1.2, zorder=1)
    for index, name in enumerate(names):
        mine = [one for one in measurements if one.contestant == name]
        heights = [shapes.index(one.shape) + line * (index - (len(names) - 1) / 2) for one in mine]
        ratios = [one.ratio for one in mine]
        # NaN, where a single number has no quartiles, draws nothing.
        spread = [
            [one.ratio - one.ratio_low for one in mine],
            [one.ratio_high - one.ratio for one in mine],
        ]
        look = _look(name, index)
        # Black is the baseline's, here and in the plots along an axis.
        colour = COLOURS[1 + look % (len(COLOURS) - 1)]
        axes.hlines(heights, 1.0, ratios, color=colour, linewidth=1.0, alpha=0.45, zorder=2)
        axes.errorbar(
            ratios,
            heights,
            xerr=spread,
            fmt=MARKERS[look % len(MARKERS)],
            color=colour,
            markersize=5.5,
            elinewidth=2.2,
            label=name,
            zorder=3,
        )
        for one, height in zip(mine, heights, strict=True):
            axes.annotate(
                f"{one.ratio:.1f}" if one.ratio >= 10 else f"{one.ratio:.2f}",
                (max(one.ratio, one.ratio_high) if one.ratio >= 1 else min(one.ratio, one.ratio_low), height),
                xytext=(7 if one.ratio >= 1 else -7, 0),
                textcoords="offset points",
                ha="left" if one.ratio >= 1 else "right",
                va="center",
                fontsize=8.5,
            )
    _ticks(axes, [one.ratio for one in measurements])
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2 if len(names) < 5 else 3,
        frameon=False,
        fontsize=9.5,
        handletextpad=0.3,
        columnspacing=1.0,
        borderpad=0.2,
    )


def _look(name: str, index: int) -> int:
    """Which colour and marker a contestant has: in small families the same whoever else was asked for."""
    family = [other for other in CONTESTANTS if CONTESTANTS[other].baseline == CONTESTANTS[name].baseline]
    return family.index(name) if len(family) < len(COLOURS) else index


def _ticks(axes: Axes, ratios: Sequence[float]) -> None:
    # Room for the numbers beside the dots.
    low, high = min([0.8, *ratios]) / 1.3, max([1.25, *ratios]) * 1.3
    room = (high / low) ** 0.06
    low, high = low / room, high * room
    axes.set_xlim(low, high)
    inside = [tick for tick in TICKS if low <= tick <= high]
    while len(inside) > 7:
        inside = [tick for k, tick in enumerate(inside) if tick == 1.0 or (k - inside.index(1.0)) % 2 == 0]
    axes.xaxis.set_major_locator(FixedLocator(inside))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
