"""A panel as a table: ours, the paper's, and the difference."""

import math
from collections.abc import Sequence

from momentumrnn.results.numbers import NOTHING, show_difference, show_range, show_spread
from momentumrnn.results.quantities import Quantity, quantities_of
from momentumrnn.results.rows import NOT_RUN, NOTHING_YET, UNFINISHED, PanelResult, RowResult
from momentumrnn.results.table import Table
from momentumrnn.training.experiments import Panel

SHORT_NAMES = {"rule.momentum": "μ", "rule.step_size": "s", "rule.beta": "β"}


def results_table(panel: PanelResult, title: str) -> Table:
    """One row a model.

    Args:
        panel: The models.
        title: Above the table.
    """
    quantities = quantities_of(panel.metric)
    compared = [quantity for quantity in quantities if _is_published(quantity, panel)]
    headings = ["model", "seeds"]
    for quantity in quantities:
        headings.append(quantity.heading)
        if quantity in compared:
            headings.extend(["paper", "ours −\npaper's"])
    rows = [_cells(row, quantities, compared) for row in panel.rows]
    learned_nothing = {quantity: panel.baseline(quantity.part) for quantity in quantities}
    cells = {
        quantity: show_spread(found[1].mean, found[1].std, quantity.digits)
        for quantity, found in learned_nothing.items()
        if found is not None
    }
    names = dict.fromkeys(found[0] for found in learned_nothing.values() if found is not None)
    rows.extend(_line(name, NOTHING, cells, {}, NOTHING, quantities, compared) for name in names)
    return Table(title, (*headings, "epochs"), tuple(rows), tuple(_notes(panel, quantities)))


def grid_axes(panel: Panel) -> tuple[tuple[str, tuple[float, ...]], tuple[str, tuple[float, ...]]]:
    """The two settings of a grid with their values, each under a short name.

    Args:
        panel: A grid.
    """
    (first, ours), (second, theirs) = (panel.grid or {}).items()
    return (SHORT_NAMES.get(first, first), ours), (SHORT_NAMES.get(second, second), theirs)


def grid_table(panel: PanelResult, title: str) -> Table:
    """The best metric of every cell of a grid.

    Args:
        panel: A grid.
        title: Above the table.
    """
    assert panel.panel is not None
    quantity = quantities_of(panel.metric)[0]
    (first, down), (second, across) = grid_axes(panel.panel)
    values = [show_value(quantity, row) for row in panel.rows]
    width = len(across)
    return Table(
        title,
        (f"{first} ↓  {second} →", *(f"{value:g}" for value in across)),
        tuple((f"{value:g}", *values[k * width : (k + 1) * width]) for k, value in enumerate(down)),
        tuple(_notes(panel, [quantity], published=False)),
    )


def show_value(quantity: Quantity, row: RowResult) -> str:
    """Ours: mean and deviation; or that there is nothing to be shown.

    Args:
        quantity: Which number.
        row: The model.
    """
    if not row.runs:
        return NOT_RUN
    if not row.counted:
        return NOTHING_YET
    spread = quantity.over(row.runs)
    told = show_spread(spread.mean, spread.std, quantity.digits)
    return f"{told}{UNFINISHED}" if row.provisional and spread.values else told


def differences(quantity: Quantity, row: RowResult) -> tuple[float, ...]:
    """Our mean less each of the paper's values, in the unit of the metric.

    Args:
        quantity: Which number.
        row: The model.
    """
    mean = quantity.over(row.runs).mean
    return (
        ()
        if not math.isfinite(mean)
        else tuple(mean - value for value in quantity.published_values(row.recipe))
    )


def _is_published(quantity: Quantity, panel: PanelResult) -> bool:
    return any(quantity.published_values(row.recipe) for row in panel.rows)


def _cells(row: RowResult, quantities: Sequence[Quantity], compared: Sequence[Quantity]) -> tuple[str, ...]:
    # That a model was not run is said once.
    first = quantities[0]
    ours = {
        quantity: show_value(quantity, row) if row.counted or quantity == first else NOTHING
        for quantity in quantities
    }
    beside = {
        quantity: (
            quantity.show_published(row.recipe),
            "\n".join(show_difference(value, quantity.digits) for value in differences(quantity, row))
            or NOTHING,
        )
        for quantity in compared
    }
    return _line(row.label, row.show_seeds(), ours, beside, row.show_epochs(), quantities, compared)


def _line(
    name: str,
    seeds: str,
    ours: dict[Quantity, str],
    beside: dict[Quantity, tuple[str, str]],
    epochs: str,
    quantities: Sequence[Quantity],
    compared: Sequence[Quantity],
) -> tuple[str, ...]:
    cells = [name, seeds]
    for quantity in quantities:
        cells.append(ours.get(quantity, NOTHING))
        if quantity in compared:
            cells.extend(beside.get(quantity, (NOTHING, NOTHING)))
    return (*cells, epochs)


def _notes(panel: PanelResult, quantities: Sequence[Quantity], published: bool = True) -> list[str]:
    have = [len(row.counted) for row in panel.rows if row.counted]
    over = f"Mean ± sample standard deviation over {show_range(have)} seed(s). " if have else ""
    notes = [over + " ".join(quantity.meaning for quantity in quantities)]
    if any(row.provisional for row in panel.rows):
        notes.append(
            f"{UNFINISHED} No run of the model is finished: the numbers are of the epochs there are so far."
        )
    if any(not run.finished for row in panel.rows if not row.provisional for run in row.runs):
        notes.append("Unfinished runs beside finished ones do not count.")
    if not published:
        return notes
    sources: dict[str, list[str]] = {}
    for row in panel.rows:
        if row.recipe.published.values() and row.recipe.published.source:
            sources.setdefault(row.recipe.published.source, []).append(row.label)
    if len(sources) == 1:
        notes.append(f"The paper's numbers: {next(iter(sources))}.")
    elif sources:
        told = "; ".join(f"{source} ({', '.join(labels)})" for source, labels in sources.items())
        notes.append(f"The paper's numbers: {told}.")
    if any(len(quantity.published_values(row.recipe)) > 1 for quantity in quantities for row in panel.rows):
        notes.append("Where the paper quotes two sources, the difference to each is shown, in their order.")
    return notes
