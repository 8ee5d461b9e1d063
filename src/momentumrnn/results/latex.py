"""Tables for a paper in LaTeX."""

import re
from collections.abc import Sequence

from momentumrnn.results.table import Table

PREAMBLE = "% Needs \\usepackage{booktabs}.\n"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "μ": r"$\mu$",
    "β": r"$\beta$",
    "²": "$^2$",
    "\xa0": "~",
}


def to_latex(tables: Sequence[Table]) -> str:
    r"""Tables as floats, to be read into a document with ``\input``.

    Args:
        tables: Any.
    """
    return PREAMBLE + "".join(f"\n{_float(table)}" for table in tables)


def escape_latex(text: str) -> str:
    r"""Text that LaTeX prints as it is; what its usual fonts do not have becomes a question mark.

    Args:
        text: In a line.

    >>> print(escape_latex("50 % of step_size ± 1.2e-04"))
    50 \% of step\_size $\pm$ $1.2\times10^{-4}$
    """
    parts = re.split(r"(\d\.\de[-+]\d+)", text)
    return "".join(_power(part) if index % 2 else _escape(part) for index, part in enumerate(parts))


def _escape(text: str) -> str:
    escaped = (SPECIAL.get(character, character) for character in text)
    # Latin 1 is what every engine has with its default fonts.
    return "".join(each if len(each) > 1 or ord(each) < 256 else "?" for each in escaped)


def _power(number: str) -> str:
    mantissa, exponent = number.split("e")
    return f"${mantissa}\\times10^{{{int(exponent)}}}$"


def _float(table: Table) -> str:
    columns = "l" + "r" * (len(table.headings) - 1)
    headings = " & ".join(_heading(heading) for heading in table.headings)
    rows = "\n".join(
        # A row that begins with a bracket would be taken for an argument of the line break before it.
        "{}" + " & ".join(escape_latex(cell.replace("\n", ", ")) for cell in cells) + r" \\"
        for cells in table.rows
    )
    notes = "".join(f"\\par\\smallskip\\footnotesize {escape_latex(note)}\n" for note in table.notes)
    return (
        "\\begin{table}[htbp]\n\\centering\\small\n\\setlength{\\tabcolsep}{4pt}\n"
        f"\\caption{{{escape_latex(table.title)}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{headings} \\\\\n\\midrule\n{rows}\n"
        f"\\bottomrule\n\\end{{tabular}}\n{notes}\\end{{table}}\n"
    )


def _heading(text: str) -> str:
    lines = [escape_latex(line) for line in text.split("\n")]
    return lines[0] if len(lines) == 1 else r"\shortstack{" + r"\\".join(lines) + "}"
