"""Adam and RMSProp in Triton, together with the drive that they act on, as a torch operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.errors import InputError
from momentumrnn.kernels.adaptive_operator import (
    ADAPTIVE,
    INTERVAL,
    RuleInputs,
    check,
    check_kept,
    define,
    gradients,
    product_shape,
    saved_shape,
)
from momentumrnn.kernels.cuda.availability import check_device
from momentumrnn.kernels.cuda.launch import check_places, first_rows, on_device
from momentumrnn.kernels.operands import FLOATING
from momentumrnn.kernels.operators import LIBRARY, without_data

__all__ = ["backward", "forward"]

# Channels of a program, one a thread. NOT MEASURED.
_BLOCK = 128
# Of so few features the kernels make the drive themselves, and it is never in memory.
_FEW_FEATURES = 4


def _launch(
    kernel: Any,
    inputs: RuleInputs,
    sizes: tuple[int, tuple[int, int]],
    drive: Tensor | None,
    arrays: Sequence[Tensor | None],
    **constants: Any,
) -> None:
    """Run a kernel; without a drive it makes that itself."""
    import triton
    import triton.language as tl

    x, (steps, (batch, channels)) = inputs.x, sizes
    check_places(batch * channels)
    features = x.shape[-1] if drive is None else 0
    made_of = [x, inputs.weight, inputs.bias] if drive is None else [drive, None, None]
    with on_device(x):
        kernel[(triton.cdiv(batch * channels, _BLOCK),)](
            *(None if tensor is None else tensor.contiguous() for tensor in made_of),
            inputs.coefficients.contiguous(),
            *arrays,
            first_rows(steps, batch, inputs.batch_sizes, x.device),
            steps,
            batch,
            channels,
            # No argument: those are float32.
            SQUARED_EPS=inputs.eps * inputs.eps,
            FEATURES=features,
            INTERVAL=INTERVAL,
            BLOCK=_BLOCK,
            TOTAL=tl.float64 if x.dtype is torch.float64 else tl.float32,
            num_warps=_BLOCK // 32,
            # A load made a step ahead would read what is written in its place.
            num_stages=1,
            **constants,
        )


def _has_few_features(inputs: RuleInputs) -> bool:
    return 0 < inputs.x.shape[-1] <= _FEW_FEATURES


def _drive(inputs: RuleInputs) -> Tensor:
    assert inputs.weight is not None
    # The kernels write into it, row by row; of a transposed x torch promises no order.
    return F.linear(inputs.x, inputs.weight, inputs.bias).contiguous()


def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run a rule; arguments and result as in ``momentumrnn.kernels.adaptive_operator.forward``.

    v, m and what is kept of them are in float32 at least.
    """
    inputs, train, dtype = RuleInputs(*arguments[:8]), *arguments[8:]
    steps, state_shape = sizes = check(inputs, FLOATING, None, rules=(ADAPTIVE,))
    if dtype not in (None, *FLOATING):
        raise InputError(f"expected d to be wanted in {' or '.join(map(str, FLOATING))}, got {dtype}")
    coefficients = inputs.coefficients
    v_n, m_n = coefficients.new_empty(state_shape), coefficients.new_empty(state_shape)
    v_n.zero_() if inputs.v_0 is None else v_n.copy_(inputs.v_0)
    m_n.zero_() if inputs.m_0 is None else m_n.copy_(inputs.m_0)
    saved = coefficients.new_empty(saved_shape(steps, state_shape, train))
    drive = None if _has_few_features(inputs) else _drive(inputs)
    kept = product_shape(inputs, train)
    product = inputs.x.new_empty(0) if drive is None or kept == (0,) else drive
    if drive is None or drive is product or dtype not in (None, drive.dtype):
        d = inputs.x.new_empty(inputs.output_shape, dtype=dtype)
    else:
        # d takes its place.
        d = drive
    if d.numel():
        check_device(d)
        from momentumrnn.kernels.cuda import adaptive_kernels

        _launch(adaptive_kernels.forward, inputs, sizes, drive, [d, v_n, m_n, saved], TRAIN=train)
    return d, v_n, m_n, saved, product


def backward(*arguments: Any) -> list[Tensor]:
    """Run the backward pass of a rule; see ``momentumrnn.kernels.adaptive_operator.backward``."""
    inputs = RuleInputs(*arguments[:8])
    saved, product, grad_output, grad_v_n, grad_m_n, wanted = arguments[8:]
    x, weight, coefficients = inputs.x, inputs.weight, inputs.coefficients
    sizes = check(inputs, FLOATING, None, rules=(ADAPTIVE,))
    assert weight is not None
    check_kept(inputs, sizes, (saved, product), (grad_output, grad_v_n, grad_m_n), FLOATING)
    if x.numel() == 0 or weight.shape[0] == 0:
        return [grad.zero_() for grad in gradients(inputs, wanted, without_data)]
    if saved.numel() == 0:
        # The forward pass was told that nobody would ask.
        *_, saved, product = forward(*inputs, True, None)
    check_device(x)
    saved, product, grad_output = saved.contiguous(), product.contiguous(), grad_output.contiguous()
    from momentumrnn.kernels.cuda import adaptive_kernels

    batch, channels = sizes[1]
    grad_v, grad_m = coefficients.new_empty(batch, channels), coefficients.new_empty(batch, channels)
    grad_v.zero_() if grad_v_n is None else grad_v.copy_(grad_v_n)
    grad_m.zero_() if grad_m_n is None else grad_m.copy_(grad_m_n)
    scratch = saved.new_empty((2, INTERVAL, batch, channels))
    of_each = saved.new_empty((4, batch, channels))
    grad_weight = grad_bias = drive = None
    if _has_few_features(inputs) and not wanted[0]:
        grad_weight, grad_bias = saved.new_empty((batch, *weight.shape)), saved.new_empty((batch, channels))
        grad_drive = x.new_empty(0, weight.shape[0])
    else:
        # The gradient comes in the drive's place, unless the drive is to be kept for another backward pass.
        drive = product if product.numel() else _drive(inputs)
        grad_drive = torch.empty_like(drive) if drive is product else drive
    arrays = [
        saved,
        scratch,
        grad_output,
        grad_drive,
        grad_weight,
        grad_bias,
        of_each,
        grad_v,
        grad_m,
    ]
    _launch(adaptive_kernels.backward, inputs, sizes, drive, arrays)
    # Each its own, as an operator's results have to be.
    grads = [x.new_empty(0) for _ in range(6)]
    flat = grad_drive.flatten(0, -2)
    if wanted[0]:
        grads[0] = (flat @ weight).view(x.shape)
    if wanted[1] and grad_weight is not None:
        grads[1] = grad_weight.sum(0).to(weight.dtype)
    elif wanted[1]:
        grads[1] = flat.t() @ x.flatten(0, -2)
    if wanted[2] and inputs.bias is not None:
        grads[2] = (flat if grad_bias is None else grad_bias).sum(0).to(weight.dtype)
    if wanted[3]:
        grads[3] = of_each.sum(1)
    if wanted[4] and inputs.v_0 is not None:
        grads[4] = grad_v
    if wanted[5] and inputs.m_0 is not None:
        grads[5] = grad_m
    return grads


define("triton_adaptive_rule")
for _key in ("CUDA", "CPU"):
    # On the CPU for the interpreter, which check_device asks for.
    torch.library.impl(LIBRARY, "triton_adaptive_rule", _key)(forward)
    torch.library.impl(LIBRARY, "triton_adaptive_rule_backward", _key)(backward)
