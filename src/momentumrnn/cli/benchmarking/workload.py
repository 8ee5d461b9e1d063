"""What one call of a contestant does: a training step, inference, or a single time step."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

import momentumrnn
from momentumrnn import rules
from momentumrnn.cli.benchmarking.contestants import Contestant, backend_in_use
from momentumrnn.cli.benchmarking.shapes import Shape


class Workload:
    """A contestant's layer with its input of shape (T, B, d), and with a gradient of its output.

    Input and gradient are random and the same for all. The input needs no gradient itself, as in a first
    layer.

    Args:
        contestant: Whose layer.
        shape: Of what sizes.
        device: Where.
    """

    def __init__(self, contestant: Contestant, shape: Shape, device: str) -> None:
        torch.manual_seed(0)
        self.contestant = contestant
        self.layer: nn.Module = contestant.build(shape.d, shape.h).to(device)
        self.x = _random(shape.T, shape.B, shape.d, device=device)
        self.gradient = _random(shape.T, shape.B, shape.h, device=device)

    @property
    def backend(self) -> str:
        """Which backend computes it."""
        return backend_in_use(self.contestant, self.layer, self.x)

    def side(self, quantity: Literal["train", "inference"]) -> Callable[[], None]:
        """What is timed.

        Args:
            quantity: ``train``, forward and backward; or ``inference``, forward without gradients.
        """
        if quantity == "train":
            self.layer.train()
            return self._on_its_backend(self._train)
        self.layer.eval()
        return self._on_its_backend(self._infer)

    def _train(self) -> None:
        self.layer.zero_grad(set_to_none=True)
        self.layer(self.x)[0].backward(self.gradient)

    def _infer(self) -> None:
        with torch.no_grad():
            self.layer(self.x)

    def _on_its_backend(self, call: Callable[[], None]) -> Callable[[], None]:
        if self.contestant.backend == "auto":
            return call

        def side() -> None:
            with momentumrnn.backend(self.contestant.backend):
                call()

        return side


CELL_SHAPE = Shape(1, 1, 1, 256)
CELLS: dict[str, Callable[[int, int], nn.Module]] = {
    "nn.LSTMCell": nn.LSTMCell,
    "LSTMCell": momentumrnn.LSTMCell,
    "LSTMCell, HeavyBall": lambda d, h: momentumrnn.LSTMCell(d, h, rule=rules.HeavyBall(0.6, 1.0)),
}


def single_step(name: str, device: str) -> Callable[[], None]:
    """One time step of a cell, without gradients, from a state that it has left itself.

    Args:
        name: A key of ``CELLS``.
        device: Where.
    """
    torch.manual_seed(0)
    cell = CELLS[name](CELL_SHAPE.d, CELL_SHAPE.h).to(device).eval()
    x = _random(CELL_SHAPE.B, CELL_SHAPE.d, device=device)
    with torch.no_grad():
        state: Any = cell(x)

    def step() -> None:
        with torch.no_grad():
            cell(x, state)

    return step


def _random(*size: int, device: str) -> Tensor:
    # Drawn on the CPU, so that every device sees the same numbers.
    return torch.randn(*size, generator=torch.Generator().manual_seed(1)).to(device)
