"""What one call of a contestant does: a training step, inference, or a single time step."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

import momentumrnn
from momentumrnn import rules
from momentumrnn.cli.benchmarking.contestants import BASELINES, Contestant, backend_in_use
from momentumrnn.cli.benchmarking.precision import Precision, computing_in
from momentumrnn.cli.benchmarking.shapes import Shape


class Workload:
    """A contestant's layer with its input of shape (T, B, d), and with a gradient of its output.

    Input and gradient are random and the same for all. The input needs no gradient itself, as in a first
    layer.

    Args:
        contestant: Whose layer.
        shape: Of what sizes.
        device: Where.
        precision: In what.
    """

    def __init__(
        self, contestant: Contestant, shape: Shape, device: str, precision: Precision = "float32"
    ) -> None:
        torch.manual_seed(0)
        self.contestant, self.device, self.precision = contestant, device, precision
        self.layer: nn.Module = contestant.build(shape.d, shape.h).to(device)
        self.x = _random(shape.T, shape.B, shape.d, device=device)
        self.gradient = _random(shape.T, shape.B, shape.h, device=device)

    @property
    def backend(self) -> str:
        """Which backend computes it."""
        with computing_in(self.precision, self.device):
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

    def error(self) -> float:
        """The largest error of an output over the largest output, both against the same layer in float64."""
        exact = copy.deepcopy(self.layer).double()
        ours = self.contestant.name not in BASELINES and self.contestant.package is None
        with torch.no_grad(), momentumrnn.backend("reference") if ours else nullcontext():
            expected = exact(self.x.double())[0]
        outputs: list[Tensor] = []
        self._on_its_backend(lambda: outputs.append(self.layer(self.x)[0].detach()))()
        return float((outputs[0].double() - expected).abs().max() / expected.abs().max())

    def _train(self) -> None:
        self.layer.zero_grad(set_to_none=True)
        output = self.layer(self.x)[0]
        output.backward(self.gradient.to(output.dtype))

    def _infer(self) -> None:
        with torch.no_grad():
            self.layer(self.x)

    def _on_its_backend(self, call: Callable[[], None]) -> Callable[[], None]:
        if self.contestant.backend == "auto" and self.device == "cpu" and self.precision == "float32":
            return call

        def side() -> None:
            with computing_in(self.precision, self.device), momentumrnn.backend(self.contestant.backend):
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
