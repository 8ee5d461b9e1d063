"""torch's own fused recurrences (oneDNN, cuDNN, ATen), over whatever features the rule left.

A linear rule needs nothing else: a MomentumLSTM is an LSTM over a filtered input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.problem import Problem

__all__ = ["gru", "loses", "lstm", "name", "refuses", "rnn", "traceable"]

name = "torch"
# torch.compile cannot trace torch's recurrent operators.
traceable = False

# σ of this is 1 to the last bit in float64, and its derivative too small to reach any weight.
_OPEN_GATE = 100.0


def refuses(problem: Problem) -> str | None:
    """Return why this backend cannot run the problem, or ``None``."""
    if problem.cell == "rnn_modrelu":
        return "torch has no fused RNN with modrelu"
    if problem.transformed:
        return "torch's fused recurrences have no rule for torch.func.vmap and forward-mode derivatives"
    return None


def loses(problem: Problem) -> str | None:
    """Return why another backend that can run the problem is to be preferred, or ``None``."""
    if not problem.factored and problem.device.type == "cpu":
        # Measured: 2.5 to 4 times torch.nn.LSTM's time, where the loop takes 1.4 to 2.6 times.
        return "an adaptive rule leaves ready gate inputs, which torch would multiply with an identity"
    return None


def rnn(
    inputs: GateInput,
    h_0: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    nonlinearity: str,
    modrelu_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run the RNN; arguments and result as in ``momentumrnn.kernels.reference.rnn``."""
    run = torch.rnn_tanh if nonlinearity == "tanh" else torch.rnn_relu
    output, h_n = run(*_arguments(inputs, h_0.unsqueeze(0), weight_hh, bias_hh))
    return output, h_n.squeeze(0)


def gru(inputs: GateInput, h_0: Tensor, weight_hh: Tensor, bias_hh: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the GRU; arguments and result as in ``momentumrnn.kernels.reference.gru``."""
    output, h_n = torch.gru(*_arguments(inputs, h_0.unsqueeze(0), weight_hh, bias_hh))
    return output, h_n.squeeze(0)


def lstm(
    inputs: GateInput,
    h_0: Tensor,
    c_0: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None,
    forget_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the LSTM; arguments and result as in ``momentumrnn.kernels.reference.lstm``."""
    state = (h_0.unsqueeze(0), c_0.unsqueeze(0))
    if not forget_gate:
        inputs, weight_hh, bias_hh = _with_open_forget_gate(inputs, weight_hh, bias_hh)
    output, h_n, c_n = torch.lstm(*_arguments(inputs, state, weight_hh, bias_hh, weight_hr))
    return output, h_n.squeeze(0), c_n.squeeze(0)


def _arguments(
    inputs: GateInput,
    state: Tensor | tuple[Tensor, Tensor],
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None = None,
) -> tuple[Any, ...]:
    """Return torch's argument list for one layer in one direction, dense or packed."""
    features, weight_ih, bias_ih = inputs.factors()
    has_biases = bias_hh is not None or bias_ih is not None
    weights = [weight_ih.to(weight_hh.dtype), weight_hh]
    if has_biases:
        zero = weight_hh.new_zeros(weight_hh.shape[0])
        weights += [zero if bias_ih is None else bias_ih, zero if bias_hh is None else bias_hh]
    if weight_hr is not None:
        weights.append(weight_hr)
    # train=True asks cuDNN to keep what backward needs, also for a module in eval mode.
    flags = (has_biases, 1, 0.0, torch.is_grad_enabled(), False)
    if inputs.packed is not None:
        return (features, inputs.packed.batch_sizes, state, weights, *flags)
    return (features, state, weights, *flags, False)


def _with_open_forget_gate(
    inputs: GateInput, weight_hh: Tensor, bias_hh: Tensor | None
) -> tuple[GateInput, Tensor, Tensor]:
    """Turn three gates into four, the forget gate held open by its bias alone."""
    features, weight_ih, bias_ih = inputs.factors()
    hidden = weight_hh.shape[0] // 3

    def widen(rows: Tensor, value: float) -> Tensor:
        i, rest = rows[:hidden], rows[hidden:]
        return torch.cat([i, torch.full_like(i, value), rest])

    bias = weight_hh.new_zeros(3 * hidden) if bias_hh is None else bias_hh
    widened = GateInput(
        features,
        widen(weight_ih, 0.0),
        None if bias_ih is None else widen(bias_ih, 0.0),
        packed=inputs.packed,
    )
    return widened, widen(weight_hh, 0.0), widen(bias, _OPEN_GATE)
