"""A recurrence in C++ as a layer calls it: differentiable, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels import recurrence_operator, reference
from momentumrnn.kernels.adaptive import adaptive_rule
from momentumrnn.kernels.adaptive_operator import RuleInputs
from momentumrnn.kernels.derivatives import (
    gradients_again,
    holds_many,
    in_graph,
    may_be_asked_again,
    one_by_one,
    refuse_second_derivative,
    wants_gradient,
    without_operator,
)
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.operators import LIBRARY
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.kernels.problem import transforms
from momentumrnn.kernels.recurrence_operator import RecurrenceInputs

__all__ = ["gradients_by_reference", "recurrence"]


def recurrence(inputs: RecurrenceInputs, made_of: RuleInputs | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Run a cell over a sequence.

    Args:
        inputs: the cell and what it runs on.
        made_of: what a rule made the features of, where they are gate inputs.

    Returns:
        All h_t, the last h, and the last c (empty but for an LSTM).
    """
    differentiable = inputs.differentiable
    train = wants_gradient(differentiable)
    run: Any = torch.ops.momentumrnn.recurrence
    arguments: tuple[Any, ...] = (*inputs, train)
    if not in_graph(*differentiable):
        run = _recurrence if train else recurrence_operator.forward
        # Where the rule has a gradient, what it was made of is saved by the rule, too.
        made_again = made_of is not None and inputs.weight_ih is None and inputs.features.requires_grad
        if train and made_again and not transforms():
            run, arguments = _recurrence_after_rule, (*arguments, made_of)
    output, h_n, c_n, _, _ = run(*arguments)
    return output, h_n, c_n


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cell, *tensors, _ = inputs
    out, _, _, gates, cells = output
    ctx.cell = cell
    ctx.save_for_backward(*tensors, out, gates, cells)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, grad_h_n: Tensor | None, grad_c_n: Any, *_: Any) -> Any:
    *tensors, output, gates, cells = ctx.saved_tensors
    inputs = RecurrenceInputs(ctx.cell, *tensors)
    return _gradients(ctx, inputs, (output, gates, cells), grad_output, grad_h_n, grad_c_n)


def _setup_after_rule(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save what the gate inputs were made of in their place: they are as large as all gates."""
    cell, features, *tensors, _, made_of = inputs
    out, _, _, gates, cells = output
    ctx.cell, ctx.eps, ctx.shape = cell, made_of.eps, features.shape
    ctx.save_for_backward(*made_of[:4], *made_of[5:], *tensors, out, gates, cells)
    ctx.set_materialize_grads(False)


def _backward_after_rule(ctx: Any, grad_output: Tensor | None, *grads: Any) -> Any:
    *saved, output, gates, cells = ctx.saved_tensors
    made_of = RuleInputs._make((*saved[:4], ctx.eps, *saved[4:7]))
    if may_be_asked_again() or holds_many(grad_output, *grads[:2]):
        features = adaptive_rule.once_more(made_of)
    else:
        # The kernel asks for no more than their shape.
        features = output.new_empty(()).expand(ctx.shape)
    inputs = RecurrenceInputs(ctx.cell, features, *saved[7:])
    return *_gradients(ctx, inputs, (output, gates, cells), grad_output, *grads[:2]), None


def _gradients(
    ctx: Any,
    inputs: RecurrenceInputs,
    kept: tuple[Tensor, Tensor, Tensor],
    grad_output: Tensor | None,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
) -> tuple[Any, ...]:
    output = kept[0]
    if grad_output is None:
        grad_output = torch.zeros_like(output)
    wanted = list(ctx.needs_input_grad[1:9])
    incoming = (grad_output, grad_h_n, grad_c_n)
    through: Any = recurrence_operator.backward
    if in_graph(*incoming):
        through = torch.ops.momentumrnn.recurrence_backward
    elif holds_many(*incoming):
        return None, *gradients_by_reference(inputs, incoming, wanted), None, None
    elif may_be_asked_again():
        through = _RecurrenceBackward.apply
    grads = through(*inputs, *kept, *incoming, wanted)
    return (
        None,
        *(grad if want else None for grad, want in zip(grads, wanted, strict=True)),
        None,
        None,
    )


def gradients_by_reference(
    inputs: RecurrenceInputs, incoming: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Compute the gradients by way of the reference loop, which can be differentiated again.

    It runs in float32 at least: beside fewer bits an LSTM has its c in that.
    """
    dtype = torch.promote_types(inputs.weight_hh.dtype, torch.float32)

    def widened(tensors: Sequence[Any]) -> list[Any]:
        return [None if tensor is None else tensor.to(dtype) for tensor in tensors]

    def run(*differentiable: Any) -> tuple[Tensor, ...]:
        given = RecurrenceInputs._make((inputs.cell, *widened(differentiable), inputs.batch_sizes))
        packed = None if given.batch_sizes is None else PackedRows(given.batch_sizes, given.features.device)
        gates = GateInput(given.features, given.weight_ih, given.bias_ih, packed=packed)
        h_0, weight_hh, bias_hh = given.h_0, given.weight_hh, given.bias_hh
        if given.cell == "gru":
            return reference.gru(gates, h_0, weight_hh, bias_hh)
        if given.c_0 is not None:
            return reference.lstm(gates, h_0, given.c_0, weight_hh, bias_hh, None, given.cell == "lstm")
        return reference.rnn(
            gates, h_0, weight_hh, bias_hh, given.cell.removeprefix("rnn_"), given.modrelu_bias
        )

    return gradients_again(run, inputs.differentiable, widened(incoming), wanted)


def _forward_after_rule(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(recurrence_operator.forward(*arguments[:-1]))


_recurrence = without_operator("_Recurrence", recurrence_operator.forward, _setup, _backward)
_recurrence_after_rule = without_operator(
    "_RecurrenceAfterRule", _forward_after_rule, _setup_after_rule, _backward_after_rule
)


class _RecurrenceBackward(torch.autograd.Function):
    """The backward pass where its own derivative may be asked for, which is the reference's."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(recurrence_operator.backward(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.cell, *tensors, _, _, _, grad_output, grad_h_n, grad_c_n, ctx.wanted = inputs
        ctx.save_for_backward(*tensors, grad_output, grad_h_n, grad_c_n)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        *tensors, batch_sizes, grad_output, grad_h_n, grad_c_n = ctx.saved_tensors

        def first(*given: Any) -> list[Tensor | None]:
            inputs = RecurrenceInputs._make((ctx.cell, *given[:8], batch_sizes))
            return gradients_by_reference(inputs, given[8:], ctx.wanted)

        needs = ctx.needs_input_grad
        given = (*tensors, grad_output, grad_h_n, grad_c_n)
        found = gradients_again(first, given, grads, (*needs[1:9], *needs[13:16]))
        # Nothing for what the forward pass left: it hangs on the inputs, by which it was computed again.
        return None, *found[:8], None, None, None, None, *found[8:], None


one_by_one(_RecurrenceBackward)

torch.library.register_autograd("momentumrnn::recurrence", _backward, setup_context=_setup, lib=LIBRARY)
torch.library.register_autograd("momentumrnn::recurrence_backward", refuse_second_derivative, lib=LIBRARY)
