"""What a step costs, from the measurements that lie beside runs."""

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from momentumrnn.errors import CheckpointError
from momentumrnn.results.find import COST, COST_MACHINE
from momentumrnn.results.numbers import NOTHING, show_number
from momentumrnn.results.plots import COLOURS, new_figure
from momentumrnn.results.runs import label_models
from momentumrnn.results.table import Table
from momentumrnn.training.experiments import Panel

NOT_MEASURED = "not measured"
NUMBERS = ("train_seconds", "train_ratio", "eval_seconds", "eval_ratio", "train_bytes", "eval_bytes")
MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """A step of one model. What was not measured is not a number.

    Attributes:
        train_seconds: Of a training step.
        train_ratio: The same, relative to the panel's first row.
        eval_seconds: Of an evaluation step.
        eval_ratio: The same, relative to the panel's first row.
        train_bytes: Peak memory of a training step.
        eval_bytes: Peak memory of an evaluation step.
    """

    train_seconds: float
    train_ratio: float
    eval_seconds: float
    eval_ratio: float
    train_bytes: float
    eval_bytes: float


def read_costs(folder: Path) -> dict[tuple[str, str], Cost]:
    """What was measured of every row.

    Args:
        folder: Where ``cost.csv`` lies; without it nothing was measured.

    Returns:
        Title of the panel, name of the row → its cost.

    Raises:
        CheckpointError: The file holds something else.
    """
    path = folder / COST
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            return {
                (row["panel"], row["row"]): Cost(*(float(row[name] or math.nan) for name in NUMBERS))
                for row in csv.DictReader(stream)
            }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path}: expected the columns panel, row, {', '.join(NUMBERS)}, got something else ({error})"
        ) from error


def read_machine(folder: Path) -> dict[str, str]:
    """On what it was measured, as far as that is known.

    Args:
        folder: Where ``cost.json`` lies.
    """
    try:
        told = json.loads((folder / COST_MACHINE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return _flat(told) if isinstance(told, dict) else {}


def cost_labels(panel: Panel) -> list[str]:
    """What the rows of a panel are called.

    Args:
        panel: One that shows cost.
    """
    return label_models([row.load() for row in panel.all_rows()])


def cost_table(
    panel: Panel, costs: Mapping[tuple[str, str], Cost], machine: Mapping[str, str], title: str
) -> Table:
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


def cost_figure(panel: Panel, costs: Mapping[tuple[str, str], Cost], title: str) -> Figure:
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


def _flat(told: Mapping[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in told.items():
        if isinstance(value, dict):
            flat.update(_flat(value))
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            flat[str(key)] = str(value)
    return flat
