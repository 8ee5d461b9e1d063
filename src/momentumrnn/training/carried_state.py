"""What a model takes from one batch to the next, where its sequences are longer than a batch."""

from typing import Any

import torch
from torch import Tensor, nn

from momentumrnn.tasks import Continued
from momentumrnn.tasks.shares import Share, own_sequences
from momentumrnn.training.processes import Processes


class CarriedState:
    """Runs a model batch by batch and keeps the state it reached, cut off from what led to it.

    Every process keeps that of its own sequences; a checkpoint holds that of all, in their order.

    Args:
        processes: Who takes part in the run.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        # Each (layers, B, ...), B being how many sequences are this process's.
        self.tensors: tuple[Tensor, ...] = ()
        self._counts = True

    def run(self, model: nn.Module, share: Share) -> Any:
        """What a model makes of a batch.

        Args:
            model: The model; given the kept state where the batch continues the one before.
            share: What this process does of the batch.
        """
        batch = share.batch
        made = model(batch.inputs, self.tensors) if batch.continues else model(batch.inputs)
        if not isinstance(made, Continued):
            return made
        self.tensors, self._counts = tuple(tensor.detach() for tensor in made.state), share.counts
        return made.outputs

    def state(self) -> list[Tensor]:
        """What a checkpoint keeps. Waits for the other processes."""
        if not self.tensors:
            return []
        own = [tensor.cpu() for tensor in self.tensors] if self._counts else []
        every = [self._processes.broadcast(own, rank) for rank in range(self._processes.count)]
        return [torch.cat(parts, dim=1) for parts in zip(*filter(None, every), strict=True)]

    def restore(self, stored: list[Tensor], device: torch.device) -> None:
        """The inverse of ``state``, with as many processes as there were or with another number.

        Args:
            stored: What it gave.
            device: Where the model is.
        """
        rank, count = self._processes.rank, self._processes.count
        own: list[Tensor] = []
        for tensor in stored:
            first, end, empty = own_sequences(tensor.shape[1], rank, count)
            own.append(tensor[:, first:end].to(device, copy=True))
            self._counts = not empty
        self.tensors = tuple(own)
