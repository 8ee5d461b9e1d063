"""The recurrences as plain loops over time: any dtype, any device, any number of derivatives.

The oracle that every faster backend is tested against, and the one that runs where none of them can.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.operands import cast
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.kernels.problem import Problem

__all__ = ["gru", "loses", "lstm", "modrelu", "name", "refuses", "rnn", "traceable"]

name = "reference"

States = tuple[Tensor, ...]


def refuses(problem: Problem) -> str | None:
    """Return why this backend cannot run the problem; it always can."""
    return None


def loses(problem: Problem) -> str | None:
    """Return why another backend that can run the problem is to be preferred."""
    if problem.one_step:
        return "one small operator after another"
    return "a Python loop over time steps"


def traceable(problem: Problem) -> bool:
    """Whether torch.compile may look inside: it would unroll the loop over all time steps."""
    return problem.one_step


def modrelu(x: Tensor, bias: Tensor) -> Tensor:
    """Return sign(x) · relu(|x| + bias)."""
    return torch.sign(x) * torch.relu(torch.abs(x) + bias)


def rnn(
    inputs: GateInput,
    h_0: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    nonlinearity: str,
    modrelu_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run h_t = σ(U h_{t-1} + bias_hh + d_t), (1).

    Args:
        inputs: d, with G = 1.
        h_0: (B, h).
        weight_hh: U, (h, h).
        bias_hh: (h,) or ``None``.
        nonlinearity: ``"tanh"``, ``"relu"`` or ``"modrelu"``.
        modrelu_bias: (h,) for modrelu.

    Returns:
        All h_t, (T, B, h) or packed (N, h), and the last, (B, h).
    """
    d = _with_bias(inputs.multiplied(), bias_hh)
    transposed = weight_hh.t()
    activation: Callable[[Tensor], Tensor] = torch.tanh if nonlinearity == "tanh" else torch.relu

    def step(d_t: Tensor, h: Tensor) -> States:
        pre = torch.addmm(d_t, h, transposed)
        return (activation(pre) if modrelu_bias is None else modrelu(pre, modrelu_bias),)

    output, (h_n,) = _run(step, d, (h_0,), inputs.packed)
    # Under autocast modrelu's bias lifts h to float32, while torch.nn.RNN answers in the lower precision.
    return output.to(d.dtype), h_n.to(d.dtype)


def gru(inputs: GateInput, h_0: Tensor, weight_hh: Tensor, bias_hh: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the GRU of ``torch.nn.GRU``, gate order r, z, n; d_t stands where W x_t + bias_ih does.

    Args:
        inputs: d, with G = 3.
        h_0: (B, h).
        weight_hh: U, (3h, h).
        bias_hh: (3h,) or ``None``.

    Returns:
        All h_t, (T, B, h) or packed (N, h), and the last, (B, h).
    """
    transposed = weight_hh.t()

    def step(d_t: Tensor, h: Tensor) -> States:
        product = h @ transposed if bias_hh is None else torch.addmm(bias_hh, h, transposed)
        d_rz, d_n = d_t.split([2 * h.shape[1], h.shape[1]], dim=1)
        u_rz, u_n = product.split([2 * h.shape[1], h.shape[1]], dim=1)
        r, z = torch.sigmoid(d_rz + u_rz).chunk(2, dim=1)
        n = torch.tanh(d_n + r * u_n)
        return (n + z * (h - n),)

    d = inputs.multiplied()
    output, (h_n,) = _run(step, d, (h_0,), inputs.packed)
    if d.device.type == "cuda":
        # Under autocast torch.nn.GRU answers in the lower precision there, and in h_0's on the CPU.
        return output.to(d.dtype), h_n.to(d.dtype)
    return output, h_n


def lstm(
    inputs: GateInput,
    h_0: Tensor,
    c_0: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    forget_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the LSTM, gate order i, f, g, o; without a forget gate the original LSTM (2), i, g, o.

    Args:
        inputs: d, with G = 4, or 3 without a forget gate.
        h_0: (B, h), or (B, p) with a projection.
        c_0: (B, h).
        weight_hh: U, (G·h, h) or (G·h, p).
        bias_hh: (G·h,) or ``None``.
        weight_hr: the projection of h_t, (p, h), or ``None``.
        forget_gate: whether c_t = f ⊙ c_{t-1} + i ⊙ g or c_t = c_{t-1} + i ⊙ g.

    Returns:
        All h_t, (T, B, h) or packed (N, h), and the last h and c.
    """
    d = _with_bias(inputs.multiplied(), bias_hh)
    transposed = weight_hh.t()

    def step(d_t: Tensor, h: Tensor, c: Tensor) -> States:
        pre = torch.addmm(d_t, h, transposed)
        if forget_gate:
            i, f, g, o = pre.chunk(4, dim=1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        else:
            i, g, o = pre.chunk(3, dim=1)
            c = c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h if weight_hr is None else h @ weight_hr.t(), c)

    output, (h_n, c_n) = _run(step, d, (h_0, c_0), inputs.packed)
    # Under autocast c stays in float32 here, while torch.nn.LSTM answers in the lower precision.
    return output.to(d.dtype), h_n.to(d.dtype), c_n.to(d.dtype)


def _with_bias(d: Tensor, bias: Tensor | None) -> Tensor:
    return d if bias is None else d + cast("bias_hh", bias, d.dtype)


def _run(
    step: Callable[..., States], d: Tensor, state: States, packed: PackedRows | None
) -> tuple[Tensor, States]:
    """Run ``step`` over time; in a packed batch, over the sequences that are still running."""
    outputs = []
    if packed is None:
        for d_t in d.unbind(0):
            state = step(d_t, *state)
            outputs.append(state[0])
        return torch.stack(outputs), state
    finished: list[States] = []
    for d_t in d.split(packed.batch_sizes.tolist()):
        running = d_t.shape[0]
        if running < state[0].shape[0]:
            finished.append(tuple(s[running:] for s in state))
            state = tuple(s[:running] for s in state)
        state = step(d_t, *state)
        outputs.append(state[0])
    parts = [state, *reversed(finished)]
    return torch.cat(outputs), tuple(torch.cat(part) for part in zip(*parts, strict=True))
