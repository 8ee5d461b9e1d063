"""The rules that run channel by channel in C++ or Triton, as a layer calls them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.kernels import adaptive_operator
from momentumrnn.kernels.adaptive_operator import ADAPTIVE, RuleInputs
from momentumrnn.kernels.channel_scan import channel_scan
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
from momentumrnn.kernels.operators import LIBRARY
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.kernels.problem import autocasts, transforms
from momentumrnn.rules import Adam, RMSProp, RuleState
from momentumrnn.rules.base import last_step
from momentumrnn.rules.scan import linear_scan, without_autocast

__all__ = ["AdaptiveRule", "adaptive_rule", "coefficients_of", "scanned"]


class AdaptiveRule:
    """A rule by one device's operator: differentiable, whoever asks. Called as Adam or RMSProp.

    Args:
        operator: its name in torch's registry, that of the backward pass with ``_backward`` behind it.
        forward: what it computes, on a ``RuleInputs``, whether anybody will ask for gradients, and d's dtype.
        backward: its backward pass.
    """

    def __init__(
        self, operator: str, forward: Callable[..., Any], backward: Callable[..., list[Tensor]]
    ) -> None:
        self._operator = operator
        self._forward, self._through = forward, backward
        self._apply = without_operator("_AdaptiveRule", forward, _setup, self._backward)
        self._differentiable_backward = _differentiable(backward)
        name = f"{LIBRARY.ns}::{operator}"
        torch.library.register_autograd(name, self._backward, setup_context=_setup, lib=LIBRARY)
        torch.library.register_autograd(f"{name}_backward", refuse_second_derivative, lib=LIBRARY)

    def __call__(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rule: Adam | RMSProp,
        state: RuleState,
        packed: PackedRows | None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Tensor, RuleState, RuleInputs]:
        """Apply the rule to the drive a = x weightᵀ + bias of a whole sequence, (15).

        v and m are in float32 at least, and so is the new state, whatever the drive is in.

        Args:
            x: (T, B, d), or the rows (N, d) of a packed batch.
            weight: (C, d).
            bias: (C,) or ``None``.
            rule: the rule, bound to C channels.
            state: the rule's state, batch first, or ``None``.
            packed: the packed batch's places.
            dtype: what d is wanted in; the weight's dtype where absent.

        Returns:
            d, (T, B, C) or (N, C); the state after each sequence's own last step; and what d was made of.
        """
        wide = torch.promote_types(weight.dtype, torch.float32)
        coefficients = coefficients_of(rule, weight.shape[0], wide, weight.device)
        v_0 = m_0 = None
        if state is not None:
            m_0 = state.second_moment.to(wide)
            v_0 = state.velocity.to(wide) if isinstance(rule, Adam) else None
        sizes = None if packed is None else packed.batch_sizes
        inputs = RuleInputs(x.to(weight.dtype), weight, bias, coefficients, rule.eps, v_0, m_0, sizes)
        d, v_n, m_n = self.run(inputs, dtype)
        return d, rule.state_type(v_n, m_n) if isinstance(rule, Adam) else rule.state_type(m_n), inputs

    def run(self, inputs: RuleInputs, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Run the rule that the coefficients belong to.

        Returns:
            d, and the states v and m after each sequence's own last step.
        """
        train = wants_gradient(inputs.differentiable)
        run: Any = self._apply if train else self._forward
        if in_graph(*inputs.differentiable):
            run = getattr(torch.ops.momentumrnn, self._operator)
        d, v_n, m_n, *_ = run(*inputs, train, dtype)
        return d, v_n, m_n

    def once_more(self, inputs: RuleInputs) -> Tensor:
        """Make d of its inputs again, in their dtype, differentiable if they are."""
        d: Tensor = self._apply(*inputs, True, None)[0]
        return d

    def _backward(self, ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        # Once: a checkpoint gives them a single time.
        saved = ctx.saved_tensors
        # Some call backward inside the block, too, and the drive may have to be made again.
        outside = without_autocast(saved[0].device) if autocasts(saved[0]) else nullcontext()
        with outside:
            return self._gradients(ctx, saved, *grads[:3])

    def _gradients(
        self,
        ctx: Any,
        tensors: Sequence[Any],
        grad: Tensor | None,
        grad_v_n: Tensor | None,
        grad_m_n: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        x, weight, bias, coefficients, v_0, m_0, batch_sizes, saved, product = tensors
        inputs = RuleInputs(x, weight, bias, coefficients, ctx.eps, v_0, m_0, batch_sizes)
        if grad is None:
            grad = x.new_zeros(inputs.output_shape)
        needs = ctx.needs_input_grad
        wanted = [*needs[:4], needs[5], needs[6]]
        incoming = (grad, grad_v_n, grad_m_n)
        through: Any = self._through
        if in_graph(*incoming):
            through = getattr(torch.ops.momentumrnn, f"{self._operator}_backward")
        elif holds_many(*incoming):
            given = _gradients_in_torch(inputs, incoming, wanted)
            return (*given[:4], None, *given[4:], None, None, None)
        elif may_be_asked_again():
            through = self._differentiable_backward
        grads = through(*inputs, saved, product, *incoming, wanted)
        given = [each if want else None for each, want in zip(grads, wanted, strict=True)]
        return (*given[:4], None, *given[4:], None, None, None)


def coefficients_of(rule: Adam | RMSProp, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return μ, s, β and 1 - β of every channel, (4, C)."""
    momentum = rule.momentum if isinstance(rule, Adam) else 0.0
    # 1 - β apart from β: float32 would lose what is left of it.
    beta = rule.beta
    values = (momentum, rule.step_size, beta, 1.0 - beta)
    if not (any(isinstance(value, Tensor) for value in values) or in_graph() or transforms()):
        return _fixed(values, channels, dtype, device)

    def row(value: float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(dtype).expand(channels)
        return torch.full((channels,), value, dtype=dtype, device=device)

    return torch.stack([row(value) for value in values])


@lru_cache(maxsize=64)
def _fixed(values: tuple[float, ...], channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # One made inside inference mode could not be kept for a backward pass outside.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).unsqueeze(1).repeat(1, channels)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.eps, v_0, m_0, batch_sizes, _, _ = inputs
    ctx.save_for_backward(*tensors, v_0, m_0, batch_sizes, *output[3:])
    ctx.set_materialize_grads(False)


def _gradients_in_torch(
    inputs: RuleInputs, incoming: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Compute the gradients by way of what can be differentiated again."""
    eps, batch_sizes = inputs.eps, inputs.batch_sizes

    def run(x: Any, weight: Any, bias: Any, coefficients: Any, v_0: Any, m_0: Any) -> tuple[Tensor, ...]:
        return scanned(
            x if weight is None else F.linear(x, weight, bias), coefficients, eps, v_0, m_0, batch_sizes
        )

    # d's may come in d's own dtype.
    incoming = [None if grad is None else grad.to(inputs.x.dtype) for grad in incoming]
    return gradients_again(run, inputs.differentiable, incoming, wanted)


def scanned(
    drive: Tensor,
    coefficients: Tensor,
    eps: float,
    v_0: Tensor | None,
    m_0: Tensor | None,
    batch_sizes: Tensor | None,
) -> tuple[Tensor, ...]:
    """Run the rule by torch's operators, which can be differentiated any number of times.

    Returns:
        d, and the last states.
    """
    packed = None if batch_sizes is None else PackedRows(batch_sizes, drive.device)
    if coefficients.shape[0] != ADAPTIVE:
        d, last = channel_scan(drive, coefficients, (v_0, m_0), packed)
        return d, *last
    momentum, step_size, beta, rest = (row.reshape(1, 1, -1) for row in coefficients.unbind())
    a = drive if packed is None else packed.pad(drive)
    velocity = linear_scan(momentum, a, v_0, step_size)
    second_moment = linear_scan(beta, a * a, m_0, rest)
    d = velocity / torch.sqrt(second_moment + eps**2)
    lengths = None if packed is None else packed.lengths
    d = d if packed is None else packed.pack(d)
    return d, last_step(velocity, lengths), last_step(second_moment, lengths)


def _differentiable(backward: Callable[..., list[Tensor]]) -> Callable[..., Any]:
    """Give a backward pass its own derivative, that of torch's operators, for where it may be asked for."""

    class AdaptiveRuleBackward(torch.autograd.Function):
        @staticmethod
        def forward(*inputs: Any) -> tuple[Tensor, ...]:
            return tuple(backward(*inputs))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
            *tensors, ctx.eps, v_0, m_0, batch_sizes, _, _, grad, grad_v_n, grad_m_n, ctx.wanted = inputs
            ctx.save_for_backward(*tensors, v_0, m_0, batch_sizes, grad, grad_v_n, grad_m_n)
            ctx.set_materialize_grads(False)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            *tensors, batch_sizes, grad, grad_v_n, grad_m_n = ctx.saved_tensors

            def first(*given: Any) -> list[Tensor | None]:
                inputs = RuleInputs._make((*given[:4], ctx.eps, *given[4:6], batch_sizes))
                return _gradients_in_torch(inputs, given[6:], ctx.wanted)

            needs = ctx.needs_input_grad
            given = (*tensors, grad, grad_v_n, grad_m_n)
            found = gradients_again(first, given, grads, (*needs[:4], *needs[5:7], *needs[10:13]))
            # Nothing for what the forward pass left: it hangs on the inputs, by which it was computed again.
            return (*found[:4], None, *found[4:6], None, None, None, *found[6:], None)

    one_by_one(AdaptiveRuleBackward)
    return AdaptiveRuleBackward.apply


adaptive_rule = AdaptiveRule("adaptive_rule", adaptive_operator.forward, adaptive_operator.backward)
