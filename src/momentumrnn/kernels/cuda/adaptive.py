"""Adam and RMSProp in Triton as a layer calls them: differentiable, twice by way of torch's operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.kernels.adaptive import coefficients_of, scanned
from momentumrnn.kernels.cuda import adaptive_operator
from momentumrnn.kernels.cuda.adaptive_operator import BACKWARD, FORWARD
from momentumrnn.kernels.cuda.launch import total_dtype
from momentumrnn.kernels.derivatives import (
    gradients_again,
    holds_many,
    in_graph,
    may_be_asked_again,
    wants_gradient,
    without_operator,
)
from momentumrnn.kernels.operators import LIBRARY
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.rules import Adam, RMSProp, RuleState
from momentumrnn.rules.scan import without_autocast

__all__ = ["adaptive_rule"]


def adaptive_rule(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rule: Adam | RMSProp,
    state: RuleState,
    packed: PackedRows | None,
) -> tuple[Tensor, RuleState]:
    """Apply the rule to the drive of a whole sequence; see ``momentumrnn.kernels.adaptive.adaptive_rule``.

    v and m are in float32 at least, and so is the new state, whatever the drive is in.
    """
    drive = F.linear(x, weight, bias)
    wide = total_dtype(drive.dtype)
    with without_autocast(x.device):
        coefficients = coefficients_of(rule, drive.shape[-1], wide, drive.device)
        v_0 = m_0 = None
        if state is not None:
            m_0 = state.second_moment.to(wide)
            v_0 = state.velocity.to(wide) if isinstance(rule, Adam) else None
        sizes = None if packed is None else packed.batch_sizes
        batch = x.shape[1] if packed is None else packed.lengths.shape[0]
        train = wants_gradient((drive, coefficients, v_0, m_0))
        run: Any = torch.ops.momentumrnn.triton_adaptive_rule
        if not in_graph(drive):
            run = _adaptive_rule if train else adaptive_operator.forward
        d, v_n, m_n, _ = run(drive, coefficients, rule.eps, v_0, m_0, sizes, batch, train)
    return d, rule.state_type(v_n, m_n) if isinstance(rule, Adam) else rule.state_type(m_n)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    drive, coefficients, ctx.eps, v_0, m_0, batch_sizes, ctx.batch, _ = inputs
    ctx.save_for_backward(drive, coefficients, v_0, m_0, batch_sizes, output[3])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_v_n: Any, grad_m_n: Any, _: Any) -> Any:
    drive, coefficients, v_0, m_0, batch_sizes, saved = ctx.saved_tensors
    if grad is None:
        grad = torch.zeros_like(drive)
    needs = ctx.needs_input_grad
    wanted = (needs[0], needs[1], needs[3], needs[4])
    tensors, incoming = (drive, coefficients, v_0, m_0), (grad, grad_v_n, grad_m_n)
    through: Any = adaptive_operator.backward
    if in_graph(grad):
        through = torch.ops.momentumrnn.triton_adaptive_rule_backward
    elif holds_many(*incoming):
        given = _in_torch(ctx.eps, batch_sizes, tensors, incoming, wanted)
        return (*given[:2], None, *given[2:], None, None, None)
    elif may_be_asked_again():
        through = _adaptive_rule_backward
    found = through(drive, coefficients, ctx.eps, v_0, m_0, batch_sizes, ctx.batch, saved, *incoming)
    given = [each if want else None for each, want in zip(found, wanted, strict=True)]
    return (*given[:2], None, *given[2:], None, None, None)


def _in_torch(
    eps: float,
    batch_sizes: Tensor | None,
    tensors: Sequence[Tensor | None],
    incoming: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Compute the gradients by way of torch's operators, which can be differentiated again."""

    def run(drive: Any, coefficients: Any, v_0: Any, m_0: Any) -> tuple[Tensor, ...]:
        d, v_n, m_n = scanned(drive, coefficients, eps, v_0, m_0, batch_sizes)
        return d.to(drive.dtype), v_n, m_n

    return gradients_again(run, tensors, incoming, wanted)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    drive, coefficients, ctx.eps, v_0, m_0, batch_sizes, _, _, grad, grad_v_n, grad_m_n = inputs
    ctx.save_for_backward(drive, coefficients, v_0, m_0, batch_sizes, grad, grad_v_n, grad_m_n)
    ctx.set_materialize_grads(False)


def _backward_of_backward(ctx: Any, *grads: Tensor | None) -> Any:
    """Differentiate once more, by way of what can be."""
    *tensors, batch_sizes, grad, grad_v_n, grad_m_n = ctx.saved_tensors

    def first(*given: Any) -> list[Tensor | None]:
        wanted = [tensor is not None for tensor in given[:4]]
        return _in_torch(ctx.eps, batch_sizes, given[:4], given[4:], wanted)

    needs = ctx.needs_input_grad
    given = (*tensors, grad, grad_v_n, grad_m_n)
    found = gradients_again(first, given, grads, (*needs[:2], *needs[3:5], *needs[8:11]))
    return (*found[:2], None, *found[2:4], None, None, None, *found[4:])


_adaptive_rule = without_operator("_AdaptiveRule", adaptive_operator.forward, _setup, _backward)


_adaptive_rule_backward = without_operator(
    "_AdaptiveRuleBackward", adaptive_operator.backward, _setup_backward, _backward_of_backward
)


torch.library.register_autograd(FORWARD, _backward, setup_context=_setup, lib=LIBRARY)
torch.library.register_autograd(
    BACKWARD,
    _backward_of_backward,
    setup_context=_setup_backward,
    lib=LIBRARY,
)
