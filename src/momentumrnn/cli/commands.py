"""The commands, and those of them that train nothing; what they need is imported when they run."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from momentumrnn.cli.arguments import PATHS, DataFolder, Out, Threads
from momentumrnn.cli.terminal import coloured_streams
from momentumrnn.cli.training_commands import compare_digits, reproduce, sweep, train


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
        models: Such as MomentumLSTM SRLSTM GRU reference-loop torchrecurrent; on cuda also flashrnn; the
            usual ones where absent.
        repeats: How many turns each takes; 11 where absent, 3 with --quick.
        quick: Small shapes, few turns and no memory, to see in seconds that it works.
        sweep: Measure along T, B and h instead.
        reference: Time Python loops over time at long shapes, too.
        memory: Measure peak memory, each model in a process of its own; not of quick and swept shapes.
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


def recipes(word: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORD")] = "") -> None:
    """List the installed recipes, one per line: name, model, data, and the tables and figures they belong to.

    Args:
        word: Only recipes whose line contains it, such as adding or table1; all where absent.
    """
    from momentumrnn.cli.recipes import list_recipes

    list_recipes(word)


def run_command(words: Sequence[str]) -> None:
    """Run the command that the words name.

    Args:
        words: The words after ``momentumrnn``.
    """
    compare, data, app = (tyro.extras.SubcommandApp() for _ in range(3))
    compare.command(name="digits")(_parsed(compare_digits))
    data.command(name="list")(_parsed(data_list))
    data.command(name="fetch")(_parsed(data_fetch))
    data.command(name="check")(_parsed(data_check))
    app.command(name="train")(_parsed(train))
    app.command(compare, name="compare", help="Train several models alike, and compare them.")
    app.command(name="recipes")(_parsed(recipes))
    app.command(name="reproduce")(_parsed(reproduce))
    app.command(name="report")(_parsed(report))
    app.command(name="sweep")(_parsed(sweep))
    app.command(name="generate")(_parsed(generate))
    app.command(name="bench")(_parsed(bench))
    app.command(data, name="data", help="List, fetch and check datasets.")
    with coloured_streams(words):
        command = app.cli(
            prog="momentumrnn",
            description="Recurrent networks with momentum: train, compare, reproduce, report, measure.",
            args=list(words),
            registry=PATHS,
        )
    command()


def _parsed(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """A function of the same signature that returns the call, to be made after the words are parsed."""

    @functools.wraps(command)
    def call_later(*given: Any, **more: Any) -> Callable[[], None]:
        return functools.partial(command, *given, **more)

    return call_later
