"""A plot of cost along T, B or h."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from momentumrnn.cli.benchmarking.contestants import BASELINES, CONTESTANTS
from momentumrnn.cli.benchmarking.measurement import Measurement
from momentumrnn.cli.benchmarking.ratio_plot import MARKERS
from momentumrnn.results.plots import COLOURS, DASHES

AXES = {"T": "time steps T", "B": "sequences B", "h": "hidden units h"}


def sweep_figure(measurements: Sequence[Measurement], along: str, words: str = "") -> Figure:
    """The ratio to torch.nn, and the time a time step takes.

    Args:
        measurements: Of a sweep, the baselines among them.
        along: The size that is varied.
        words: More of the title.
    """
    first = measurements[0].shape
    fixed = ", ".join(f"{name} = {size:,}" for name, size in first._asdict().items() if name != along)
    figure = Figure((11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = [
        name for name in (*BASELINES, *CONTESTANTS) if any(one.contestant == name for one in measurements)
    ]
    for index, name in enumerate(names):
        mine = sorted(
            (one for one in measurements if one.contestant == name), key=lambda one: _size(one, along)
        )
        sizes = [_size(one, along) for one in mine]
        style = {
            "color": COLOURS[index % len(COLOURS)],
            "linestyle": DASHES[index % len(DASHES)],
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 5,
            "linewidth": 1.8,
        }
        right.plot(sizes, [one.value / one.shape.T * 1e6 for one in mine], label=name, **style)
        if name in BASELINES:
            continue
        left.plot(sizes, [one.ratio for one in mine], label=name, **style)
        left.fill_between(
            sizes,
            [one.ratio_low for one in mine],
            [one.ratio_high for one in mine],
            color=COLOURS[index % len(COLOURS)],
            alpha=0.15,
            linewidth=0,
        )
    left.axhline(1.0, color="black", linewidth=1.2)
    left.set_ylim(bottom=0)
    left.set_ylabel("ratio to torch.nn, with quartiles", fontsize=11)
    right.set_yscale("log")
    right.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    right.yaxis.set_minor_locator(NullLocator())
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    right.set_ylabel("microseconds a time step", fontsize=11)
    for axes in (left, right):
        _along(axes, sorted({_size(one, along) for one in measurements}), along)
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, handlelength=3.5)
    figure.suptitle(f"Time of a training step{words} along {along}; {fixed}", fontsize=13)
    return figure


def _size(one: Measurement, along: str) -> int:
    size: int = getattr(one.shape, along)
    return size


def _along(axes: Axes, sizes: Sequence[int], along: str) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.tick_params(axis="x", rotation=30 if len(sizes) > 7 else 0)
    axes.set_xlabel(AXES[along], fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
