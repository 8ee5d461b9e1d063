"""Losses and metrics added up over batches, in every process a part of them."""

import torch
from torch import Tensor

from momentumrnn.tasks import Score
from momentumrnn.training.processes import Processes


class Totals:
    """Sums that stay on the device until they are asked for.

    Args:
        processes: Who takes part in the run.
        device: Where scores are.

    Attributes:
        loss_sum: Of this process, (), float64; the whole sum is the mean over the processes.
        metric_sum: Likewise.
        weight: Of the whole batches.
    """

    def __init__(self, processes: Processes, device: torch.device) -> None:
        self._processes = processes
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.metric_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.weight = 0

    def add(self, score: Score, weight: int) -> None:
        """Add a batch.

        Args:
            score: Of this process's share in it, as ``Share.counted`` gives it.
            weight: Of the whole batch.
        """
        self.loss_sum += score.loss.detach().double() * weight
        self.metric_sum += score.metric_sum
        self.weight += weight

    def means(self) -> tuple[float, float]:
        """The mean loss and the mean metric. Waits for the device and for the other processes."""
        loss_sum, metric_sum = self._processes.means(self.loss_sum, self.metric_sum)
        return loss_sum / self.weight, metric_sum / self.weight

    def restore(self, loss_sum: Tensor, metric_sum: Tensor, weight: int) -> None:
        """Take up sums that were written down.

        Args:
            loss_sum: Of this process.
            metric_sum: Of this process.
            weight: Of the whole batches.
        """
        self.loss_sum.copy_(loss_sum)
        self.metric_sum.copy_(metric_sum)
        self.weight = weight

    def clear(self) -> None:
        """Begin anew."""
        self.loss_sum.zero_()
        self.metric_sum.zero_()
        self.weight = 0
