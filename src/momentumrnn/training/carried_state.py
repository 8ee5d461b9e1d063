"""What a model takes from one batch to the next, where its sequences are longer than a batch."""

from typing import Any

import torch
from torch import Tensor, nn

from momentumrnn.tasks import Batch, Continued


class CarriedState:
    """Runs a model batch by batch and keeps the state it reached, cut off from what led to it."""

    def __init__(self) -> None:
        self.tensors: tuple[Tensor, ...] = ()

    def run(self, model: nn.Module, batch: Batch) -> Any:
        """What a model makes of a batch.

        Args:
            model: The model; given the kept state where the batch continues the one before.
            batch: The batch.
        """
        made = model(batch.inputs, self.tensors) if batch.continues else model(batch.inputs)
        if not isinstance(made, Continued):
            return made
        self.tensors = tuple(tensor.detach() for tensor in made.state)
        return made.outputs

    def state(self) -> list[Tensor]:
        """What a checkpoint keeps."""
        return [tensor.cpu() for tensor in self.tensors]

    def restore(self, stored: list[Tensor], device: torch.device) -> None:
        """The inverse of ``state``.

        Args:
            stored: What it gave.
            device: Where the model is.
        """
        self.tensors = tuple(tensor.to(device) for tensor in stored)
