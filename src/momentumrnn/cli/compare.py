"""``momentumrnn compare``: several models, trained alike, side by side."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from momentumrnn.cli.terminal import make_console, say
from momentumrnn.errors import RecipeError
from momentumrnn.results import (
    plot_convergence,
    print_table,
    read_runs,
    summarise,
    summary_table,
    to_markdown,
)
from momentumrnn.results.runs import show_data
from momentumrnn.training import Recipe, load_recipe, train
from momentumrnn.training.files import write_atomically
from momentumrnn.training.plan import refuse_seed
from momentumrnn.training.progress import Bars, Lines, Progress

MODELS = ("lstm", "momentum-lstm", "adam-lstm", "rmsprop-lstm", "sr-lstm")


def planned_runs(dataset: str, seeds: int, assignments: Sequence[str]) -> dict[str, Recipe]:
    """What is compared.

    Args:
        dataset: The first part of the recipes' names.
        seeds: How many, from 0.
        assignments: Values to change in every recipe.

    Returns:
        Name of the run's folder → recipe, in the order of training: a seed of every model, then the next.

    Raises:
        RecipeError: A change that not every recipe can take.
    """
    if seeds < 1:
        raise RecipeError(f"--seeds: expected 1 or more, got {seeds}")
    refuse_seed(assignments)
    return {
        f"{dataset}-{model}-seed-{seed}": load_recipe(f"{dataset}-{model}").override(
            [*assignments, f"training.seed={seed}"]
        )
        for seed in range(seeds)
        for model in MODELS
    }


def compare(
    dataset: str, seeds: int, assignments: Sequence[str], *, out: Path, device: str, threads: int | None
) -> None:
    """Train, or go on training, and report.

    Args:
        dataset: The first part of the recipes' names.
        seeds: How many.
        assignments: Values to change in every recipe.
        out: Where runs, table and plot go.
        device: Where to run.
        threads: How many CPU threads to use.
    """
    plan = planned_runs(dataset, seeds, assignments)
    console, began, reused = make_console(), time.monotonic(), 0
    with ExitStack() as stack:
        progress: Progress = Lines(say)
        run_done: Callable[[], None] | None = None
        if console.is_terminal:
            bars = stack.enter_context(Bars(console, len(plan)))
            progress, run_done = bars, bars.run_done
        for name, recipe in plan.items():
            result = train(recipe, out / name, device=device, threads=threads, progress=progress)
            reused += result.already_finished
            if run_done is not None:
                run_done()
    minutes = (time.monotonic() - began) / 60
    if reused:
        print(f"{reused} of {len(plan)} runs were finished before and are reused")
    for file in report([out / name for name in plan], out, console):
        print(f"wrote {file}")
    print(f"trained for {minutes:.1f} minutes")


def report(folders: Sequence[Path], out: Path, console: Console) -> list[Path]:
    """Print the table; write it, and the plot.

    Args:
        folders: The run folders, all of one dataset.
        out: Where to.
        console: The terminal.

    Returns:
        The files written.
    """
    runs = read_runs(folders)
    summary = summarise(runs)
    # Not by the recipes' names: a change may have given them other data.
    title = f"LSTMs on {show_data(runs[0].recipe.data)}"
    table = summary_table(summary, title)
    files = [out / "table.md", out / "results.csv"]
    write_atomically(files[0], to_markdown(table))
    write_atomically(files[1], summary.to_csv(index=False, lineterminator="\n"))
    files += plot_convergence(runs, title, out / "convergence")
    print_table(table, console)
    return files
