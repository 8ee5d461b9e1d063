"""Noticing a loss that is lost, without waiting for the device at every step."""

import torch
from torch import Tensor

from momentumrnn.training.processes import Processes

# The loss of a step over that of the first one, to which 1 is added lest it was next to nothing. The outputs
# of a network that learns are never a thousand times as far off as an untrained one's, nor its logits a
# million times.
EXPLODED = 1e6
NEVER = 2**62


class Divergence:
    """Watches the loss of every step.

    A loss that is not finite has diverged; so has one of more than a million times (the first step's + 1).

    Args:
        processes: Who takes part in the run.
        device: Where losses are.

    Attributes:
        limit: The highest loss that is none, (); known after the first step.
    """

    def __init__(self, processes: Processes, device: torch.device) -> None:
        self._processes = processes
        self.limit = torch.full((), torch.finfo(torch.float32).max, dtype=torch.float64, device=device)
        self._step = torch.full((), -1, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)

    def see(self, loss: Tensor, step: int, first: bool) -> None:
        """Take notice of a step.

        Args:
            loss: Its loss, ().
            step: Which of its epoch.
            first: Whether it is the first of the run.
        """
        # What is no number is not below a limit either.
        diverged = (self._step < 0) & ~(loss <= self.limit)
        self._step = torch.where(diverged, step, self._step)
        self._loss = torch.where(diverged, loss.double(), self._loss)
        if first:
            (mean,) = self._processes.means(loss)
            self.limit.fill_(min(EXPLODED * (1.0 + abs(mean)), float(self.limit)))

    def problem(self) -> str | None:
        """What has happened to the loss, and at which step; ``None`` where nothing has.

        Waits for the device and for the other processes.
        """
        step, finite = int(self._step), bool(torch.isfinite(self._loss))
        # Both in one number: of two processes at the same step the one whose loss is not finite is heard.
        code = self._processes.lowest(NEVER if step < 0 else 2 * step + finite)
        if code == NEVER:
            return None
        if code % 2:
            return f"the loss is more than a million times what it was at first at step {code // 2}"
        return f"the loss is not finite at step {code // 2}"
