"""Adam and RMSProp in C++, together with the drive that they act on, as a torch operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.kernels.derivatives import (
    gradients_again,
    holds_many,
    in_graph,
    may_be_asked_again,
    one_by_one,
    refuse_second_derivative,
    wants_gradient,
)
from momentumrnn.kernels.operators import LIBRARY, address, compiled, empty, plain
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.rules import Adam, RMSProp, RuleState
from momentumrnn.rules.base import last_step
from momentumrnn.rules.scan import linear_scan

__all__ = ["adaptive_rule"]

# Steps from one kept state to the next: the states take 2 / 32 of the memory of what they belong to.
_INTERVAL = 32
# Of so few features the drive is made inside the scan: written and read as a whole it would take longer.
# For fewer channels than these it would not.
_FEW_FEATURES = 64
_FEW_CHANNELS = 64

_INPUTS = (
    "Tensor x, Tensor weight, Tensor? bias, Tensor coefficients, float eps, Tensor? v_0, Tensor? m_0, "
    "Tensor? batch_sizes"
)
LIBRARY.define(f"adaptive_rule({_INPUTS}, bool train) -> (Tensor, Tensor, Tensor, Tensor)")
LIBRARY.define(
    f"adaptive_rule_backward({_INPUTS}, Tensor saved, Tensor grad_output, Tensor? grad_v_n, "
    "Tensor? grad_m_n, bool[] wanted) -> Tensor[]"
)


def adaptive_rule(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rule: Adam | RMSProp,
    state: RuleState,
    packed: PackedRows | None,
) -> tuple[Tensor, RuleState]:
    """Apply the rule to the drive a = x weightᵀ + bias of a whole sequence, (15).

    Args:
        x: (T, B, d), or the rows (N, d) of a packed batch.
        weight: (C, d).
        bias: (C,) or ``None``.
        rule: the rule, bound to C channels.
        state: the rule's state, batch first, or ``None``.
        packed: the packed batch's places.

    Returns:
        d, (T, B, C) or (N, C), and the state after each sequence's own last step.
    """
    channels, dtype = weight.shape[0], weight.dtype

    def row(value: float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(dtype).expand(channels)
        return torch.full((channels,), value, dtype=dtype, device=weight.device)

    momentum = rule.momentum if isinstance(rule, Adam) else 0.0
    # 1 - β apart from β: float32 would lose what is left of it.
    coefficients = torch.stack([row(momentum), row(rule.step_size), row(rule.beta), row(1.0 - rule.beta)])
    v_0 = m_0 = None
    if state is not None:
        m_0 = state.second_moment.to(dtype)
        v_0 = state.velocity.to(dtype) if isinstance(rule, Adam) else None
    tensors = (x, weight, bias, coefficients, v_0, m_0)
    train = wants_gradient(tensors)
    sizes = None if packed is None else packed.batch_sizes
    inputs = (x.to(dtype), weight, bias, coefficients, rule.eps, v_0, m_0, sizes, train)
    run: Any = torch.ops.momentumrnn.adaptive_rule
    if not in_graph(x):
        run = _AdaptiveRule.apply if train else _adaptive_rule
    d, v_n, m_n, _ = run(*inputs)
    return d, rule.state_type(v_n, m_n) if isinstance(rule, Adam) else rule.state_type(m_n)


def _drive(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    drive = empty((*x.shape[:-1], weight.shape[0]), x)
    rows, out = x.flatten(0, -2), drive.view(-1, weight.shape[0])
    if bias is None:
        torch.mm(rows, weight.t(), out=out)
    else:
        torch.addmm(bias, rows, weight.t(), out=out)
    return drive


def _is_made_inside(features: int, sizes: tuple[int, int, int]) -> bool:
    steps, _, channels = sizes
    # The sums for W's gradient, a row a feature for each sequence, want steps enough to be worth it.
    return 0 < features <= min(_FEW_FEATURES, steps // 2) and channels >= _FEW_CHANNELS


def _features(x: Tensor, weight: Tensor, bias: Tensor | None) -> dict[str, Tensor | None]:
    """Return what the drive is made of, for the kernel to make it where it needs it."""
    bias = None if bias is None else plain(bias)
    return {"x": plain(x), "weight": plain(weight), "bias": bias}


def _states(x: Tensor, weight: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
    """Return the number of steps, of sequences and of channels."""
    if batch_sizes is None:
        return x.shape[0], x.shape[1], weight.shape[0]
    return batch_sizes.shape[0], int(batch_sizes[0]), weight.shape[0]


def _describe(
    sizes: tuple[int, int, int],
    features: int,
    coefficients: Tensor,
    eps: float,
    arrays: dict[str, Tensor | None],
) -> dict[str, Any]:
    steps, batch, channels = sizes
    momentum, step_size, beta, rest = coefficients.unbind()
    arrays |= {"momentum": momentum, "step_size": step_size, "beta": beta, "rest": rest}
    return {
        "threads": torch.get_num_threads(),
        "steps": steps,
        "batch": batch,
        "channels": channels,
        "features": features,
        "interval": _INTERVAL,
        "eps": eps,
        **{name: address(tensor) for name, tensor in arrays.items()},
    }


def _saved_shape(sizes: tuple[Any, ...], train: bool) -> tuple[int, ...]:
    steps, batch, channels = sizes
    return (2, -(-steps // _INTERVAL), batch, channels) if train else (0,)


@torch.library.impl(LIBRARY, "adaptive_rule", "CPU")
def _adaptive_rule(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    coefficients: Tensor,
    eps: float,
    v_0: Tensor | None,
    m_0: Tensor | None,
    batch_sizes: Tensor | None,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes = _states(x, weight, batch_sizes)
    coefficients = plain(coefficients)
    made_inside = _is_made_inside(x.shape[-1], sizes)
    d = empty((*x.shape[:-1], weight.shape[0]), x) if made_inside else _drive(x, weight, bias)
    v_n, m_n = x.new_empty(sizes[1:]), x.new_empty(sizes[1:])
    saved = empty(_saved_shape(sizes, train), x)
    if sizes[1] == 0:
        return d, v_n, m_n, saved
    arrays: dict[str, Tensor | None] = {
        **(_features(x, weight, bias) if made_inside else {"drive": d}),
        "sizes": batch_sizes,
        "output": d,
        "v_0": None if v_0 is None else plain(v_0),
        "m_0": None if m_0 is None else plain(m_0),
        "v_saved": saved[0] if train else None,
        "m_saved": saved[1] if train else None,
        "v_n": v_n,
        "m_n": m_n,
    }
    compiled().adaptive_forward(
        _describe(sizes, x.shape[-1], coefficients, eps, arrays), x.dtype is torch.float64
    )
    return d, v_n, m_n, saved


@torch.library.impl(LIBRARY, "adaptive_rule_backward", "CPU")
def _adaptive_rule_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    coefficients: Tensor,
    eps: float,
    v_0: Tensor | None,
    m_0: Tensor | None,
    batch_sizes: Tensor | None,
    saved: Tensor,
    grad_output: Tensor,
    grad_v_n: Tensor | None,
    grad_m_n: Tensor | None,
    wanted: list[bool],
) -> list[Tensor]:
    inputs = (x, weight, bias, coefficients, eps, v_0, m_0, batch_sizes)
    if x.numel() == 0:
        return [grad.zero_() for grad in _gradients(inputs, wanted, empty)]
    if saved.numel() == 0:
        # The forward pass was told that nobody would ask.
        saved = _adaptive_rule(*inputs, True)[3]
    sizes = _states(x, weight, batch_sizes)
    coefficients = plain(coefficients)
    grads = _gradients(inputs, wanted, empty)
    grad_x, grad_weight, grad_bias, grad_coefficients, grad_v_0, grad_m_0 = grads
    learned = grad_coefficients.unbind() if grad_coefficients.numel() else [None] * 4
    made_inside = _is_made_inside(x.shape[-1], sizes)
    drive: Tensor | None = None
    if not made_inside:
        # Not kept from the forward pass, which wrote its result there: it is as large as all gates.
        drive = _drive(x, weight, bias)
    elif grad_x.numel():
        drive = empty((*x.shape[:-1], weight.shape[0]), x)
    arrays: dict[str, Tensor | None] = {
        **(_features(x, weight, bias) if made_inside else {"drive": drive}),
        "sizes": batch_sizes,
        "grad_weight": grad_weight if made_inside else None,
        "grad_bias": grad_bias if made_inside else None,
        "v_0": None if v_0 is None else plain(v_0),
        "m_0": None if m_0 is None else plain(m_0),
        "v_saved": saved[0],
        "m_saved": saved[1],
        "grad_output": plain(grad_output),
        "grad_v_n": None if grad_v_n is None else plain(grad_v_n),
        "grad_m_n": None if grad_m_n is None else plain(grad_m_n),
        "grad_drive": drive,
        "grad_v_0": grad_v_0,
        "grad_m_0": grad_m_0,
        "grad_momentum": learned[0],
        "grad_step_size": learned[1],
        "grad_beta": learned[2],
        "grad_rest": learned[3],
    }
    compiled().adaptive_backward(
        _describe(sizes, x.shape[-1], coefficients, eps, arrays), x.dtype is torch.float64
    )
    if drive is None:
        return grads
    # By now the drive's own gradient.
    flat, rows = drive.view(-1, sizes[2]), x.flatten(0, -2)
    if grad_weight.numel() and not made_inside:
        torch.mm(flat.t(), rows, out=grad_weight)
    if grad_bias.numel() and not made_inside:
        torch.sum(flat, 0, out=grad_bias)
    if grad_x.numel():
        torch.mm(flat, weight, out=grad_x.view(-1, x.shape[-1]))
    return grads


def _gradients(
    inputs: tuple[Any, ...], wanted: list[bool], make: Callable[[tuple[int, ...], Tensor], Tensor]
) -> list[Tensor]:
    """Make a tensor for the gradient of each input tensor, an empty one for those that nobody wants."""
    x, weight, bias, coefficients, _, v_0, m_0, _ = inputs
    tensors = (x, weight, bias, coefficients, v_0, m_0)
    return [
        make(tuple(tensor.shape) if want and tensor is not None else (0,), x)
        for tensor, want in zip(tensors, wanted, strict=True)
    ]


def _without_data(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return like.new_empty(shape)


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    coefficients: Tensor,
    eps: float,
    v_0: Tensor | None,
    m_0: Tensor | None,
    batch_sizes: Tensor | None,
    train: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sizes: tuple[Any, ...] = (x.shape[0], x.shape[1], weight.shape[0])
    if batch_sizes is not None:
        # The number of sequences is data there.
        sizes = (batch_sizes.shape[0], torch.library.get_ctx().new_dynamic_size(), weight.shape[0])
    last = x.new_empty(sizes[1:])
    return (
        x.new_empty((*x.shape[:-1], weight.shape[0])),
        last,
        x.new_empty(sizes[1:]),
        x.new_empty(_saved_shape(sizes, train)),
    )


def _fake_backward(*args: Any) -> list[Tensor]:
    return _gradients(args[:8], args[-1], _without_data)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, coefficients, eps, v_0, m_0, batch_sizes, _ = inputs
    ctx.eps = eps
    ctx.save_for_backward(x, weight, bias, coefficients, v_0, m_0, batch_sizes, output[3])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_v_n: Any, grad_m_n: Any, _: Any) -> Any:
    x, weight, bias, coefficients, v_0, m_0, batch_sizes, saved = ctx.saved_tensors
    if grad is None:
        grad = x.new_zeros((*x.shape[:-1], weight.shape[0]))
    needs = ctx.needs_input_grad
    wanted = [*needs[:4], needs[5], needs[6]]
    inputs = (x, weight, bias, coefficients, ctx.eps, v_0, m_0, batch_sizes)
    incoming = (grad, grad_v_n, grad_m_n)
    through: Any = _adaptive_rule_backward
    if in_graph(grad):
        through = torch.ops.momentumrnn.adaptive_rule_backward
    elif holds_many(*incoming):
        given = _gradients_in_torch(inputs, incoming, wanted)
        return (*given[:4], None, *given[4:], None, None)
    elif may_be_asked_again():
        through = _AdaptiveRuleBackward.apply
    grads = through(*inputs, saved, *incoming, wanted)
    given = [each if want else None for each, want in zip(grads, wanted, strict=True)]
    return (*given[:4], None, *given[4:], None, None)


def _gradients_in_torch(
    inputs: Sequence[Any], incoming: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Compute the gradients by way of what can be differentiated again."""
    *tensors, eps, v_0, m_0, batch_sizes = inputs

    def run(
        x: Any, weight: Any, bias: Any, coefficients: Any, v_0: Any, m_0: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        momentum, step_size, beta, rest = (row.reshape(1, 1, -1) for row in coefficients.unbind())
        drive, packed = F.linear(x, weight, bias), None
        if batch_sizes is not None:
            packed = PackedRows(batch_sizes, x.device)
            drive = packed.pad(drive)
        velocity = linear_scan(momentum, drive, v_0, step_size)
        second_moment = linear_scan(beta, drive * drive, m_0, rest)
        d = velocity / torch.sqrt(second_moment + eps**2)
        lengths = None if packed is None else packed.lengths
        last = last_step(velocity, lengths), last_step(second_moment, lengths)
        return (d if packed is None else packed.pack(d)), *last

    return gradients_again(run, (*tensors, v_0, m_0), incoming, wanted)


class _AdaptiveRule(torch.autograd.Function):
    """The same derivative for calls that need no operator."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return _adaptive_rule(*inputs)

    setup_context = staticmethod(_setup)
    backward = staticmethod(_backward)


class _AdaptiveRuleBackward(torch.autograd.Function):
    """The backward pass where its own derivative may be asked for, which is the reference's."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(_adaptive_rule_backward(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.eps, v_0, m_0, batch_sizes, _, grad, grad_v_n, grad_m_n, ctx.wanted = inputs
        ctx.save_for_backward(*tensors, v_0, m_0, batch_sizes, grad, grad_v_n, grad_m_n)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        *tensors, batch_sizes, grad, grad_v_n, grad_m_n = ctx.saved_tensors

        def first(*given: Any) -> list[Tensor | None]:
            inputs = (*given[:4], ctx.eps, *given[4:6], batch_sizes)
            return _gradients_in_torch(inputs, given[6:], ctx.wanted)

        needs = ctx.needs_input_grad
        given = (*tensors, grad, grad_v_n, grad_m_n)
        found = gradients_again(first, given, grads, (*needs[:4], *needs[5:7], *needs[9:12]))
        return (*found[:4], None, *found[4:6], None, None, *found[6:], None)


one_by_one(_AdaptiveRule)
one_by_one(_AdaptiveRuleBackward)

torch.library.register_fake("momentumrnn::adaptive_rule", _fake, lib=LIBRARY)
torch.library.register_fake("momentumrnn::adaptive_rule_backward", _fake_backward, lib=LIBRARY)
torch.library.register_autograd("momentumrnn::adaptive_rule", _backward, setup_context=_setup, lib=LIBRARY)
torch.library.register_autograd("momentumrnn::adaptive_rule_backward", refuse_second_derivative, lib=LIBRARY)
