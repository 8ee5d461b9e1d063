"""A row of Fig. 2: how far back in time gradients reach while a model begins to learn."""

import math
import shutil
import time
from pathlib import Path

import torch

from momentumrnn.analysis import GradientHistory, plot_gradient_norms
from momentumrnn.cli.reproducing.jobs import Job
from momentumrnn.cli.reproducing.steps import Steps
from momentumrnn.data import data_folder
from momentumrnn.errors import DivergedError
from momentumrnn.results.gradient_records import SMOKE_STEPS, STEPS, gradient_file, is_recorded
from momentumrnn.results.report import SMOKE
from momentumrnn.tasks import Batch, Batches
from momentumrnn.tasks.contract import LOSS
from momentumrnn.training.checkpoint import (
    Checkpoint,
    load_latest_checkpoint,
    restoring,
    save_checkpoint,
)
from momentumrnn.training.devices import choose_device
from momentumrnn.training.experiments import Row, load_experiment
from momentumrnn.training.files import discard_unfinished
from momentumrnn.training.interrupt import catch_interrupts
from momentumrnn.training.lock import FolderLock
from momentumrnn.training.optimizers import restore_optimizer
from momentumrnn.training.plan import Plan
from momentumrnn.training.progress import Progress
from momentumrnn.training.recipe import Recipe

EVERY, SMOKE_EVERY = 10, 2
SECONDS_BETWEEN_REPORTS = 0.5


def record_gradients(job: Job, progress: Progress) -> None:
    """Train for some hundred steps and record ‖∂L/∂h_t‖₂ every few, on the first batch of the training data.

    Args:
        job: What is trained; its ``place`` is the file that is written.
        progress: Who is told how it goes.

    Raises:
        DataMissingError: The data are not there.
        DivergedError: The loss is no longer finite.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written before.
    """
    total, every = (SMOKE_STEPS, SMOKE_EVERY) if job.smoke else (STEPS, EVERY)
    if is_recorded(job.place, job.smoke):
        return
    device, recipe = choose_device(job.device), job.recipe
    batches = recipe.task().load(data_folder(job.data), recipe.sampling(), device)
    steps = Steps(recipe, device)
    probe = next(batches.training(1, 0))
    checkpoints = job.place.with_name(f"{job.place.name}.checkpoints")
    checkpoints.mkdir(parents=True, exist_ok=True)
    with FolderLock(checkpoints / "run.lock"), catch_interrupts() as interrupt:
        discard_unfinished(checkpoints)
        done, history = _restore(steps, checkpoints, job.place, every)
        progress.begin(job.name, 1, total, 1, done, LOSS)
        saved = reported = time.monotonic()
        for step in range(done, total + 1):
            if history.record(step, steps.model, lambda: steps.loss(probe)) is not None:
                history.save(job.place)
            if step == total:
                break
            loss = steps.train(_batch(batches, step))
            if interrupt.requested or time.monotonic() - saved > recipe.training.checkpoint_seconds:
                _save(steps, checkpoints, step + 1)
                saved = time.monotonic()
            if interrupt.requested:
                raise KeyboardInterrupt
            if time.monotonic() - reported > SECONDS_BETWEEN_REPORTS:
                value = loss.item()
                if not math.isfinite(value):
                    raise DivergedError(f"the loss is {value} at step {step + 1}")
                progress.step(1, step + 1, value, value)
                reported = time.monotonic()
        progress.end()
    shutil.rmtree(checkpoints, ignore_errors=True)


def _batch(batches: Batches, step: int) -> Batch:
    epoch, within = divmod(step, batches.steps_per_epoch)
    return next(batches.training(epoch + 1, within))


def _save(steps: Steps, checkpoints: Path, step: int) -> None:
    state = {
        "step": step,
        "optimizers": [optimizer.state_dict() for optimizer in steps.optimizers],
        "rng": torch.get_rng_state(),
    }
    save_checkpoint(checkpoints, Checkpoint(steps.model.state_dict(), state))


def _restore(steps: Steps, checkpoints: Path, path: Path, every: int) -> tuple[int, GradientHistory]:
    checkpoint = load_latest_checkpoint(checkpoints)
    if checkpoint is None or not path.exists():
        return 0, GradientHistory(every)
    with restoring(checkpoints):
        steps.model.load_state_dict(checkpoint.weights)
        for optimizer, stored in zip(steps.optimizers, checkpoint.state["optimizers"], strict=True):
            restore_optimizer(optimizer, stored)
        torch.set_rng_state(checkpoint.state["rng"])
        return int(checkpoint.state["step"]), GradientHistory.load(path)


def describe_row(recipe: Recipe) -> str:
    """A model and its coefficients, to stand above its panel.

    Args:
        recipe: Of what.
    """
    signs = {"momentum": "μ", "step_size": "s", "beta": "β", "restart": "F"}
    given = recipe.rule_values()
    told = [f"{sign} {given[key]:g}" for key, sign in signs.items() if key in given]
    return ", ".join([recipe.model.name, *told])


def plot_gradients(plan: Plan, out: Path) -> list[Path]:
    """Draw what was recorded, a figure for each experiment that shows gradients.

    Args:
        plan: Which experiments.
        out: Where the recordings are, and the figures go.

    Returns:
        The files written.
    """
    files = []
    for name, rows in gradient_rows(plan).items():
        recorded = {row: gradient_file(out, row.name) for row in rows}
        present = {row: path for row, path in recorded.items() if is_recorded(path, plan.smoke)}
        if present:
            histories = {
                describe_row(plan.recipe(row)): GradientHistory.load(path) for row, path in present.items()
            }
            title = load_experiment(name).title
            marked = f"{SMOKE}: {title}" if plan.smoke else title
            files += plot_gradient_norms(histories, out / name, marked)
    return files


def gradient_rows(plan: Plan) -> dict[str, list[Row]]:
    """The rows whose gradients are shown, by their experiment.

    Args:
        plan: Which experiments.
    """
    found = {}
    for name in plan.experiments:
        panels = [panel for panel in load_experiment(name).panels if "gradients" in panel.shows]
        rows = dict.fromkeys(row for panel in panels for row in panel.all_rows() if plan.includes(row))
        if rows:
            found[name] = list(rows)
    return found
