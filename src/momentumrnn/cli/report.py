"""``momentumrnn report``: runs beside the paper's numbers."""

import sys
from collections.abc import Sequence
from pathlib import Path

from momentumrnn.cli.terminal import make_console
from momentumrnn.results import build_report, default_out, find_runs, make_folder, print_table, write_report
from momentumrnn.results.write import Format
from momentumrnn.training.experiments import expand_names


def report(
    runs: Sequence[Path], experiments: Sequence[str], out: Path | None, formats: Sequence[Format]
) -> None:
    """Print the tables; write everything.

    Args:
        runs: Run folders, or folders that hold some.
        experiments: Names of tables and figures, where only these are wanted.
        out: Where to; beside the runs where absent.
        formats: As what.

    Raises:
        RecipeError: There is no such table or figure.
        CheckpointError: There is no run, or the folder cannot be made.
    """
    names = expand_names(experiments)
    found = find_runs(runs)
    folder = out if out is not None else default_out(runs)
    make_folder(folder)
    made = build_report(found, names)
    # Before they are printed, into what may be closed before the end.
    files = write_report(made, folder, formats)
    console = make_console()
    for section in made.sections:
        for part in section.parts:
            for table in part.tables:
                print_table(table, console)
                console.print()
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for file in files:
        print(f"wrote {file}")
