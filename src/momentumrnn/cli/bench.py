"""``momentumrnn bench``: speed and memory beside ``torch.nn``."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from momentumrnn.cli.benchmarking.errors import BenchmarkError
from momentumrnn.cli.benchmarking.instruction_sets import held_to
from momentumrnn.cli.benchmarking.machine import describe_machine
from momentumrnn.cli.benchmarking.measurement import Measurement, to_frame, without_repetition
from momentumrnn.cli.benchmarking.options import Options
from momentumrnn.cli.benchmarking.plots import write_plots
from momentumrnn.cli.benchmarking.progress import Watcher
from momentumrnn.cli.benchmarking.report import notes, to_page
from momentumrnn.cli.benchmarking.table import print_tables, shows_quartiles
from momentumrnn.cli.benchmarking.tasks import planned_tasks
from momentumrnn.cli.terminal import make_console
from momentumrnn.results import make_folder
from momentumrnn.training.files import write_atomically
from momentumrnn.training.launch import check_threads


def bench(options: Options, out: Path) -> None:
    """Measure, print and write.

    Args:
        options: What is measured.
        out: Where tables and plots go.

    Raises:
        BackendError: There are too many threads.
        BenchmarkError: The kernels cannot be held to that instruction set, or no model can be measured.
        CheckpointError: The folder cannot be made, or not written into.
        KeyboardInterrupt: Ctrl-C; what was measured until then was written before.
    """
    check_threads(options.threads)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    console = make_console()
    measured: list[Measurement] = []
    with held_to(options.isa):
        machine = describe_machine(options.device)
        tasks = planned_tasks(options)
        if not tasks:
            raise BenchmarkError(f"nothing to measure; {'; '.join(notes([], options))}")
        make_folder(out)
        try:
            with Watcher(tasks, console) as watcher:
                for task in tasks:
                    measured += task.run(watcher.begin(task))
        except BaseException as error:
            # Hours of measuring are kept also when memory runs out in the last part.
            files = report(measured, options, machine, out, console)
            if isinstance(error, KeyboardInterrupt):
                told = f"what was measured before is in {out}" if files else "nothing was measured yet"
                raise KeyboardInterrupt(told) from error
            raise
    for file in report(measured, options, machine, out, console):
        print(f"wrote {file}")


def report(
    measured: Sequence[Measurement],
    options: Options,
    machine: dict[str, str],
    out: Path,
    console: Console,
) -> list[Path]:
    """Print the tables; write them, and the plots.

    Args:
        measured: What was measured.
        options: What was asked for.
        machine: On what it was measured.
        out: Where to.
        console: The terminal.

    Returns:
        The files written.
    """
    if not measured:
        return []
    rows = without_repetition(measured)
    name = "sweep" if options.sweeps else "results"
    files = [out / f"{name}.md", out / f"{name}.csv"]
    write_atomically(files[0], to_page(rows, options, machine))
    write_atomically(files[1], to_frame(rows).to_csv(index=False, lineterminator="\n"))
    files += write_plots(rows, out)
    print_tables(rows, options.contestants, console)
    if shows_quartiles(rows, console):
        told = "in brackets: the quartiles of the ratios over the rounds"
    else:
        told = f"the quartiles of the ratios are in {files[0]}"
    console.print(told, highlight=False)
    for note in notes(rows, options):
        console.print(note, highlight=False, markup=False)
    return files
