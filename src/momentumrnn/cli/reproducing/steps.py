"""Single steps of a recipe: what a training step and an evaluation step do, and how long they take."""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from momentumrnn.cli.benchmarking.memory_worker import growth_of_peak
from momentumrnn.data import data_folder
from momentumrnn.tasks import Batch, Continued
from momentumrnn.tasks.contract import Part
from momentumrnn.training.devices import choose_device
from momentumrnn.training.model import build_model
from momentumrnn.training.optimizers import build_optimizers, scaled_lr
from momentumrnn.training.recipe import Recipe

# Enough for a guess at hours.
SECONDS_OF_TRAINING, SECONDS_OF_EVALUATION = 1.0, 0.5
BATCHES_LOOKED_AT = 16
PARTS: tuple[Part, ...] = ("validation", "test")


class Steps:
    """A recipe's model with its optimizers, to take single steps.

    Args:
        recipe: Which; its seed decides the weights.
        device: Where.
    """

    def __init__(self, recipe: Recipe, device: str) -> None:
        torch.manual_seed(recipe.training.seed)
        self.task, self.clip_norm = recipe.task(), recipe.optimizer.clip_norm
        self.model = build_model(recipe).to(device)
        self.optimizers = build_optimizers(recipe.optimizer, self.model)

    def loss(self, batch: Batch) -> torch.Tensor:
        """What is differentiated of a batch, with its graph.

        Args:
            batch: The batch.
        """
        # A text is gone on with from zeros: what a step costs does not depend on that.
        made = self.model(batch.inputs)
        outputs = made.outputs if isinstance(made, Continued) else made
        return self.task.score(outputs, batch).objective

    def train(self, batch: Batch) -> torch.Tensor:
        """Take a training step.

        Args:
            batch: What is learned from.

        Returns:
            The loss before it, ().
        """
        self.model.train()
        loss = self.loss(batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(loss)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        with scaled_lr(self.optimizers, batch.lr_scale):
            for optimizer in self.optimizers:
                optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> None:
        """Take an evaluation step.

        Args:
            batch: What is judged by.
        """
        self.model.eval()
        self.loss(batch)


def measure_steps(recipe: Recipe, data: Path | None, device: str) -> dict[str, float]:
    """Guess from a few steps how long an epoch takes.

    Args:
        recipe: Of what.
        data: The data folder.
        device: Where.

    Returns:
        ``step_seconds`` of training; ``epoch_seconds``, evaluation included; ``bytes``, the most memory that
        a step takes beside the data.

    Raises:
        DataMissingError: The data are not there.
    """
    device = choose_device(device)
    batches = recipe.task().load(data_folder(data), recipe.sampling(), device)
    steps = Steps(recipe, device)
    training = list(itertools.islice(batches.training(1, 0), BATCHES_LOOKED_AT))
    # Each first step is not timed: it allocates, and looks up kernels.
    taken = [growth_of_peak(partial(steps.train, training[0]), device)]
    per_frame = _seconds_per_frame(steps.train, training, SECONDS_OF_TRAINING, device)
    step_seconds = per_frame * statistics.mean(map(_frames, training))
    seconds = step_seconds * batches.steps_per_epoch
    for part in PARTS:
        held_out = batches.evaluation(part)
        if held_out is None:
            continue
        # All of them are counted, few of them tried.
        tried: list[Batch] = []
        frames = 0
        for batch in held_out:
            frames += _frames(batch)
            if len(tried) < BATCHES_LOOKED_AT:
                tried.append(batch)
        middle = tried[len(tried) // 2]
        taken.append(growth_of_peak(partial(steps.evaluate, middle), device))
        seconds += _seconds_per_frame(steps.evaluate, [middle], SECONDS_OF_EVALUATION, device) * frames
    return {
        "step_seconds": step_seconds,
        "epoch_seconds": seconds,
        "bytes": float(max(growth or 0 for growth in taken)),
    }


def _frames(batch: Batch) -> int:
    return batch.inputs.shape[0] * batch.inputs.shape[1]


def _seconds_per_frame(
    step: Callable[[Batch], object], batches: Sequence[Batch], budget: float, device: str
) -> float:
    """Seconds a time step of a sequence takes, the median over as many steps as there is time for."""
    seconds, began = [], time.perf_counter()
    for batch in itertools.cycle(batches):
        start = time.perf_counter()
        step(batch)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / _frames(batch))
        if time.perf_counter() - began > budget:
            break
    return statistics.median(seconds)
