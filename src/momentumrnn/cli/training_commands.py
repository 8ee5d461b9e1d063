"""The commands that train; what they need is imported when they run, so that ``--help`` is quick."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from momentumrnn.cli.arguments import Count, DataFolder, Device, Out, Overrides, Threads, joined


def train(
    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")],
    *,
    overrides: Overrides = (),
    out: Out = None,
    data_folder: DataFolder = None,
    device: Device = "auto",
    devices: Count = 1,
    nodes: Count = 1,
    strategy: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto",
    threads: Threads = None,
) -> None:
    """Carry out one recipe; the same command again goes on where it stopped.

    Args:
        recipe: The name of an installed recipe, such as digits-momentum-lstm, or a TOML file.
        overrides: Values of the recipe to change.
        out: The run folder; runs/RECIPE where absent.
        data_folder: Where datasets are; MOMENTUMRNN_DATA, then the user's cache where absent.
        device: Where to run; auto takes a GPU where there is one.
        devices: How many devices of a machine share every batch, each with a process of its own.
        nodes: On how many machines; this command is then started on every one, by torchrun for instance.
        strategy: How Lightning Fabric starts processes; auto, ddp, ddp_spawn or ddp_fork.
        threads: How many CPU threads each process uses.
    """
    from momentumrnn.cli.train import train_one

    train_one(
        recipe,
        joined(overrides),
        out=out,
        data=data_folder,
        device=device,
        devices=devices,
        nodes=nodes,
        strategy=strategy,
        threads=threads,
    )


def compare_digits(
    *,
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 3,
    overrides: Overrides = (),
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs/compare-digits"),
    device: Device = "auto",
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 1,
) -> None:
    """Train five LSTMs, with and without momentum, on handwritten digits, and compare them.

    Args:
        seeds: How many seeds each is trained with.
        overrides: Values to change in all five recipes.
        out: Where runs, table and plot go; finished runs in it are kept.
        device: Where to run; auto takes a GPU where there is one.
        threads: How many CPU threads to use; models as small as these are quickest on one.
    """
    from momentumrnn.cli.compare import compare

    compare("digits", seeds, joined(overrides), out=out, device=device, threads=threads)


def sweep(
    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")],
    *,
    over: Annotated[
        tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]], tyro.conf.arg(metavar="KEY=VALUES")
    ] = (),
    trials: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    minutes: Annotated[float | None, tyro.conf.arg(metavar="N")] = None,
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 1,
    sampler: Literal["tpe", "random", "grid"] = "tpe",
    prune: bool = False,
    overrides: Overrides = (),
    out: Out = None,
    data_folder: DataFolder = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Try out values of a recipe, judged by validation; the same command again goes on.

    Args:
        recipe: The name of an installed recipe, such as digits-momentum-lstm, or a TOML file.
        over: What to vary: KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=a,b,c, such as rule.momentum=0:0.99.
        trials: How many values to try; 20 where absent, the whole grid with --sampler grid.
        minutes: Stop after so many; what is begun is kept, and gone on with by the same command.
        seeds: How many seeds each trial is trained with; their mean counts.
        sampler: Who says what is tried next.
        prune: Stop trials that are worse than the median of those before them.
        overrides: Values of the recipe to change in every trial.
        out: The folder of the sweep; runs/sweep-RECIPE where absent.
        data_folder: Where datasets are; MOMENTUMRNN_DATA, then the user's cache where absent.
        device: Where to run; auto takes a GPU where there is one.
        threads: How many CPU threads to use.
    """
    from momentumrnn.cli.sweep import planned_sweep
    from momentumrnn.cli.sweep import sweep as carry_out

    assignments = joined(overrides)
    definition = planned_sweep(recipe, joined(over), assignments, sampler=sampler, seeds=seeds, prune=prune)
    carry_out(
        recipe,
        definition,
        trials,
        assignments=assignments,
        minutes=minutes,
        out=out,
        data=data_folder,
        device=device,
        threads=threads,
    )


def reproduce(
    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME")] = (),
    *,
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TEXT")] = (),
    seeds: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    minutes: Annotated[float | None, tyro.conf.arg(metavar="N")] = None,
    overrides: Overrides = (),
    smoke: bool = False,
    plan: bool = False,
    jobs: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    executor: Literal["local", "ray"] = "local",
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("runs/reproduce"),
    data_folder: DataFolder = None,
    device: Device = "auto",
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 1,
) -> None:
    """Make tables and figures of the paper, row by row; the same command again goes on.

    Args:
        names: table1 to table5, fig2 to fig6, cost, response; all for all of them; small for small ones.
        only: Only rows whose name holds one of these, such as mnist-lstm.
        seeds: How many seeds each row is run with; 5 where absent, 1 with --smoke.
        minutes: Stop after so many minutes, with checkpoints.
        overrides: Values to change in every recipe.
        smoke: Shrink every run to seconds, to see that it works.
        plan: Show what is done, what is left and how long that takes, and stop there.
        jobs: How many runs at once; chosen by cores, threads and memory where absent.
        executor: Where to run; ray takes a Ray cluster.
        out: Where runs, tables and plots go; finished runs in it are kept.
        data_folder: Where datasets are; MOMENTUMRNN_DATA, then the user's cache where absent.
        device: Where to run; auto takes a GPU where there is one.
        threads: How many CPU threads each run uses.
    """
    from momentumrnn.cli.reproduce import reproduce as make
    from momentumrnn.cli.reproducing.options import check_options

    options = check_options(
        names=names,
        only=only,
        seeds=seeds,
        minutes=minutes,
        overrides=tuple(joined(overrides)),
        smoke=smoke,
        plan_only=plan,
        jobs=jobs,
        executor=executor,
        out=out,
        data=data_folder,
        device=device,
        threads=threads,
    )
    make(options)
