"""The commands; what they need is imported when they run, so that ``--help`` is quick."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

Overrides = Annotated[
    tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]],
    tyro.conf.arg(
        name="set",
        metavar="KEY=VALUE",
        help="Change values of the recipe, such as model.hidden_size=128 training.epochs=1.",
    ),
]
Out = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")]
DataFolder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")]
Threads = Annotated[int | None, tyro.conf.arg(metavar="N")]
Device = Literal["auto", "cpu", "cuda"]
Count = Annotated[int, tyro.conf.arg(metavar="N")]


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

    assignments = [assignment for group in overrides for assignment in group]
    train_one(
        recipe,
        assignments,
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

    assignments = [assignment for group in overrides for assignment in group]
    compare("digits", seeds, assignments, out=out, device=device, threads=threads)


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

    assignments = [assignment for group in overrides for assignment in group]
    varied = [text for group in over for text in group]
    definition = planned_sweep(recipe, varied, assignments, sampler=sampler, seeds=seeds, prune=prune)
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
        overrides=tuple(assignment for group in overrides for assignment in group),
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


def report(
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUNS…")],
    *,
    experiment: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME…")] = (),
    out: Out = None,
    formats: Annotated[
        tuple[Literal["markdown", "csv", "json", "latex", "png", "svg", "html"], ...],
        tyro.conf.arg(metavar="FORMAT…"),
    ] = ("markdown", "csv", "json", "latex", "png", "svg", "html"),
) -> None:
    """Put runs beside the paper's numbers: tables, plots, and a page that holds them all.

    Args:
        runs: Run folders, or folders that hold some, such as that of momentumrnn reproduce.
        experiment: Only these tables and figures, such as table1 fig3, or all, whether they were run or not.
        out: Where it goes; report beside the runs where absent.
        formats: As what: markdown, csv, json, latex, png, svg, html; all where absent.
    """
    from momentumrnn.cli.report import report as make

    make(runs, experiment, out, formats)


def bench(
    *,
    shapes: Annotated[str | None, tyro.conf.arg(metavar="TxBxdxh,…")] = None,
    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = (),
    repeats: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    quick: bool = False,
    sweep: bool = False,
    reference: bool = False,
    memory: bool = True,
    isa: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None,
    device: Literal["cpu", "cuda"] = "cpu",
    precision: tuple[Literal["float32", "tf32", "bfloat16"], ...] = (),
    threads: Threads = None,
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")] = Path("bench"),
) -> None:
    """Measure speed and memory beside torch.nn.

    Args:
        shapes: Time steps, sequences, features and hidden units, such as 784x128x1x128,64x64x1x128.
        models: Such as MomentumLSTM SRLSTM GRU reference-loop torchrecurrent; the usual ones where absent.
        repeats: How many turns each takes; 11 where absent, 3 with --quick.
        quick: Small shapes, few turns and no memory, to see in seconds that it works.
        sweep: Measure along T, B and h instead.
        reference: Time Python loops over time at long shapes, too.
        memory: Measure peak memory, each model in a process of its own.
        isa: Hold the C++ kernels to an instruction set, such as avx2.
        device: Where to run.
        precision: What to compute in, bfloat16 by autocast; float32 where absent, all three on cuda.
        threads: How many CPU threads to use.
        out: Where tables and plots go.
    """
    from momentumrnn.cli.bench import bench as measure
    from momentumrnn.cli.benchmarking.options import check_options

    options = check_options(
        shapes=shapes,
        models=models,
        repeats=repeats,
        quick=quick,
        sweep=sweep,
        reference=reference,
        memory=memory,
        isa=isa,
        device=device,
        threads=threads,
        precisions=precision,
    )
    measure(options, out)


def generate(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    *,
    words: Annotated[int, tyro.conf.arg(metavar="N")] = 100,
    prompt: Annotated[str, tyro.conf.arg(metavar="TEXT")] = "",
    temperature: Annotated[float, tyro.conf.arg(metavar="T")] = 1.0,
    seed: Annotated[int, tyro.conf.arg(metavar="N")] = 0,
) -> None:
    """Draw text from a language model, with the weights of its best epoch.

    Args:
        run: The folder of a run on text, such as runs/ptb-small-lstm-200.
        words: How many words to draw, ends of lines included.
        prompt: Words that the text begins with; they must be in the vocabulary.
        temperature: Below 1 the likely words become likelier.
        seed: Another one gives another text.
    """
    from momentumrnn.cli.generate import generate as draw

    draw(run, words=words, prompt=prompt, temperature=temperature, seed=seed)


def data_list(*, data_folder: DataFolder = None) -> None:
    """Say which datasets there are, and which of them are here.

    Args:
        data_folder: Where datasets are; MOMENTUMRNN_DATA, then the user's cache where absent.
    """
    from momentumrnn.cli.data import list_datasets

    list_datasets(data_folder)


def data_fetch(
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    *,
    data_folder: DataFolder = None,
) -> None:
    """Download a dataset and compare its checksums.

    Args:
        name: One of `momentumrnn data list`.
        data_folder: Where datasets are; MOMENTUMRNN_DATA, then the user's cache where absent.
    """
    from momentumrnn.cli.data import fetch_dataset

    fetch_dataset(name, data_folder)


def data_check(
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    *,
    data_folder: DataFolder = None,
) -> None:
    """Read a dataset whole and compare its checksums.

    Args:
        name: One of `momentumrnn data list`.
        data_folder: Where datasets are; MOMENTUMRNN_DATA, then the user's cache where absent.
    """
    from momentumrnn.cli.data import check_dataset

    check_dataset(name, data_folder)


def run_command(words: Sequence[str]) -> None:
    """Run the command that the words name.

    Args:
        words: The words after ``momentumrnn``.
    """
    compare, data, app = (tyro.extras.SubcommandApp() for _ in range(3))
    compare.command(name="digits")(compare_digits)
    data.command(name="list")(data_list)
    data.command(name="fetch")(data_fetch)
    data.command(name="check")(data_check)
    app.command(name="train")(train)
    app.command(compare, name="compare", help="Train several models alike, and compare them.")
    app.command(name="reproduce")(reproduce)
    app.command(name="report")(report)
    app.command(name="sweep")(sweep)
    app.command(name="generate")(generate)
    app.command(name="bench")(bench)
    app.command(data, name="data", help="List, fetch and check datasets.")
    app.cli(
        prog="momentumrnn",
        description="Recurrent networks with momentum: train, compare, reproduce, report, measure.",
        args=list(words),
    )
