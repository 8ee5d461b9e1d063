"""Worst errors of the C++ kernels in float32 beside float64, for each instruction set and cell.

    python benchmarks/worst_errors.py

Prints a Markdown table: the largest error of any output (y, h_n, c_n) and of any gradient, over 40 shapes
drawn from a fixed seed, dense and packed, both ways of sharing the work. An error is relative to the
largest value of the tensor it is found in.
"""

import copy
import itertools
import random

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence

import momentumrnn
from momentumrnn import rules
from momentumrnn.kernels.extension import extension, forced_isa
from momentumrnn.kernels.plan import forced

CELLS = {
    "RNN (tanh)": lambda *sizes, **o: momentumrnn.RNN(*sizes, **o),
    "RNN (relu)": lambda *sizes, **o: momentumrnn.RNN(*sizes, nonlinearity="relu", **o),
    "RNN (modrelu)": lambda *sizes, **o: momentumrnn.RNN(*sizes, nonlinearity="modrelu", **o),
    "GRU": lambda *sizes, **o: momentumrnn.GRU(*sizes, **o),
    "LSTM": lambda *sizes, **o: momentumrnn.LSTM(*sizes, **o),
    "LSTM without forget gate": lambda *sizes, **o: momentumrnn.LSTM(*sizes, forget_gate=False, **o),
}
RULES = {
    "none": None,
    "heavy ball": rules.HeavyBall(0.9, 0.5),
    "restart": rules.ScheduledRestart(3, 0.9),
    "Adam": rules.Adam(0.6, 0.5, 0.8, eps=0.05),
    "RMSProp": rules.RMSProp(0.4, 0.9, eps=0.05),
}
WAYS = [(split, fused) for split in ("rows", "units") for fused in (True, False)]


def shapes(count: int = 40) -> list[tuple[int, int, int, int]]:
    """T, B, d, h: the edges first, then drawn."""
    edges = [(1, 1, 1, 1), (2, 1, 1, 16), (60, 3, 1, 33), (7, 13, 5, 17), (5, 25, 20, 64), (33, 2, 66, 31)]
    draw = random.Random(0)
    sizes = ((1, 60), (1, 30), (1, 40), (1, 80))
    return edges + [tuple(draw.randint(*size) for size in sizes) for _ in range(count - len(edges))]


def run(layer: torch.nn.Module, x: Tensor, lengths: list[int] | None, weight: Tensor) -> list[Tensor]:
    """Outputs first, then gradients."""
    x = x.clone().requires_grad_()
    output, state = layer(x if lengths is None else pack_padded_sequence(x, lengths))
    y = output if lengths is None else output.data
    finals = list(state) if isinstance(state, tuple) else [state]
    loss = (y * weight[: y.numel()].view_as(y)).sum() + sum(final.square().sum() for final in finals)
    return [y, *finals, *torch.autograd.grad(loss, [x, *layer.parameters()])]


def error(got: Tensor, expected: Tensor) -> float:
    """The largest error over the largest value."""
    scale = float(expected.abs().max())
    return float((got.double() - expected).abs().max()) / scale if scale else float(got.abs().max())


def main() -> None:
    kernels = extension()
    if kernels is None:
        raise SystemExit("the C++ kernels were not built")
    torch.set_num_threads(2)
    print("| instruction set | cell | outputs | gradients |\n|---|---|---:|---:|")
    for isa in kernels.isas():
        for name, make in CELLS.items():
            outputs = gradients = 0.0
            for (T, B, d, h), (rule, (split, fused)) in zip(
                shapes(), itertools.cycle(itertools.product(RULES.values(), WAYS)), strict=False
            ):
                torch.manual_seed(T + B + d + h)
                layer = make(d, h, rule=rule)
                x, weight = torch.randn(T, B, d), torch.randn(T * B * h)
                lengths = None if T % 2 else sorted((1 + k % T for k in range(B)), reverse=True)
                with momentumrnn.backend("reference"):
                    expected = run(copy.deepcopy(layer).double(), x.double(), lengths, weight.double())
                with momentumrnn.backend("cpu"), forced_isa(isa), forced(split, fused):
                    got = run(layer, x, lengths, weight)
                errors = [error(a.detach(), b.detach()) for a, b in zip(got, expected, strict=True)]
                finals = 3 if name.startswith("LSTM") else 2
                outputs, gradients = max(outputs, *errors[:finals]), max(gradients, *errors[finals:])
            print(f"| {isa} | {name} | {outputs:.1e} | {gradients:.1e} |", flush=True)


if __name__ == "__main__":
    main()
