"""The recurrences on CUDA that cuDNN does not know, or is slower at: in Triton."""

from __future__ import annotations

import torch
from torch import Tensor

from momentumrnn.kernels.cuda.availability import interpreted, missing
from momentumrnn.kernels.cuda.launch import precision
from momentumrnn.kernels.cuda.recurrence import recurrence
from momentumrnn.kernels.cuda.tiling import device_of, lots, stays_close
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.one_recurrence import Recurrences
from momentumrnn.kernels.operands import FLOATING, cast, wide_dtype
from momentumrnn.kernels.problem import GATES, Problem, autocasts
from momentumrnn.kernels.tracing import constant

__all__ = ["gru", "loses", "lstm", "name", "refuses", "rnn", "runs_rules", "traceable"]

name = "triton"

# Up to so many units, half as many of so many sequences, cuDNN is faster over features and a matrix; and at
# any size where the sequences take more than so many lots.
_SMALL = {"lstm": 128, "gru": 128, "rnn_tanh": 256, "rnn_relu": 256}
_MANY, _MOST_LOTS = 256, 2


def refuses(problem: Problem) -> str | None:
    """Return why this backend cannot run the problem, or ``None``."""
    if problem.device.type != "cuda" and not (_interpreted() and problem.device.type == "cpu"):
        return "the Triton kernels run on CUDA"
    if reason := _missing():
        return reason
    if problem.dtype not in FLOATING:
        return f"the Triton kernels compute in float16, bfloat16, float32 and float64, not {problem.dtype}"
    if problem.projected:
        return "the Triton kernels have no projection of the hidden state"
    if problem.forward_mode:
        return "the Triton kernels have no rule for forward-mode derivatives and torch.func.functionalize"
    if problem.graph_of_gradient:
        return "the Triton kernels have no rule for torch.func.grad inside a graph"
    return None


@constant
def _interpreted() -> bool:
    return interpreted()


@constant
def _missing() -> str | None:
    return missing()


@constant
def _slower(cell: str, factored: bool, hidden: int, batch: int, dtype: torch.dtype, index: int | None) -> str:
    """Return why cuDNN is faster, or nothing. Measured on an H200, at 200 and 784 steps."""
    device = device_of(index)
    split = precision(cell, dtype, device) == "tf32x3"
    sizes = (hidden, GATES[cell], dtype.itemsize)
    if not stays_close(*sizes, device, split):
        return "U is too large to be kept in shared memory"
    # Of more lots one after the other each waits as long as cuDNN does at a step of all.
    if batch and lots(*sizes, batch, device, split) > _MOST_LOTS:
        return f"{batch} sequences are more than run at once with U in shared memory"
    small = _SMALL.get(cell, 0)
    # cuDNN has no such kernels in bfloat16; that of float64 has not been measured.
    if factored and dtype is not torch.bfloat16 and hidden <= (small // 2 if batch > _MANY else small):
        return "cuDNN is faster over features and a matrix of so few units"
    if factored and dtype is torch.float64 and cell in _SMALL:
        return "cuDNN runs the cell over features and a matrix"
    return ""


def loses(problem: Problem) -> str | None:
    """Return why another backend that can run the problem is to be preferred, or ``None``."""
    if problem.device.type != "cuda":
        return "Triton's interpreter is there for tests"
    if problem.one_step:
        return "the Triton kernels are for many steps"
    if problem.cell == "rnn_modrelu":
        return None
    dtype = torch.get_autocast_dtype("cuda") if problem.autocast else problem.dtype
    what = (problem.cell, problem.factored, problem.hidden, problem.batch)
    return _slower(*what, dtype, problem.device.index) or None


def traceable(problem: Problem) -> bool:
    """Whether torch.compile may look inside: the kernels are operators that it knows."""
    return True


def runs_rules(problem: Problem, asked_for: bool) -> bool:
    """Whether an adaptive rule runs in Triton: on CUDA, or wherever it can if this backend was asked for."""
    return refuses(problem) is None and (asked_for or problem.device.type == "cuda")


def _run(
    cell: str,
    inputs: GateInput,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    modrelu_bias: Tensor | None,
    h_0: Tensor,
    c_0: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    kind = weight_hh.device.type
    # Under autocast all but c is in its dtype, as in torch's own recurrences.
    dtype = torch.get_autocast_dtype(kind) if autocasts(weight_hh) else weight_hh.dtype
    d = cast("the gate inputs", inputs.multiplied(), dtype)
    weight_hh, h_0 = cast("weight_hh", weight_hh, dtype), cast("h_0", h_0, dtype)
    output, h_n, c_n = recurrence(
        cell,
        d,
        weight_hh,
        None if bias_hh is None else cast("bias_hh", bias_hh, dtype),
        None if modrelu_bias is None else cast("the bias of modrelu", modrelu_bias, dtype),
        h_0,
        None if c_0 is None else cast("c_0", c_0, wide_dtype(dtype)),
        None if inputs.packed is None else inputs.packed.batch_sizes,
        inputs.made_of if inputs.weight is None else inputs,
    )
    return output, h_n, c_n.to(dtype)


_recurrences = Recurrences(_run)
rnn, gru, lstm = _recurrences.rnn, _recurrences.gru, _recurrences.lstm
