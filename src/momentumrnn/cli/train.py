"""``momentumrnn train``: one recipe."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from momentumrnn.cli.main import EXPECTED
from momentumrnn.cli.terminal import make_console, say
from momentumrnn.tasks import Baseline
from momentumrnn.tasks.contract import ACCURACY
from momentumrnn.training import RunResult, load_recipe, train
from momentumrnn.training.history import best_test_epoch, best_validation_epoch
from momentumrnn.training.processes import leads
from momentumrnn.training.progress import Bars, Lines, Progress


@contextmanager
def shown(console: Console) -> Iterator[Progress]:
    """Bars on a terminal, plain lines elsewhere.

    Args:
        console: Where to.
    """
    if not console.is_terminal:
        # Not print: a process that is spawned has none of this one's streams.
        yield Lines(say)
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
    devices: int,
    nodes: int,
    strategy: str,
    threads: int | None,
) -> None:
    """Carry out one recipe and say what came of it.

    Args:
        name: An installed recipe or a file.
        assignments: Values of the recipe to change.
        out: The run folder.
        data: The data folder.
        device: Where to run.
        devices: How many of them.
        nodes: On how many machines.
        strategy: How their processes are started.
        threads: How many CPU threads each of them uses.
    """
    recipe = load_recipe(name).override(assignments)
    folder = out or Path("runs") / Path(name).stem
    # Bars cannot be handed on to a process that tells how it goes in the place of this one.
    console = make_console(force_terminal=False if strategy in ("ddp_spawn", "ddp_fork") else None)
    with shown(console) as progress, _heard_once():
        result = train(
            recipe,
            folder,
            data=data,
            device=device,
            threads=threads,
            progress=progress,
            devices=devices,
            nodes=nodes,
            strategy=strategy,
        )
    if not leads():
        return
    if result.already_finished:
        print(f"{folder} holds this run, finished; nothing was done")
    for line in outcome(result, recipe.task().baseline("training", recipe.sampling(), len(result.history))):
        print(line)


@contextmanager
def _heard_once() -> Iterator[None]:
    """Let the first of several processes alone say why a run ended."""
    try:
        yield
    except (*EXPECTED, KeyboardInterrupt):
        if leads():
            raise
        # All know of it; a code other than 0 would have Fabric kill the first one before it has said it.
        sys.exit(0)


def outcome(result: RunResult, baseline: Baseline | None = None) -> list[str]:
    """What both protocols make of a run.

    Args:
        result: The run.
        baseline: What can be had without learning on the sequences of the last epoch.
    """
    lines = []
    honest, best = best_validation_epoch(result.history), best_test_epoch(result.history)
    if honest is not None and honest.validation_metric is not None:
        metric = honest.metric
        lines.append(
            f"test {metric.name} {metric.show(honest.test_metric)} at the best validation epoch, "
            f"{honest.epoch} (validation {metric.show(honest.validation_metric)})"
        )
    if best is not None:
        metric = best.metric
        # Elsewhere the paper reports the test at the best validation epoch, or the loss of training.
        also = ", as the paper reports" if metric == ACCURACY else ""
        lines.append(
            f"best test {metric.name} over epochs {metric.show(best.test_metric)}, in epoch {best.epoch} "
            f"(chosen by the test set itself{also})"
        )
    if baseline is not None and result.history:
        last = result.history[-1].train_loss
        lines.append(
            f"training loss of the last epoch {last:.4f}; {baseline.name} costs {baseline.value:.4f}"
        )
    return [*lines, f"everything is in {result.folder}"]
