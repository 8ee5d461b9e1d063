"""The adding problem: the sum of the two marked numbers among T."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from momentumrnn.data.adding import FEATURES, draw_adding
from momentumrnn.tasks.contract import LOSS, Baseline, Batch, Batches, Sampling, Score, Task
from momentumrnn.tasks.drawn import DrawnBatches
from momentumrnn.tasks.readouts import LastStepReadout

# The variance of the sum of two numbers from [0, 1], whose mean is 1.
CONSTANT_LOSS = 1 / 6


class Adding(Task):
    """Mean squared error at the last step: the loss and the metric.

    Args:
        length: T.
    """

    metric = LOSS
    sequence_dim = 0
    features = FEATURES

    def __init__(self, length: int) -> None:
        self.length = length

    def build_model(self, layer: nn.Module, hidden_size: int) -> LastStepReadout:
        return LastStepReadout(layer, hidden_size, 1)

    def load(self, folder: Path, sampling: Sampling, device: torch.device | str) -> Batches:
        return AddingBatches(self.length, sampling, device)

    def score(self, outputs: Tensor, batch: Batch) -> Score:
        loss = F.mse_loss(outputs, batch.targets)
        return Score(loss, loss.detach().double() * batch.weight)

    def baseline(self) -> Baseline:
        return Baseline("always saying 1", CONSTANT_LOSS)


class AddingBatches(DrawnBatches):
    """Sequences of the adding problem.

    Args:
        length: T.
        sampling: How batches are made.
        device: Where they are.
    """

    def __init__(self, length: int, sampling: Sampling, device: torch.device | str) -> None:
        super().__init__(sampling, device)
        self.length = length

    def draw(self, count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        return draw_adding(count, self.length, seed)

    def prepare(self, inputs: Tensor) -> Tensor:
        return inputs
