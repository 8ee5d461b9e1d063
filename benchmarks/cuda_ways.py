"""Which way to run a recurrence on CUDA wins: cuDNN over an identity matrix, or one of Triton's.

    python benchmarks/cuda_ways.py [--cells lstm gru rnn_modrelu] [--hidden 128 256 512] [--ways 4]

Forward and backward of the recurrence alone, from ready gate inputs, in turns; times are divided by
torch.nn's layer over one feature (tanh for rnn_modrelu). The error is the worst of all outputs and gradients
against the reference loop in float64, over the largest value. `<` marks what is chosen by itself.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor

from momentumrnn.cli.benchmarking.machine import describe_machine
from momentumrnn.cli.benchmarking.measurement import ratio_with_quartiles
from momentumrnn.cli.benchmarking.turns import clock_of, time_in_turns, wait_for
from momentumrnn.kernels import fused, reference
from momentumrnn.kernels.cuda.launch import precision
from momentumrnn.kernels.cuda.recurrence import recurrence
from momentumrnn.kernels.cuda.tiling import Tiling, device_of, forced
from momentumrnn.kernels.cuda.tiling import ways as tilings
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.problem import GATES

LAYERS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn_tanh": torch.nn.RNN, "rnn_modrelu": torch.nn.RNN}
# Runs a cell on (d, U, its bias, modrelu's bias, h_0, c_0) and returns all h_t.
Run = Callable[[Sequence[Tensor | None]], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", nargs="+", default=["lstm", "gru", "rnn_modrelu"], choices=LAYERS)
    parser.add_argument("--hidden", nargs="+", type=int, default=[128, 256, 512])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=784)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16", "float64"])
    parser.add_argument("--ways", type=int, default=4, help="how many, those first that are reckoned fastest")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each side")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: Triton's interpreter")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("there is no GPU here; TRITON_INTERPRET=1 and --device cpu try the script, slowly")
    print("; ".join(f"{name} {value}" for name, value in describe_machine(arguments.device).items()))
    for cell in arguments.cells:
        for hidden in arguments.hidden:
            print(f"\n{cell}, T {arguments.steps}, B {arguments.batch}, h {hidden}, {arguments.dtype}")
            compare(cell, hidden, arguments)


def compare(cell: str, hidden: int, arguments: argparse.Namespace) -> None:
    """Print a line for each way to run a cell of one size."""
    dtype, gates = getattr(torch, arguments.dtype), GATES[cell]
    inputs = inputs_of(cell, hidden, arguments, dtype)
    exact = everything(
        by_module(cell, reference), [None if t is None else t.detach().double() for t in inputs]
    )
    layer = LAYERS[cell](1, hidden).to(arguments.device, dtype)
    x = torch.randn(arguments.steps, arguments.batch, 1, device=arguments.device, dtype=dtype)
    sizes = (hidden, gates, inputs[0].element_size())
    device = device_of(torch.cuda.current_device() if arguments.device == "cuda" else None)
    ways: dict[str, tuple[Run, Tiling | None]] = {}
    if cell != "rnn_modrelu":
        ways["cuDNN over an identity matrix"] = by_module(cell, fused), None
    split = precision(cell, dtype, device) == "tf32x3"
    chosen, *others = tilings(*sizes, arguments.batch, device, split)
    for way in (chosen, *others[: arguments.ways - 1]):
        kind = "U resident" if way.resident else "a launch a step"
        name = f"{kind}: rows {way.rows}, units {way.units}, warps {way.warps}{' <' if way == chosen else ''}"
        ways[name] = by_triton(cell), way
    errors = {}
    for name, (run, way) in list(ways.items()):
        try:
            with held(way):
                errors[name] = worst(everything(run, inputs), exact)
        except Exception as error:  # Triton's and CUDA's have no base of their own.
            print(f"failed: {name}: {type(error).__name__}: {error}")
            del ways[name]
    baseline, *taken = time_in_turns(
        [lambda: layer(x)[0].sum().backward(), *(trained(*way, inputs) for way in ways.values())],
        arguments.repeats,
        wait=wait_for(arguments.device),
        clock=clock_of(arguments.device),
    )
    for name, seconds in zip(ways, taken, strict=True):
        ratio, low, high = ratio_with_quartiles(seconds, baseline)
        print(f"{ratio:6.2f} ({low:.2f}–{high:.2f})  error {errors[name]:.1e}  {name}", flush=True)


def inputs_of(
    cell: str, hidden: int, arguments: argparse.Namespace, dtype: torch.dtype
) -> list[Tensor | None]:
    """Draw a cell's inputs as large as those of a layer at its start."""

    def make(*shape: int, scale: float = hidden**-0.5) -> Tensor:
        return (scale * torch.randn(shape, device=arguments.device)).to(dtype).requires_grad_()

    width, states = GATES[cell] * hidden, (arguments.batch, hidden)
    return [
        make(arguments.steps, arguments.batch, width, scale=1.0),
        make(width, hidden),
        make(width),
        make(hidden) if cell == "rnn_modrelu" else None,
        make(*states),
        make(*states).to(torch.promote_types(dtype, torch.float32)).detach().requires_grad_()
        if cell == "lstm"
        else None,
    ]


def held(way: Tiling | None) -> AbstractContextManager[None]:
    """Keep to a way in the ``with`` block; the backward pass has to be inside as well."""
    return nullcontext() if way is None else forced(way)


def trained(run: Run, way: Tiling | None, inputs: Sequence[Tensor | None]) -> Callable[[], None]:
    leaves = [t for t in inputs if t is not None]

    def step() -> None:
        with held(way):
            torch.autograd.grad(run(inputs).sum(), leaves)

    return step


def everything(run: Run, inputs: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the output and all gradients, in float64."""
    leaves = [None if t is None else t.detach().requires_grad_() for t in inputs]
    output = run(leaves)
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output)
    grads = torch.autograd.grad((output.double() * weights).sum(), [t for t in leaves if t is not None])
    return [each.detach().double() for each in (output, *grads)]


def worst(got: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Return the largest error, over the largest value."""
    both = zip(got, exact, strict=True)
    return max(float((one - other).abs().max() / other.abs().max().clamp(min=1)) for one, other in both)


def by_triton(cell: str) -> Run:
    return lambda inputs: recurrence(cell, *inputs, None)[0]


def by_module(cell: str, module: ModuleType) -> Run:
    """Run the cell by one of the backends that are no Triton."""

    def run(inputs: Sequence[Tensor | None]) -> Tensor:
        d, weight_hh, bias_hh, modrelu_bias, h_0, c_0 = inputs
        gates = GateInput(d)
        if cell == "lstm":
            return module.lstm(gates, h_0, c_0.to(d.dtype), weight_hh, bias_hh, None, True)[0]
        if cell == "gru":
            return module.gru(gates, h_0, weight_hh, bias_hh)[0]
        return module.rnn(gates, h_0, weight_hh, bias_hh, cell.removeprefix("rnn_"), modrelu_bias)[0]

    return run


if __name__ == "__main__":
    main()
