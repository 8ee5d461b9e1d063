"""Adam and RMSProp in Triton, over a drive that is there, as a torch operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.kernels.cuda.availability import check_device
from momentumrnn.kernels.cuda.launch import first_rows, on_device, total_dtype
from momentumrnn.kernels.derivatives import gradients_again, wants_gradient
from momentumrnn.kernels.operators import LIBRARY
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.rules import Adam, RMSProp, RuleState
from momentumrnn.rules.base import last_step
from momentumrnn.rules.scan import linear_scan, without_autocast

__all__ = ["adaptive_rule"]

# Steps from one kept state to the next: the states take 2 / 32 of the memory of what they belong to.
_INTERVAL = 32
# Channels of a program, one a thread. NOT MEASURED.
_BLOCK = 128

_INPUTS = (
    "Tensor drive, Tensor coefficients, float eps, Tensor? v_0, Tensor? m_0, Tensor? batch_sizes, "
    "SymInt batch"
)
LIBRARY.define(f"triton_adaptive_rule({_INPUTS}, bool train) -> (Tensor, Tensor, Tensor, Tensor)")
LIBRARY.define(
    f"triton_adaptive_rule_backward({_INPUTS}, Tensor saved, Tensor grad_output, Tensor? grad_v_n, "
    "Tensor? grad_m_n) -> (Tensor, Tensor, Tensor, Tensor)"
)


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
        coefficients = _coefficients(rule, drive.shape[-1], wide, drive.device)
        v_0 = m_0 = None
        if state is not None:
            m_0 = state.second_moment.to(wide)
            v_0 = state.velocity.to(wide) if isinstance(rule, Adam) else None
        sizes = None if packed is None else packed.batch_sizes
        batch = x.shape[1] if packed is None else packed.lengths.shape[0]
        train = wants_gradient((drive, coefficients, v_0, m_0))
        d, v_n, m_n, _ = torch.ops.momentumrnn.triton_adaptive_rule(
            drive, coefficients, rule.eps, v_0, m_0, sizes, batch, train
        )
    return d, rule.state_type(v_n, m_n) if isinstance(rule, Adam) else rule.state_type(m_n)


def _coefficients(rule: Adam | RMSProp, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return μ, s, β and 1 - β of every channel, (4, C)."""

    def row(value: float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.to(dtype).expand(channels)
        return torch.full((channels,), value, dtype=dtype, device=device)

    momentum = rule.momentum if isinstance(rule, Adam) else 0.0
    # 1 - β apart from β: float32 would lose what is left of it.
    return torch.stack([row(momentum), row(rule.step_size), row(rule.beta), row(1.0 - rule.beta)])


def _launch(
    kernel: Any, drive: Tensor, arrays: Sequence[Tensor], eps: float, sizes: Any, batch: int, **constants: Any
) -> None:
    import triton
    import triton.language as tl

    channels = drive.shape[-1]
    steps = drive.shape[0] if sizes is None else sizes.shape[0]
    total = tl.float64 if drive.dtype is torch.float64 else tl.float32
    with on_device(drive):
        kernel[(triton.cdiv(batch * channels, _BLOCK),)](
            *arrays,
            first_rows(steps, batch, sizes, drive.device),
            steps,
            batch,
            channels,
            # No argument: those are float32.
            SQUARED_EPS=eps * eps,
            INTERVAL=_INTERVAL,
            BLOCK=_BLOCK,
            TOTAL=total,
            num_warps=_BLOCK // 32,
            **constants,
        )


def _results(drive: Tensor, sizes: Tensor | None, batch: Any, train: bool) -> tuple[Tensor, ...]:
    """Make the tensors that the forward pass fills."""
    steps = drive.shape[0] if sizes is None else sizes.shape[0]
    wide, last = total_dtype(drive.dtype), (batch, drive.shape[-1])
    saved = (2, -(-steps // _INTERVAL), *last) if train else (0,)
    return (
        drive.new_empty(drive.shape),
        drive.new_empty(last, dtype=wide),
        drive.new_empty(last, dtype=wide),
        drive.new_empty(saved, dtype=wide),
    )


def _adaptive_rule(
    drive: Tensor,
    coefficients: Tensor,
    eps: float,
    v_0: Tensor | None,
    m_0: Tensor | None,
    batch_sizes: Tensor | None,
    batch: int,
    train: bool,
) -> tuple[Tensor, ...]:
    d, v_n, m_n, saved = results = _results(drive, batch_sizes, batch, train)
    v_n.zero_() if v_0 is None else v_n.copy_(v_0)
    m_n.zero_() if m_0 is None else m_n.copy_(m_0)
    if drive.numel():
        check_device(drive)
        from momentumrnn.kernels.cuda.adaptive_kernels import forward

        arrays = [drive.contiguous(), coefficients.contiguous(), d, v_n, m_n, saved]
        _launch(forward, drive, arrays, eps, batch_sizes, batch, TRAIN=train)
    return results


def _adaptive_rule_backward(
    drive: Tensor,
    coefficients: Tensor,
    eps: float,
    v_0: Tensor | None,
    m_0: Tensor | None,
    batch_sizes: Tensor | None,
    batch: int,
    saved: Tensor,
    grad_output: Tensor,
    grad_v_n: Tensor | None,
    grad_m_n: Tensor | None,
) -> tuple[Tensor, ...]:
    inputs = (drive, coefficients, eps, v_0, m_0, batch_sizes, batch)
    grad_drive, grad_coefficients, grad_v, grad_m = grads = _gradients(*inputs)
    grad_v.zero_() if grad_v_n is None else grad_v.copy_(grad_v_n)
    grad_m.zero_() if grad_m_n is None else grad_m.copy_(grad_m_n)
    if drive.numel() == 0:
        grad_coefficients.zero_()
        return grads
    if saved.numel() == 0:
        # The forward pass was told that nobody would ask.
        saved = _adaptive_rule(*inputs, True)[3]
    check_device(drive)
    from momentumrnn.kernels.cuda.adaptive_kernels import backward

    channels = drive.shape[-1]
    scratch = saved.new_empty((2, _INTERVAL, batch, channels))
    of_each = saved.new_empty((4, batch, channels))
    arrays = [drive.contiguous(), coefficients.contiguous(), saved, scratch, grad_output.contiguous()]
    arrays += [grad_drive, of_each, grad_v, grad_m]
    _launch(backward, drive, arrays, eps, batch_sizes, batch)
    torch.sum(of_each, 1, out=grad_coefficients)
    return grads


def _gradients(
    drive: Tensor, coefficients: Tensor, eps: float, v_0: Any, m_0: Any, sizes: Any, batch: Any, *_: Any
) -> tuple[Tensor, ...]:
    """Make a tensor for the gradient of each input tensor, those of the initial states always."""
    wide, state = coefficients.dtype, (batch, drive.shape[-1])
    return (
        drive.new_empty(drive.shape),
        coefficients.new_empty(coefficients.shape),
        drive.new_empty(state, dtype=wide),
        drive.new_empty(state, dtype=wide),
    )


def _fake(
    drive: Tensor, coefficients: Tensor, eps: float, v_0: Any, m_0: Any, sizes: Any, batch: Any, train: bool
) -> tuple[Tensor, ...]:
    return _results(drive, sizes, batch, train)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    drive, coefficients, ctx.eps, v_0, m_0, batch_sizes, ctx.batch, _ = inputs
    ctx.save_for_backward(drive, coefficients, v_0, m_0, batch_sizes, output[3])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, grad_v_n: Any, grad_m_n: Any, _: Any) -> Any:
    drive, coefficients, v_0, m_0, batch_sizes, saved = ctx.saved_tensors
    if grad is None:
        grad = torch.zeros_like(drive)
    found = torch.ops.momentumrnn.triton_adaptive_rule_backward(
        drive, coefficients, ctx.eps, v_0, m_0, batch_sizes, ctx.batch, saved, grad, grad_v_n, grad_m_n
    )
    needs = ctx.needs_input_grad
    wanted = (needs[0], needs[1], needs[3], needs[4])
    given = [each if want else None for each, want in zip(found, wanted, strict=True)]
    return (*given[:2], None, *given[2:], None, None, None)


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    drive, coefficients, ctx.eps, v_0, m_0, batch_sizes, _, _, grad, grad_v_n, grad_m_n = inputs
    ctx.save_for_backward(drive, coefficients, v_0, m_0, batch_sizes, grad, grad_v_n, grad_m_n)
    ctx.set_materialize_grads(False)


def _backward_of_backward(ctx: Any, *grads: Tensor | None) -> Any:
    """Differentiate once more, by way of what can be."""
    *tensors, batch_sizes, grad, grad_v_n, grad_m_n = ctx.saved_tensors

    def run(drive: Any, coefficients: Any, v_0: Any, m_0: Any) -> tuple[Tensor, ...]:
        return _in_torch(drive, coefficients, ctx.eps, v_0, m_0, batch_sizes)

    def first(*given: Any) -> list[Tensor | None]:
        return gradients_again(run, given[:4], given[4:], [tensor is not None for tensor in given[:4]])

    needs = ctx.needs_input_grad
    given = (*tensors, grad, grad_v_n, grad_m_n)
    found = gradients_again(first, given, grads, (*needs[:2], *needs[3:5], *needs[8:11]))
    return (*found[:2], None, *found[2:4], None, None, None, *found[4:])


def _in_torch(
    drive: Tensor, coefficients: Tensor, eps: float, v_0: Any, m_0: Any, batch_sizes: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the rule by torch's operators, which can be differentiated again."""
    momentum, step_size, beta, rest = (row.reshape(1, 1, -1) for row in coefficients.unbind())
    packed = None if batch_sizes is None else PackedRows(batch_sizes, drive.device)
    a = drive if packed is None else packed.pad(drive)
    velocity = linear_scan(momentum, a, v_0, step_size)
    second_moment = linear_scan(beta, a * a, m_0, rest)
    d = (velocity / torch.sqrt(second_moment + eps**2)).to(drive.dtype)
    lengths = None if packed is None else packed.lengths
    last = last_step(velocity, lengths), last_step(second_moment, lengths)
    return (d if packed is None else packed.pack(d)), *last


for _key in ("CUDA", "CPU"):
    # On the CPU for the interpreter, which check_device asks for.
    torch.library.impl(LIBRARY, "triton_adaptive_rule", _key)(_adaptive_rule)
    torch.library.impl(LIBRARY, "triton_adaptive_rule_backward", _key)(_adaptive_rule_backward)
torch.library.register_fake("momentumrnn::triton_adaptive_rule", _fake, lib=LIBRARY)
torch.library.register_fake("momentumrnn::triton_adaptive_rule_backward", _gradients, lib=LIBRARY)
torch.library.register_autograd(
    "momentumrnn::triton_adaptive_rule", _backward, setup_context=_setup, lib=LIBRARY
)
torch.library.register_autograd(
    "momentumrnn::triton_adaptive_rule_backward",
    _backward_of_backward,
    setup_context=_setup_backward,
    lib=LIBRARY,
)
