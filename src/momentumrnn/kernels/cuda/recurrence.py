"""A recurrence in Triton as a layer calls it: differentiable, twice by way of the reference loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels.adaptive_operator import RuleInputs
from momentumrnn.kernels.cuda import recurrence_operator
from momentumrnn.kernels.cuda.adaptive import once_more
from momentumrnn.kernels.cuda.recurrence_operator import BACKWARD, FORWARD
from momentumrnn.kernels.derivatives import (
    gradients_again,
    holds_many,
    in_graph,
    may_be_asked_again,
    wants_gradient,
    without_operator,
)
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.operators import LIBRARY
from momentumrnn.kernels.problem import transforms
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
    made_of: RuleInputs | GateInput | None = None,
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
        made_of: what a rule, or a product, made d of, if nobody but this needs d; where gradients are wanted
            the gates may then be kept in its place.

    Returns:
        All h_t, the last h, and the last c in c_0's dtype (empty but for an LSTM).
    """
    tensors = (d, weight_hh, bias_hh, modrelu_bias, h_0, c_0)
    train = wants_gradient(tensors)
    run: Any = torch.ops.momentumrnn.triton_recurrence
    arguments: tuple[Any, ...] = (cell, *tensors, batch_sizes, train)
    if not in_graph(*tensors):
        run = _recurrence if train else recurrence_operator.forward
        # Where d has a gradient, what it was made of is saved for that, too.
        if train and made_of is not None and d.requires_grad and not transforms():
            run, arguments = _recurrence_over_d, (*arguments, made_of)
    output, h_n, c_n, _, _ = run(*arguments)
    return output, h_n, c_n


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.cell, *tensors, _ = inputs
    ctx.save_for_backward(*tensors, output[0], output[3], output[4])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, grad_h_n: Tensor | None, grad_c_n: Any, *_: Any) -> Any:
    *tensors, output, gates, cells = ctx.saved_tensors
    return *_gradients(ctx, tensors, (output, gates, cells), (grad_output, grad_h_n, grad_c_n)), None


def _forward_over_d(*arguments: Any) -> tuple[Tensor, ...]:
    return recurrence_operator.forward_over_d(*arguments[:-1])


def _setup_over_d(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save what the gate inputs were made of in their place: they are as large as all gates."""
    ctx.cell, d, *tensors, _, made_of = inputs
    ctx.shape, ctx.kind = d.shape, type(made_of)
    # save_for_backward takes no numbers.
    ctx.rest = [None if isinstance(part, Tensor) else part for part in made_of]
    parts = [part if isinstance(part, Tensor) else None for part in made_of]
    ctx.save_for_backward(*parts, *tensors, output[0], output[3], output[4])
    ctx.set_materialize_grads(False)


def _backward_over_d(ctx: Any, *grads: Any) -> Any:
    *saved, output, gates, cells = ctx.saved_tensors
    parts, tensors = saved[: len(ctx.rest)], saved[len(ctx.rest) :]
    if may_be_asked_again() or holds_many(*grads[:3]):
        both = zip(parts, ctx.rest, strict=True)
        d = _made(ctx.kind._make(rest if part is None else part for part, rest in both), output.dtype)
    else:
        # The kernel asks for no more than its shape.
        d = output.new_empty(()).expand(ctx.shape)
    return *_gradients(ctx, [d, *tensors], (output, gates, cells), grads[:3]), None, None


def _made(inputs: RuleInputs | GateInput, dtype: torch.dtype) -> Tensor:
    """Make d once more, in its own dtype."""
    if isinstance(inputs, GateInput):
        # What autocast did, which may be over by now.
        weight, bias = (None if part is None else part.to(dtype) for part in inputs[1:3])
        factors = inputs._replace(features=inputs.features.to(dtype), weight=weight, bias=bias)
        return factors.multiplied().to(dtype)
    return once_more(inputs).to(dtype)


def _gradients(
    ctx: Any, tensors: Sequence[Any], kept: tuple[Tensor, Tensor, Tensor], grads: Sequence[Tensor | None]
) -> tuple[Any, ...]:
    """Return the gradients of all that the forward pass was given but for its last arguments."""
    wanted = ctx.needs_input_grad[1:7]
    incoming = (torch.zeros_like(kept[0]) if grads[0] is None else grads[0], *grads[1:])
    through: Any = recurrence_operator.backward
    if in_graph(*incoming):
        through = torch.ops.momentumrnn.triton_recurrence_backward
    elif holds_many(*incoming):
        return None, *_in_torch(ctx.cell, tensors, incoming, wanted), None
    elif may_be_asked_again():
        through = _recurrence_backward
    elif not torch._C._autograd._get_current_graph_task_keep_graph():
        # Nobody will read the gates again.
        through = recurrence_operator.backward_over_gates
    found = through(ctx.cell, *tensors, *kept, *incoming)
    return None, *(grad if want else None for grad, want in zip(found, wanted, strict=True)), None


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


_recurrence_over_d = without_operator("_RecurrenceOverD", _forward_over_d, _setup_over_d, _backward_over_d)


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
