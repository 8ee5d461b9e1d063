"""Measurements as tables: a row a contestant, a column a shape."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from momentumrnn.cli.benchmarking.contestants import BASELINES, Contestant
from momentumrnn.cli.benchmarking.measurement import Measurement
from momentumrnn.cli.benchmarking.shapes import Shape

EMPTY = "–"
# What a terminal needs for the names, for a shape, and for a shape with the quartiles of its ratios.
WIDTH_OF_NAMES, WIDTH_OF_SHAPE, WIDTH_WITH_QUARTILES = 17, 9, 18
TITLES = {
    "train": "Time of a training step: forward and backward",
    "inference": "Time of inference: forward, without gradients",
    "memory": "Peak memory of a training step",
    "error": "Largest error of an output, over the largest output in float64",
}


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: Above it.
        headings: Of its columns but the first, in lines.
        rows: A name, then a cell a column.
    """

    title: str
    headings: Sequence[Sequence[str]]
    rows: Sequence[tuple[str, ...]]


def grids(
    measurements: Sequence[Measurement],
    contestants: Sequence[Contestant],
    *,
    spread: bool,
    across: int | None = None,
) -> Iterator[Grid]:
    """All tables of a benchmark.

    Args:
        measurements: What was measured.
        contestants: Who was asked for.
        spread: Whether quartiles are shown.
        across: How many shapes stand in one table; all where absent.
    """
    for quantity, title in TITLES.items():
        kinds = dict.fromkeys((one.along, one.precision) for one in measurements if one.quantity == quantity)
        for along, precision in kinds:
            kind = (quantity, along, precision)
            here = [one for one in measurements if (one.quantity, one.along, one.precision) == kind]
            titled = title if precision == "float32" else f"{title}, in {precision}"
            shapes = list(dict.fromkeys(one.shape for one in here))
            width = across or len(shapes)
            for first in range(0, len(shapes), width):
                part = shapes[first : first + width]
                fixed, headings = _headings(part, along)
                rows = list(_rows(here, contestants, part, spread))
                yield Grid(f"{titled}, along {along}; {fixed}" if along else titled, headings, rows)
    if steps := [one for one in measurements if one.quantity == "step"]:
        shape = steps[0].shape
        yield Grid(
            f"Time of a single step of a cell, without gradients: B {shape.B}, d {shape.d}, h {shape.h}",
            [["time"], ["ratio"]],
            [(one.contestant, absolute(one), ratio(one, spread)) for one in steps],
        )


def _headings(shapes: Sequence[Shape], along: str) -> tuple[str, list[list[str]]]:
    """The sizes that all of a sweep share, and those at the head of each column."""
    fixed = [f"{name} {size}" for name, size in shapes[0]._asdict().items() if along and name != along]
    columns = [
        [f"{name} {size}" for name, size in shape._asdict().items() if along in ("", name)]
        for shape in shapes
    ]
    return ", ".join(fixed), columns


def _rows(
    measurements: Sequence[Measurement],
    contestants: Sequence[Contestant],
    shapes: Sequence[Shape],
    spread: bool,
) -> Iterator[tuple[str, ...]]:
    found = {(one.contestant, one.shape): one for one in measurements}
    measured = {one.contestant for one in measurements}

    def row(name: str, show: Callable[[Measurement], str]) -> tuple[str, ...]:
        cells = [found.get((name, shape)) for shape in shapes]
        return (name, *(EMPTY if cell is None else show(cell) for cell in cells))

    for baseline in BASELINES:
        if baseline not in measured:
            continue
        yield row(baseline, absolute)
        for contestant in contestants:
            if contestant.baseline != baseline:
                continue
            if not contestant.installed:
                yield (f"{contestant.name} (not installed)", *([EMPTY] * len(shapes)))
            elif contestant.name in measured:
                yield row(contestant.name, lambda one: ratio(one, spread))


def absolute(one: Measurement) -> str:
    """A time or an amount of memory with its unit.

    Args:
        one: What was measured.
    """
    if math.isnan(one.value):
        return EMPTY
    if one.quantity == "error":
        return f"{one.value:.1e}"
    if one.quantity == "memory":
        unit, size = ("GB", 1e9) if one.value >= 1e9 else ("MB", 1e6)
        return f"{_three_digits(one.value / size)} {unit}"
    for unit, seconds in (("s", 1.0), ("ms", 1e-3)):
        if one.value >= seconds:
            return f"{_three_digits(one.value / seconds)} {unit}"
    return f"{_three_digits(one.value / 1e-6)} µs"


def ratio(one: Measurement, spread: bool) -> str:
    """A ratio to the baseline.

    Args:
        one: What was measured.
        spread: Whether the quartiles are shown.
    """
    if one.quantity == "error":
        return absolute(one)
    if math.isnan(one.ratio):
        return EMPTY
    told = _two_decimals(one.ratio)
    if not spread or math.isnan(one.ratio_low) or one.contestant == one.baseline:
        return told
    return f"{told} ({_two_decimals(one.ratio_low)}–{_two_decimals(one.ratio_high)})"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _two_decimals(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def shows_quartiles(measurements: Sequence[Measurement], console: Console) -> bool:
    """Whether the terminal is wide enough for ratios with their quartiles, all shapes in one table.

    Args:
        measurements: What was measured.
        console: The terminal.
    """
    shapes = {one.shape for one in measurements if one.quantity != "step"}
    return WIDTH_OF_NAMES + WIDTH_WITH_QUARTILES * len(shapes) <= console.width


def print_tables(
    measurements: Sequence[Measurement], contestants: Sequence[Contestant], console: Console
) -> None:
    """Print all tables.

    Args:
        measurements: What was measured.
        contestants: Who was asked for.
        console: The terminal.
    """
    spread = shows_quartiles(measurements, console)
    width = WIDTH_WITH_QUARTILES if spread else WIDTH_OF_SHAPE
    across = max(1, (console.width - WIDTH_OF_NAMES) // width)
    for grid in grids(measurements, contestants, spread=spread, across=across):
        # Not the table's title: rich wraps that to the table's width.
        console.print(f"\n{grid.title}", style="italic", highlight=False)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("", no_wrap=True)
        for heading in grid.headings:
            table.add_column("\n".join(heading), justify="right", no_wrap=True)
        for row in grid.rows:
            name, *cells = row
            table.add_row(name.replace(" (", "\n("), *cells)
        console.print(table)


def to_markdown(grid: Grid) -> str:
    """A table as Markdown.

    Args:
        grid: The table.
    """
    headings = ["", *(", ".join(heading) for heading in grid.headings)]
    lines = [f"## {grid.title}", "", f"| {' | '.join(headings)} |", f"|---|{'---:|' * len(grid.headings)}"]
    lines += [f"| {' | '.join(row)} |" for row in grid.rows]
    return "\n".join(lines) + "\n"
