"""The validation metric against every key that was swept."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from momentumrnn.cli.sweeping.axes import Axis, Choices, Range, as_text
from momentumrnn.cli.sweeping.definition import Definition
from momentumrnn.cli.sweeping.trial import Trial
from momentumrnn.results.plots import COLOURS, write_figure

COLUMNS, MARGIN = 3, 0.04
# Errors over more than this are told apart on a logarithmic scale alone.
WIDE = 30.0


def sweep_figure(definition: Definition, trials: Sequence[Trial], best: Trial | None, title: str) -> Figure:
    """A panel for each key: every trial at its value, the best one marked.

    Args:
        definition: What was swept.
        trials: The finished trials.
        best: The best of them.
        title: Above the plot.
    """
    axes, metric = definition.axes, definition.metric
    columns = len(axes) if len(axes) <= COLUMNS else min(COLUMNS, math.ceil(math.sqrt(len(axes))))
    rows = math.ceil(len(axes) / columns)
    figure = Figure((max(5.0, 3.8 * columns), 3.7 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
    values = [trial.value for trial in trials if trial.scores]
    for index, panel in enumerate(panels.flat):
        if index >= len(axes):
            panel.set_visible(False)
            continue
        _draw(panel, axes[index], trials, best, metric.scale)
        if index % columns == 0:
            unit = f", {metric.unit}" if metric.unit else ""
            panel.set_ylabel(f"best validation {metric.name}{unit}", fontsize=11)
    if not metric.higher_is_better and values and min(values) > 0 and max(values) > WIDE * min(values):
        panels[0, 0].set_yscale("log")
    handles = {
        label: handle
        for panel in panels.flat
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False
        )
    figure.suptitle(title, fontsize=12)
    return figure


def plot_sweep(
    definition: Definition, trials: Sequence[Trial], best: Trial | None, title: str, path: Path
) -> list[Path]:
    """Write the plot as PNG and SVG.

    Args:
        definition: What was swept.
        trials: The finished trials.
        best: The best of them.
        title: Above the plot.
        path: Where, without a suffix.

    Returns:
        The files.
    """
    return write_figure(sweep_figure(definition, trials, best, title), path)


def _draw(panel: Axes, axis: Axis, trials: Sequence[Trial], best: Trial | None, scale: float) -> None:
    for outcome, inside, edge in (("complete", COLOURS[2], COLOURS[2]), ("pruned", "none", "grey")):
        members = [trial for trial in trials if trial.outcome == outcome and trial.scores]
        if members:
            panel.scatter(
                [_place(axis, trial) for trial in members],
                [scale * trial.value for trial in members],
                s=34,
                facecolors=inside,
                edgecolors=edge,
                linewidths=1.2,
                label=outcome,
            )
    diverged = [_place(axis, trial) for trial in trials if trial.outcome == "diverged"]
    if diverged:
        # They have no value: on the lower edge, whatever the scale.
        panel.scatter(
            diverged,
            [0.0] * len(diverged),
            marker="x",
            color=COLOURS[1],
            s=38,
            label="diverged",
            clip_on=False,
            zorder=3,
            transform=panel.get_xaxis_transform(),
        )
    if best is not None:
        panel.scatter(
            [_place(axis, best)],
            [scale * best.value],
            marker="*",
            s=210,
            facecolors=COLOURS[5],
            edgecolors="black",
            linewidths=0.8,
            zorder=3,
            label=f"best (trial {best.number})",
        )
    panel.set_xlabel(axis.key, fontsize=11)
    if isinstance(axis, Choices):
        panel.set_xticks(range(len(axis.values)), [as_text(value) for value in axis.values])
        panel.set_xlim(-0.5, len(axis.values) - 0.5)
    elif axis.log:
        panel.set_xscale("log")
        margin = (axis.high / axis.low) ** MARGIN
        panel.set_xlim(axis.low / margin, axis.high * margin)
    else:
        panel.set_xlim(
            axis.low - MARGIN * (axis.high - axis.low), axis.high + MARGIN * (axis.high - axis.low)
        )
        if isinstance(axis.low, int) and isinstance(axis.high, int):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def _place(axis: Axis, trial: Trial) -> float:
    value = trial.values[axis.key]
    if isinstance(axis, Range):
        assert not isinstance(value, str)
        return float(value)
    return float(axis.values.index(value))
