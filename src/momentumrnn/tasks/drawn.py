"""Batches that are drawn for each step, and held-out sequences that are drawn once."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from momentumrnn.errors import RecipeError
from momentumrnn.tasks.contract import Batch, Part, Sampling

EVALUATION_SIZE = 1_024
# The last of the numbers a generator is seeded with; in training the others are the run's seed and the step.
TRAINING, VALIDATION, TEST = 0, 1, 2


class DrawnBatches(ABC):
    """A task whose training never sees a sequence twice.

    Validation and test are 1,024 sequences each, the same for every run, whatever its seed.

    Args:
        sampling: How batches are made; an epoch is its ``steps_per_epoch``.
        device: Where they are.

    Raises:
        RecipeError: ``steps_per_epoch`` is absent.
    """

    def __init__(self, sampling: Sampling, device: torch.device | str) -> None:
        if sampling.steps_per_epoch is None:
            raise RecipeError(
                "training.steps_per_epoch: sequences are drawn without end; say how many steps an epoch is"
            )
        self.sampling, self.device = sampling, device
        self._steps = sampling.steps_per_epoch

    @abstractmethod
    def draw(self, count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Draw sequences.

        Args:
            count: N.
            seed: Which; the same numbers always give the same sequences.

        Returns:
            What is read, (T, N, …), and what is to be said, (N, …).
        """

    @abstractmethod
    def prepare(self, inputs: Tensor) -> Tensor:
        """What was drawn, as a network reads it.

        Args:
            inputs: (T, B, …), on the device.

        Returns:
            (T, B, d), float32.
        """

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return self._steps

    def training(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The rest of an epoch.

        Args:
            epoch: From 1.
            first_step: How many of its steps are done.
        """
        for step in range(first_step, self._steps):
            taken = (epoch - 1) * self._steps + step
            yield self._batch(*self.draw(self.sampling.batch_size, (self.sampling.seed, taken, TRAINING)))

    def evaluation(self, part: Part) -> Iterator[Batch]:
        """All of a part, drawn anew each time: it comes out the same.

        Args:
            part: Which.
        """
        # Whole, and then divided: what is in it must not depend on the size of a batch.
        inputs, targets = self.draw(EVALUATION_SIZE, (0, 0, VALIDATION if part == "validation" else TEST))
        size = self.sampling.eval_batch_size
        return (
            self._batch(inputs[:, first : first + size], targets[first : first + size])
            for first in range(0, EVALUATION_SIZE, size)
        )

    def _batch(self, inputs: Tensor, targets: Tensor) -> Batch:
        return Batch(self.prepare(inputs.to(self.device)), targets.to(self.device), len(targets))
