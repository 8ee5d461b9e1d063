"""How long a run takes: from its own epochs where there are some, else from a few steps, measured once."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from momentumrnn.cli.benchmarking.machine import processor
from momentumrnn.cli.reproducing.gradients import EVERY
from momentumrnn.cli.reproducing.jobs import Job, Outcome, Stop
from momentumrnn.cli.reproducing.local import LocalExecutor
from momentumrnn.cli.reproducing.options import Options
from momentumrnn.cli.reproducing.survey import Run, seconds_per_epoch
from momentumrnn.regular_files import read_regular
from momentumrnn.results.gradient_records import STEPS
from momentumrnn.results.write import make_folder
from momentumrnn.training.devices import choose_device
from momentumrnn.training.files import write_atomically
from momentumrnn.training.progress import duration
from momentumrnn.training.recipe import Recipe

FILE = "estimates.json"


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes:
        epoch_seconds: An epoch, evaluation included.
        step_seconds: A training step; 0 where not measured, like the next.
        bytes: The most memory that a step takes, beside the data.
    """

    epoch_seconds: float
    step_seconds: float = 0.0
    bytes: float = 0.0


def signature(recipe: Recipe, device: str, threads: int) -> str:
    """The same for recipes that take the same time: coefficients and seeds do not matter.

    Args:
        recipe: Which.
        device: Where.
        threads: Of the run.
    """
    parts = {
        "data": asdict(recipe.data),
        "model": asdict(recipe.model),
        "rule": sorted(recipe.rule_values()),
        "language": asdict(recipe.language),
        "optimizer": [recipe.optimizer.name, recipe.optimizer.orthogonal, recipe.optimizer.clip_norm is None],
        "batches": [
            recipe.training.batch_size,
            recipe.training.eval_batch_size,
            recipe.training.steps_per_epoch,
        ],
        "machine": torch.cuda.get_device_name() if device == "cuda" else f"{processor()} {threads}",
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def estimate(
    possible: Sequence[Run],
    runs: Sequence[Run],
    options: Options,
    stop: Stop,
    told: Callable[[str], None],
) -> dict[str, Estimate]:
    """What a run of each row takes, by the row's name; rows of unknown time are left out.

    A plan that is only shown is made of what is known: finished epochs, and what was measured before.

    Args:
        possible: Those that are to be made.
        runs: All; what they measured counts for their row.
        options: What was asked for.
        stop: Asked several times a second.
        told: Called before a row is measured.

    Raises:
        CheckpointError: What is measured could not be written down.
    """
    device = choose_device(options.device)
    path = options.out / FILE
    known = _read(path)
    rows = {run.row.name: run.recipe for run in possible}
    signatures = {name: signature(recipe, device, options.threads) for name, recipe in rows.items()}
    own = seconds_per_epoch(runs)
    wanted = {key: name for name, key in reversed(signatures.items()) if key not in known}
    wanted = {key: name for key, name in wanted.items() if name not in own}
    if wanted and not options.plan_only:
        make_folder(options.out)
        told(f"measuring a few steps of {len(wanted)} models, once")
        jobs = [
            Job(
                kind="measure",
                name=name,
                recipe=replace(rows[name], training=replace(rows[name].training, seed=0)),
                place=path,
                data=options.data,
                device=device,
                threads=options.threads,
            )
            for name in reversed(wanted.values())
        ]
        # One after the other: side by side they would disturb each other, and may not fit into memory.
        done = LocalExecutor(1).run(jobs, _Aloud(told, len(jobs)), stop)
        measured = {key: done[name] for key, name in wanted.items() if name in done}
        known |= {key: Estimate(**outcome.values) for key, outcome in measured.items() if outcome.values}
        write_atomically(path, json.dumps({key: asdict(value) for key, value in known.items()}, indent=2))
    found = {name: known[key] for name, key in signatures.items() if key in known}
    for name, seconds in own.items():
        found[name] = replace(found.get(name, Estimate(0.0)), epoch_seconds=seconds)
    return found


def seconds_left(run: Run, estimates: Mapping[str, Estimate]) -> float | None:
    """How long a run still takes; nothing where its row was not measured.

    Args:
        run: Which.
        estimates: From ``estimate``.
    """
    if run.standing == "done":
        return 0.0
    found = estimates.get(run.row.name)
    if found is None:
        return None
    if run.gradients:
        # A recording is about one more step.
        return found.step_seconds * STEPS * (1 + 1 / EVERY) or None
    return found.epoch_seconds * (run.recipe.training.epochs - len(run.history))


class _Aloud:
    """Says which row is measured."""

    def __init__(self, told: Callable[[str], None], count: int) -> None:
        self._told, self._count, self._done = told, count, 0

    def tell(self, name: str, event: str, values: dict[str, Any]) -> None:
        """Nothing is worth it."""

    def say(self, text: str) -> None:
        self._told(text)

    def ended(self, name: str, outcome: Outcome) -> None:
        self._done += 1
        if outcome.state == "failed":
            self._told(f"{name} could not be measured: {outcome.told}")
        elif outcome.state == "done":
            seconds = outcome.values["epoch_seconds"]
            self._told(f"{self._done}/{self._count} {name}: about {duration(seconds)} an epoch")


def _read(path: Path) -> dict[str, Estimate]:
    try:
        stored = json.loads(read_regular(path))
        return {key: Estimate(**values) for key, values in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        # Nothing is lost but some seconds.
        return {}
