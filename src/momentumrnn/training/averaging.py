"""Averaged stochastic gradient descent: from some epoch on, the mean of all later weights is what counts.

``torch.optim.ASGD`` is not used: it takes each step with the learning rate of the step before, which is
wrong where the rate changes from step to step, and leaves the first step out of the mean.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

from momentumrnn.training.history import Epoch


def has_stalled(history: Sequence[Epoch], patience: int) -> bool:
    """The non-monotonic criterion: the last epoch is worse than the best of those long before.

    Args:
        history: What was measured.
        patience: How many epochs before the last one do not count.
    """
    ranks = [row.metric.rank(row.validation_metric) for row in history if row.validation_metric is not None]
    before = ranks[: -patience - 1]
    return bool(before) and ranks[-1] < max(before)


class Averaging:
    """The mean of a model's weights, once it has begun.

    Args:
        patience: As ``has_stalled`` takes it; ``None`` for never.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.average: AveragedModel | None = None

    def evaluated(self, model: nn.Module) -> nn.Module:
        """The model that is evaluated and kept: one of averaged weights, once there are any.

        Args:
            model: The one that is trained.
        """
        return model if self.average is None else self.average.module

    def count(self, model: nn.Module) -> None:
        """Let the weights after a step enter the mean.

        Args:
            model: The one that is trained, unwrapped.
        """
        if self.average is not None:
            self.average.update_parameters(model)

    def judge(self, history: Sequence[Epoch], model: nn.Module) -> None:
        """Begin with the next step, if it is time.

        Args:
            history: What was measured, the epoch that just ended included.
            model: The one that is trained, unwrapped.
        """
        if self.patience is not None and self.average is None and has_stalled(history, self.patience):
            self.average = AveragedModel(model)

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint keeps; ``None`` before it has begun."""
        if self.average is None:
            return None
        return {name: value.cpu() for name, value in self.average.state_dict().items()}

    def restore(self, stored: dict[str, Any] | None, model: nn.Module) -> None:
        """The inverse of ``state``.

        Args:
            stored: What it gave.
            model: The one that is trained, unwrapped.
        """
        if stored is not None:
            self.average = AveragedModel(model)
            self.average.load_state_dict(stored)
