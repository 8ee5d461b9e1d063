"""The copying problem: say ten symbols again after T steps."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from momentumrnn.data.copying import CLASSES, COPIED, FEATURES, SYMBOLS, draw_copying
from momentumrnn.tasks.contract import LOSS, AnyPart, Baseline, Batch, Batches, Sampling, Score, Task
from momentumrnn.tasks.drawn import DrawnBatches
from momentumrnn.tasks.readouts import EveryStepReadout


def memoryless_loss(length: int) -> float:
    """What it costs to be sure of the blanks and to guess the ten symbols: 10 ln 8 / (T + 20).

    Args:
        length: T.

    >>> round(memoryless_loss(2000), 5)
    0.01029
    """
    return COPIED * math.log(SYMBOLS) / (length + 2 * COPIED)


class Copying(Task):
    """Cross entropy over all T + 20 steps: the loss and the metric.

    Args:
        length: T, the wait.
    """

    metric = LOSS
    sequence_dim = 0
    features = FEATURES

    def __init__(self, length: int) -> None:
        self.length = length

    def build_model(self, layer: nn.Module, hidden_size: int) -> EveryStepReadout:
        return EveryStepReadout(layer, hidden_size, CLASSES)

    def load(self, folder: Path, sampling: Sampling, device: torch.device | str) -> Batches:
        return CopyingBatches(self.length, sampling, device)

    def score(self, outputs: Tensor, batch: Batch) -> Score:
        loss = F.cross_entropy(outputs.flatten(0, 1), batch.targets.t().flatten())
        return Score(loss, loss.detach().double() * batch.weight)

    def baseline(
        self, part: AnyPart = "training", sampling: Sampling | None = None, epoch: int | None = None
    ) -> Baseline:
        # Every sequence costs the same: each symbol has the probability 1/8, whichever was drawn.
        return Baseline("a memoryless guess", memoryless_loss(self.length))


class CopyingBatches(DrawnBatches):
    """Sequences of the copying problem, one-hot.

    Args:
        length: T, the wait.
        sampling: How batches are made.
        device: Where they are.
    """

    def __init__(self, length: int, sampling: Sampling, device: torch.device | str) -> None:
        super().__init__(sampling, device)
        self.length = length

    def draw(self, count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        return draw_copying(count, self.length, seed)

    def prepare(self, inputs: Tensor) -> Tensor:
        return F.one_hot(inputs, FEATURES).to(torch.float32)
