"""A table as text cells, on the terminal and in Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

# An underscore within a word is none to Markdown either.
MEANT_OTHERWISE = re.compile(r"[\\`*<\[\]|~&]|(?<!\w)_|_(?!\w)")


@dataclass(frozen=True)
class Table:
    """Text in rows and columns. A line break in a heading or a cell begins a new line in it.

    Attributes:
        title: Above the table.
        headings: One a column; the first column is of names, the others of numbers.
        rows: The cells.
        notes: Below the table, a sentence or more each.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def print_table(table: Table, console: Console) -> None:
    """Print a table.

    Where the terminal is too narrow for it, names and headings are broken between words; numbers never are,
    and where that does not suffice, lines are longer than the terminal.

    Args:
        table: Any.
        console: The terminal.
    """
    least = [_least_width(column) for column in zip(table.headings, *table.rows, strict=True)]
    least[0] = max(len(word) for cells in (table.headings, *table.rows) for word in cells[0].split() or [""])
    narrow = sum(least) + len(least) > console.width
    shown = RichTable(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        width=sum(least) + len(least) if narrow else None,
    )
    for index, heading in enumerate(table.headings):
        justify: Literal["right", "left"] = "right" if index else "left"
        shown.add_column(Text(heading), justify=justify, min_width=least[index])
    for cells in table.rows:
        shown.add_row(*map(Text, cells))
    if table.title:
        console.print(table.title, style="bold", highlight=False, markup=False)
    console.print(shown, crop=False)
    for note in table.notes:
        console.print(note, highlight=False, markup=False)


def to_markdown(table: Table, level: int = 1) -> str:
    """A table as Markdown, which shows every text as it is.

    Args:
        table: Any.
        level: Of its heading.
    """
    lines = [f"{'#' * level} {escape_markdown(table.title)}", ""] if table.title else []
    headings = [escape_markdown(heading.strip()) for heading in table.headings]
    lines.append(f"| {' | '.join(headings)} |")
    lines.append("|---|" + "---:|" * (len(headings) - 1))
    lines.extend(
        f"| {' | '.join(escape_markdown(cell.replace(chr(10), ', ')) for cell in cells)} |"
        for cells in table.rows
    )
    for note in table.notes:
        lines.extend(["", escape_markdown(note)])
    return "\n".join(lines) + "\n"


def escape_markdown(text: str) -> str:
    r"""Text that Markdown shows as it is, in a table or outside; a line break becomes a space.

    Args:
        text: Such as the name of a folder, which may hold what ends a cell or begins emphasis, code or HTML.

    >>> print(escape_markdown("a|b of <step_size>, _c_"))
    a\|b of \<step_size>, \_c\_
    """
    return MEANT_OTHERWISE.sub(r"\\\g<0>", text.replace("\n", " "))


def _least_width(column: Sequence[str]) -> int:
    heading, *cells = column
    unbroken = [*heading.split(), *(line for cell in cells for line in cell.split("\n"))]
    return max(map(len, unbroken), default=0)
