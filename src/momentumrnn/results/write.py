"""A report as files."""

import datetime
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import momentumrnn
from momentumrnn.errors import CheckpointError
from momentumrnn.results.latex import to_latex
from momentumrnn.results.page import to_page
from momentumrnn.results.plots import FORMATS
from momentumrnn.results.records import to_csv, to_json, to_records
from momentumrnn.results.report import Report
from momentumrnn.results.table import Table, escape_markdown, to_markdown
from momentumrnn.training.files import write_atomically

Format = Literal["markdown", "csv", "json", "latex", "png", "svg", "html"]
ALL: tuple[Format, ...] = get_args(Format)
PLOTS = "plots"


def check_folder(folder: Path) -> None:
    """Refuse a place that is no folder and can become none, without making one.

    Args:
        folder: Where something is to go, or may.

    Raises:
        CheckpointError: A file is there, or above it.
    """
    present = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if present is not None and not present.is_dir():
        raise CheckpointError(
            f"--out {folder}: expected a folder, or a place for one, got the file {present}; name another"
        )


def make_folder(folder: Path) -> None:
    """Make the folder of a report, before any work is done for it.

    Args:
        folder: Where it goes.

    Raises:
        CheckpointError: It cannot be made, or not written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"--out {folder}: expected a folder, or a place for one, got {error.strerror}; name another"
        ) from error
    if not os.access(folder, os.W_OK):
        raise CheckpointError(f"--out {folder}: nothing can be written there; name another folder")


def write_report(report: Report, folder: Path, formats: Sequence[Format] = ALL) -> list[Path]:
    """Write a report.

    Args:
        report: What is written.
        folder: Where to; it exists.
        formats: As what.

    Returns:
        The files.
    """
    about = {
        "report made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "with momentumrnn": momentumrnn.__version__,
    }
    tables = [table for section in report.sections for part in section.parts for table in part.tables]
    files = {}
    if "markdown" in formats:
        files["tables.md"] = _markdown(report, about, pictures="png" in formats)
    if "csv" in formats:
        files["results.csv"] = to_csv(to_records(report))
    if "json" in formats:
        files["results.json"] = to_json(report, about)
    if "latex" in formats:
        files["tables.tex"] = to_latex(tables)
    if "html" in formats:
        files["report.html"] = to_page(report, about)
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [*(folder / name for name in files), *_write_plots(report, folder / PLOTS, formats)]


def _write_plots(report: Report, folder: Path, formats: Sequence[Format]) -> list[Path]:
    wanted = [suffix for suffix in FORMATS if suffix in formats]
    drawings = [drawing for section in report.sections for part in section.parts for drawing in part.drawings]
    if not wanted or not drawings:
        return []
    folder.mkdir(exist_ok=True)
    files: list[Path] = []
    for drawing in drawings:
        for suffix in drawing.formats:
            if suffix in wanted:
                files.append(folder / f"{drawing.name}.{suffix}")
                write_atomically(files[-1], drawing.content(suffix))
    return files


def _markdown(report: Report, about: dict[str, str], pictures: bool) -> str:
    lines = ["# Runs beside the paper's numbers", ""]
    lines.append(f"{', '.join(f'{key} {value}' for key, value in about.items())}.")
    if report.warnings:
        lines.extend(
            ["", "**Warnings**", "", *(f"- {escape_markdown(warning)}" for warning in report.warnings)]
        )
    for section in report.sections:
        lines.extend(["", f"## {escape_markdown(section.title)}"])
        for part in section.parts:
            lines.extend(["", f"### {escape_markdown(part.title)}"])
            for table in part.tables:
                lines.extend(["", to_markdown(_untitled(table)).rstrip("\n")])
            if pictures:
                lines.extend(
                    line
                    for drawing in part.drawings
                    for line in ("", f"![{escape_markdown(drawing.text)}]({PLOTS}/{drawing.name}.png)")
                )
    return "\n".join(lines) + "\n"


def _untitled(table: Table) -> Table:
    return Table("", table.headings, table.rows, table.notes)
