"""``momentumrnn train``: one recipe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from momentumrnn.training import RunResult, load_recipe, train
from momentumrnn.training.history import best_test_epoch, best_validation_epoch
from momentumrnn.training.progress import Bars, Lines, Progress


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """Bars on a terminal, plain lines elsewhere.

    Args:
        console: Where to.
    """
    if not console.is_terminal:
        yield Lines()
        return
    with Bars(console) as bars:
        yield bars


def train_one(
    name: str,
    assignments: Sequence[str],
    *,
    out: Path | None,
    data: Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Carry out one recipe and say what came of it.

    Args:
        name: An installed recipe or a file.
        assignments: Values of the recipe to change.
        out: The run folder.
        data: The data folder.
        device: Where to run.
        threads: How many CPU threads to use.
    """
    recipe = load_recipe(name).override(assignments)
    folder = out or Path("runs") / Path(name).stem
    console = Console()
    with shown(console) as progress:
        result = train(recipe, folder, data=data, device=device, threads=threads, progress=progress)
    if result.already_finished:
        print(f"{folder} holds this run, finished; nothing was done")
    for line in outcome(result):
        print(line)


def outcome(result: RunResult) -> list[str]:
    """What both protocols make of a run.

    Args:
        result: The run.
    """
    lines = []
    honest, best = best_validation_epoch(result.history), best_test_epoch(result.history)
    if honest is not None:
        lines.append(
            f"test accuracy {honest.test_accuracy:.2%} at the best validation epoch, {honest.epoch} "
            f"(validation {honest.validation_accuracy:.2%})"
        )
    if best is not None:
        lines.append(
            f"best test accuracy over epochs {best.test_accuracy:.2%}, in epoch {best.epoch} "
            "(chosen by the test set itself, as the paper reports)"
        )
    return [*lines, f"everything is in {result.folder}"]
