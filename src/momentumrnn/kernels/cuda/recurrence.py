"""A recurrence in Triton as a layer calls it: differentiable, twice by way of the reference loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels.cuda import recurrence_operator
from momentumrnn.kernels.cuda.recurrence_operator import BACKWARD, FORWARD
from momentumrnn.kernels.derivatives import (
    gradients_again,
    holds_many,
    in_graph,
    may_be_asked_again,
    wants_gradient,
    without_operator,
)
from momentumrnn.kernels.operators import LIBRARY
from momentumrnn.kernels.recurrence import gradients_by_reference
from momentumrnn.kernels.recurrence_operator import RecurrenceInputs

__all__ = ["recurrence"]


def recurrence(
    cell: str,
    d: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    modrelu_bias: Tensor | None,
    h_0: Tensor,
    c_0: Tensor | None,
    batch_sizes: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a cell over a sequence.

    Args:
        cell: a ``momentumrnn.kernels.problem.Cell``.
        d: the gate inputs, (T, B, G·h), or the rows (N, G·h) of a packed batch.
        weight_hh: (G·h, h), of d's dtype, as are all others but c_0.
        bias_hh: (G·h,) or ``None``.
        modrelu_bias: (h,) for modrelu.
        h_0: (B, h).
        c_0: (B, h) for an LSTM, in float32 at least.
        batch_sizes: int64 (T,) on the CPU for a packed batch.

    Returns:
        All h_t, the last h, and the last c in c_0's dtype (empty but for an LSTM).
    """
    tensors = (d, weight_hh, bias_hh, modrelu_bias, h_0, c_0)
    train = wants_gradient(tensors)
    run: Any = torch.ops.momentumrnn.triton_recurrence
    if not in_graph(d):
        run = _recurrence if train else recurrence_operator.forward
    output, h_n, c_n, _, _ = run(cell, *tensors, batch_sizes, train)
    return output, h_n, c_n


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.cell, *tensors, _ = inputs
    ctx.save_for_backward(*tensors, output[0], output[3], output[4])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, grad_h_n: Tensor | None, grad_c_n: Any, *_: Any) -> Any:
    *tensors, output, gates, cells = ctx.saved_tensors
    if grad_output is None:
        grad_output = torch.zeros_like(output)
    wanted = ctx.needs_input_grad[1:7]
    incoming = (grad_output, grad_h_n, grad_c_n)
    through: Any = recurrence_operator.backward
    if in_graph(grad_output):
        through = torch.ops.momentumrnn.triton_recurrence_backward
    elif holds_many(*incoming):
        return None, *_in_torch(ctx.cell, tensors, incoming, wanted), None, None
    elif may_be_asked_again():
        through = _recurrence_backward
    grads = through(ctx.cell, *tensors, output, gates, cells, *incoming)
    return None, *(grad if want else None for grad, want in zip(grads, wanted, strict=True)), None, None


def _in_torch(
    cell: str, tensors: Sequence[Any], incoming: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Compute the gradients by way of the reference loop, which can be differentiated again."""
    d, *rest = tensors
    inputs = RecurrenceInputs._make((cell, d, None, None, *rest))
    found = gradients_by_reference(inputs, incoming, [wanted[0], False, False, *wanted[1:]])
    return [found[0], *found[3:]]


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.cell, *tensors = inputs
    tensors[7:10] = []
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _backward_of_backward(ctx: Any, *grads: Tensor | None) -> Any:
    """Differentiate once more, by way of the reference loop."""
    d, *rest, batch_sizes, grad_output, grad_h_n, grad_c_n = ctx.saved_tensors

    def first(*given: Any) -> list[Tensor | None]:
        wanted = [tensor is not None for tensor in given[:6]]
        return _in_torch(ctx.cell, (*given[:6], batch_sizes), given[6:], wanted)

    needs = ctx.needs_input_grad
    given = (d, *rest, grad_output, grad_h_n, grad_c_n)
    found = gradients_again(first, given, grads, (*needs[1:7], *needs[11:14]))
    return None, *found[:6], None, None, None, None, *found[6:]


_recurrence = without_operator("_Recurrence", recurrence_operator.forward, _setup, _backward)


_recurrence_backward = without_operator(
    "_RecurrenceBackward", recurrence_operator.backward, _setup_backward, _backward_of_backward
)


torch.library.register_autograd(FORWARD, _backward, setup_context=_setup, lib=LIBRARY)
torch.library.register_autograd(
    BACKWARD,
    _backward_of_backward,
    setup_context=_setup_backward,
    lib=LIBRARY,
)
