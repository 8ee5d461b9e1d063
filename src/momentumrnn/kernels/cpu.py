"""The recurrences in C++, for float32 and float64 on the CPU; built with the package, or not there."""

from __future__ import annotations

from torch import Tensor

from momentumrnn.kernels.extension import missing, warn_if_missing
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.one_recurrence import Recurrences
from momentumrnn.kernels.operands import COMPUTED_IN_CPP, cast
from momentumrnn.kernels.problem import Problem
from momentumrnn.kernels.recurrence import recurrence
from momentumrnn.kernels.recurrence_operator import RecurrenceInputs
from momentumrnn.kernels.tracing import constant

__all__ = ["gru", "loses", "lstm", "name", "refuses", "rnn", "traceable"]

name = "cpu"


def refuses(problem: Problem) -> str | None:
    """Return why this backend cannot run the problem, or ``None``."""
    if problem.device.type != "cpu":
        return "the C++ kernels run on the CPU"
    if problem.dtype not in COMPUTED_IN_CPP:
        return f"the C++ kernels compute in float32 and float64, not {problem.dtype}"
    if problem.autocast:
        return "under autocast the C++ kernels would have nothing to compute in"
    if problem.projected:
        return "the C++ kernels have no projection of the hidden state"
    if problem.forward_mode:
        return "the C++ kernels have no rule for forward-mode derivatives and torch.func.functionalize"
    if problem.graph_of_gradient:
        return "the C++ kernels have no rule for torch.func.grad inside a graph"
    return _absence()


@constant
def _absence() -> str | None:
    if text := missing():
        warn_if_missing()
    return text


def loses(problem: Problem) -> str | None:
    """Return why another backend that can run the problem is to be preferred, or ``None``."""
    if problem.one_step:
        # Measured, batches 1 to 256 of 128 to 512 units: up to 5 times torch's time, and hardly ever less.
        return "the C++ kernels would rearrange the weights for a single step"
    return None


def traceable(problem: Problem) -> bool:
    """Whether torch.compile may look inside: the kernels are operators that it knows."""
    return True


def _run(
    cell: str,
    inputs: GateInput,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    modrelu_bias: Tensor | None,
    h_0: Tensor,
    c_0: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    features, weight, bias = inputs.factors_if_any()
    dtype = weight_hh.dtype
    return recurrence(
        RecurrenceInputs(
            cell,
            features if features.dtype is dtype else cast("what enters the gates", features, dtype),
            weight
            if weight is None or weight.dtype is dtype
            else cast("weight_ih and bias_ih", weight, dtype),
            bias,
            weight_hh,
            bias_hh,
            modrelu_bias,
            h_0,
            c_0,
            None if inputs.packed is None else inputs.packed.batch_sizes,
        ),
        inputs.made_of,
    )


_recurrences = Recurrences(_run)
rnn, gru, lstm = _recurrences.rnn, _recurrences.gru, _recurrences.lstm
