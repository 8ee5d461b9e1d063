"""torch's own fused recurrences (oneDNN, cuDNN, ATen), over whatever features the rule left.

A linear rule needs nothing else: a MomentumLSTM is an LSTM over a filtered input. A single step goes to the
operators behind torch's cells.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.operands import cast
from momentumrnn.kernels.problem import Problem, autocasts
from momentumrnn.rules.scan import without_autocast

__all__ = ["gru", "loses", "lstm", "name", "refuses", "rnn", "traceable"]

name = "torch"

# σ of this is 1 to the last bit in float64, and its derivative too small to reach any weight.
_OPEN_GATE = 100.0


def refuses(problem: Problem) -> str | None:
    """Return why this backend cannot run the problem, or ``None``."""
    if problem.cell == "rnn_modrelu":
        return "torch has no fused RNN with modrelu"
    if problem.transformed:
        return "torch's fused recurrences have no rule for torch.func.vmap and forward-mode derivatives"
    if problem.device.type == "cpu" and problem.cell.startswith("lstm"):
        dtype = torch.get_autocast_dtype("cpu") if problem.autocast else problem.dtype
        if dtype is torch.float16:
            return "torch's fused LSTM has no float16 on most CPUs"
    return None


def loses(problem: Problem) -> str | None:
    """Return why another backend that can run the problem is to be preferred, or ``None``."""
    if problem.one_step and problem.cell == "lstm_without_forget_gate":
        return "torch would need a copy of the weights, with a forget gate, for a single step"
    if not problem.factored and (problem.one_step or problem.device.type == "cpu"):
        # Measured: 2.5 to 4 times torch.nn.LSTM's time, where the loop takes 1.4 to 2.6 times.
        return "an adaptive rule leaves ready gate inputs, which torch would multiply with an identity"
    return None


def traceable(problem: Problem) -> bool:
    """Whether torch.compile may look inside: it cannot trace torch's operators for a whole sequence."""
    return problem.one_step and not problem.projected and not problem.autocast


def rnn(
    inputs: GateInput,
    h_0: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    nonlinearity: str,
    modrelu_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Run the RNN; arguments and result as in ``momentumrnn.kernels.reference.rnn``."""
    if _has_an_operator(inputs):
        step = torch.rnn_tanh_cell if nonlinearity == "tanh" else torch.rnn_relu_cell
        h = step(*_arguments_of_a_step(inputs, h_0, weight_hh, bias_hh))
        return h.unsqueeze(0), h
    run = torch.rnn_tanh if nonlinearity == "tanh" else torch.rnn_relu
    output, h_n = _run(run, inputs, (h_0,), weight_hh, bias_hh)
    return output, h_n


def gru(inputs: GateInput, h_0: Tensor, weight_hh: Tensor, bias_hh: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the GRU; arguments and result as in ``momentumrnn.kernels.reference.gru``."""
    if _has_an_operator(inputs):
        h = torch.gru_cell(*_arguments_of_a_step(inputs, h_0, weight_hh, bias_hh))
        return h.unsqueeze(0), h
    output, h_n = _run(torch.gru, inputs, (h_0,), weight_hh, bias_hh)
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
    """Run the LSTM; arguments and result as in ``momentumrnn.kernels.reference.lstm``."""
    if not forget_gate:
        inputs, weight_hh, bias_hh = _with_open_forget_gate(inputs, weight_hh, bias_hh)
    if weight_hr is None and _has_an_operator(inputs):
        h, c = torch.lstm_cell(*_arguments_of_a_step(inputs, (h_0, c_0), weight_hh, bias_hh))
        return h.unsqueeze(0), h, c
    output, h_n, c_n = _run(torch.lstm, inputs, (h_0, c_0), weight_hh, bias_hh, weight_hr)
    return output, h_n, c_n


def _has_an_operator(inputs: GateInput) -> bool:
    """Whether torch has an operator for just this: a single step, outside autocast."""
    # Under autocast torch's cells answer in another dtype than its recurrences.
    return inputs.one_step and not autocasts(inputs.features)


def _arguments_of_a_step(
    inputs: GateInput,
    state: Tensor | tuple[Tensor, Tensor],
    weight_hh: Tensor,
    bias_hh: Tensor | None,
) -> tuple[Any, ...]:
    """Return the argument list of torch's operator for one step."""
    features, weights = _features_and_weights(inputs, weight_hh, bias_hh)
    return (features[0], state, *weights)


def _features_and_weights(
    inputs: GateInput, weight_hh: Tensor, bias_hh: Tensor | None
) -> tuple[Tensor, list[Tensor]]:
    """Return the features, the two weights, and two biases or none."""
    features, weight_ih, bias_ih = inputs.factors()
    if weight_ih.dtype != weight_hh.dtype:
        weight_ih = cast("weight_ih and bias_ih", weight_ih, weight_hh.dtype)
    weights = [weight_ih, weight_hh]
    if bias_hh is not None or bias_ih is not None:
        weights += [_or_zeros(bias_ih, weight_hh), _or_zeros(bias_hh, weight_hh)]
    return features, weights


def _or_zeros(bias: Tensor | None, weight_hh: Tensor) -> Tensor:
    return weight_hh.new_zeros(weight_hh.shape[0]) if bias is None else bias


def _run(
    operator: Callable[..., Any],
    inputs: GateInput,
    state: tuple[Tensor, ...],
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None = None,
) -> Any:
    """Run torch's operator for one layer in one direction, dense or packed."""
    features, weights = _features_and_weights(inputs, weight_hh, bias_hh)
    has_biases = len(weights) == 4
    if weight_hr is not None:
        weights.append(weight_hr)
    state = tuple(each.unsqueeze(0) for each in state)
    device = weight_hh.device
    outside: AbstractContextManager[Any] = nullcontext()
    if device.type == "cuda" and autocasts(weight_hh):
        # By hand: torch's own answers in float16 whatever dtype was asked for.
        dtype, outside = torch.get_autocast_dtype("cuda"), without_autocast(device)
        features, state = features.to(dtype), tuple(each.to(dtype) for each in state)
        weights = [weight.to(dtype) for weight in weights]
    if _wants_one_buffer(device):
        weights = _in_one_buffer(weights)
    # An LSTM's states come as a tuple, the others' one by itself.
    given = state if len(state) > 1 else state[0]
    # train=True asks cuDNN to keep what backward needs, also for a module in eval mode.
    flags = (has_biases, 1, 0.0, torch.is_grad_enabled(), False)
    with outside:
        if inputs.packed is not None:
            output, *states = operator(features, inputs.packed.batch_sizes, given, weights, *flags)
        else:
            output, *states = operator(features, given, weights, *flags, False)
    return output, *(each.squeeze(0) for each in states)


def _wants_one_buffer(device: torch.device) -> bool:
    """Whether torch hands the weights to cuDNN, as they are if they lie as cuDNN wants them."""
    return device.type == "cuda"


def _in_one_buffer(weights: list[Tensor]) -> list[Tensor]:
    """Return the weights as parts of one buffer in cuDNN's order, which torch else makes, with a warning.

    Made at each call and not kept: [W, bias_ih] is a new tensor anyway, and one that is kept would have to
    be followed through ``.to()``, deepcopy, ``load_state_dict`` and functional calls.
    """
    # Matrices before vectors.
    order = sorted(range(len(weights)), key=lambda k: -weights[k].dim())
    buffer = torch.cat([weights[k].reshape(-1) for k in order])
    parts = dict(zip(order, buffer.split([weights[k].numel() for k in order]), strict=True))
    return [parts[k].view(weight.shape) for k, weight in enumerate(weights)]


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
