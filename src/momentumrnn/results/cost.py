"""What a step costs, as a table and as bars."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from momentumrnn.results.cost_records import Cost, Costs
from momentumrnn.results.numbers import NOTHING, show_number
from momentumrnn.results.plots import COLOURS, new_figure
from momentumrnn.results.runs import label_models
from momentumrnn.results.table import Table
from momentumrnn.training.experiments import Panel

NOT_MEASURED = "not measured"
MIB = 2**20


def cost_labels(panel: Panel) -> list[str]:
    """What the rows of a panel are called.

    Args:
        panel: One that shows cost.
    """
    return label_models([row.load() for row in panel.all_rows()])


def cost_table(panel: Panel, costs: Costs, machine: Mapping[str, str], title: str) -> Table:
    """Seconds and memory of a step, absolute and relative to the first row.

    Args:
        panel: One that shows cost.
        costs: From ``read_costs``.
        machine: From ``read_machine``.
        title: Above the table.
    """
    names = [row.name for row in panel.all_rows()]
    labels = cost_labels(panel)
    first = costs.get((panel.title, names[0]))
    rows = []
    for name, label in zip(names, labels, strict=True):
        cost = costs.get((panel.title, name))
        if cost is None:
            rows.append((label, NOT_MEASURED, *[NOTHING] * 5))
            continue
        rows.append(
            (
                label,
                _milliseconds(cost.train_seconds),
                show_number(cost.train_ratio, 2),
                _milliseconds(cost.eval_seconds),
                show_number(cost.eval_ratio, 2),
                *(_memory(cost, first, key) for key in ("train_bytes", "eval_bytes")),
            )
        )
    notes = [f"Ratios are to {labels[0]}. Memory is the peak of a step, with its ratio in brackets."]
    if machine:
        notes.append("Measured on: " + "; ".join(f"{key} {value}" for key, value in machine.items()) + ".")
    headings = (
        "model",
        "training step,\nms",
        "ratio",
        "evaluation,\nms",
        "ratio",
        "training,\nMiB",
        "evaluation,\nMiB",
    )
    return Table(title, headings, tuple(rows), tuple(notes))


def cost_figure(panel: Panel, costs: Costs, title: str) -> Figure:
    """Bars of time, and of memory where it was measured, relative to the first row.

    Args:
        panel: One that shows cost.
        costs: From ``read_costs``.
        title: Above the plot.
    """
    names = [row.name for row in panel.all_rows()]
    labels = cost_labels(panel)
    found = [costs.get((panel.title, name)) for name in names]
    first = found[0]
    shown = {
        "time of a step": (
            [math.nan if cost is None else cost.train_ratio for cost in found],
            [math.nan if cost is None else cost.eval_ratio for cost in found],
        ),
        "peak memory of a step": (
            [_ratio(cost, first, "train_bytes") for cost in found],
            [_ratio(cost, first, "eval_bytes") for cost in found],
        ),
    }
    shown = {name: pair for name, pair in shown.items() if np.isfinite(pair).any()}
    figure = new_figure((1.8 + 4.3 * max(1, len(shown)), 1.7 + 0.62 * len(names)))
    for index, (name, pair) in enumerate(shown.items()):
        axes = figure.add_subplot(1, len(shown), index + 1)
        most = np.nanmax(pair)
        for place, (step, ratios) in enumerate(zip(("training", "evaluation"), pair, strict=True)):
            heights = np.arange(len(names)) + (place - 0.5) * 0.38
            axes.barh(
                heights,
                np.nan_to_num(ratios),
                height=0.36,
                # Dark and light: told apart without colour, too.
                color=(COLOURS[2], COLOURS[6])[place],
                label=step,
            )
            for height, ratio in zip(heights, ratios, strict=True):
                told = NOT_MEASURED if math.isnan(ratio) else f"{ratio:.2f}"
                axes.text(np.nan_to_num(ratio) + 0.015 * most, height, told, va="center", fontsize=9.5)
        axes.axvline(1.0, color="black", linewidth=1.2, linestyle="dashed")
        axes.set_yticks(range(len(names)), labels if index == 0 else [""] * len(names), fontsize=11)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, most * 1.15)
        axes.set_xlabel(f"{name}, relative to {labels[0]}", fontsize=11)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=12)
    if figure.axes:
        handles, steps = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, steps, loc="outside lower center", ncols=2, fontsize=10, frameon=False)
    return figure


def _ratio(cost: Cost | None, first: Cost | None, key: str) -> float:
    if cost is None or first is None:
        return math.nan
    base: float = getattr(first, key)
    value: float = getattr(cost, key)
    return value / base if base else math.nan


def _milliseconds(seconds: float) -> str:
    return NOTHING if math.isnan(seconds) else f"{1000 * seconds:,.1f}"


def _memory(cost: Cost, first: Cost | None, key: str) -> str:
    value: float = getattr(cost, key)
    if math.isnan(value):
        return NOTHING
    ratio = _ratio(cost, first, key)
    return f"{value / MIB:,.1f}" + ("" if math.isnan(ratio) else f" ({ratio:.2f})")
