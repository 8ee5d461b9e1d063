"""Adam and RMSProp in Triton, over a drive that is there, as torch operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels.cuda.availability import check_device
from momentumrnn.kernels.cuda.launch import first_rows, on_device, total_dtype
from momentumrnn.kernels.operators import LIBRARY

__all__ = ["BACKWARD", "FORWARD", "backward", "forward"]

# Their names, for who adds the derivatives.
FORWARD, BACKWARD = "momentumrnn::triton_adaptive_rule", "momentumrnn::triton_adaptive_rule_backward"

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


def forward(
    drive: Tensor,
    coefficients: Tensor,
    eps: float,
    v_0: Tensor | None,
    m_0: Tensor | None,
    batch_sizes: Tensor | None,
    batch: int,
    train: bool,
) -> tuple[Tensor, ...]:
    """Run the scan; the first three results are d, the last v and the last m."""
    d, v_n, m_n, saved = results = _results(drive, batch_sizes, batch, train)
    v_n.zero_() if v_0 is None else v_n.copy_(v_0)
    m_n.zero_() if m_0 is None else m_n.copy_(m_0)
    if drive.numel():
        check_device(drive)
        from momentumrnn.kernels.cuda import adaptive_kernels

        arrays = [drive.contiguous(), coefficients.contiguous(), d, v_n, m_n, saved]
        _launch(adaptive_kernels.forward, drive, arrays, eps, batch_sizes, batch, TRAIN=train)
    return results


def backward(
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
    """Return the gradient of each input tensor, of whatever size for those that are absent."""
    inputs = (drive, coefficients, eps, v_0, m_0, batch_sizes, batch)
    grad_drive, grad_coefficients, grad_v, grad_m = grads = _gradients(*inputs)
    grad_v.zero_() if grad_v_n is None else grad_v.copy_(grad_v_n)
    grad_m.zero_() if grad_m_n is None else grad_m.copy_(grad_m_n)
    if drive.numel() == 0:
        grad_coefficients.zero_()
        return grads
    if saved.numel() == 0:
        # The forward pass was told that nobody would ask.
        saved = forward(*inputs, True)[3]
    check_device(drive)
    from momentumrnn.kernels.cuda import adaptive_kernels

    channels = drive.shape[-1]
    scratch = saved.new_empty((2, _INTERVAL, batch, channels))
    of_each = saved.new_empty((4, batch, channels))
    arrays = [drive.contiguous(), coefficients.contiguous(), saved, scratch, grad_output.contiguous()]
    arrays += [grad_drive, of_each, grad_v, grad_m]
    _launch(adaptive_kernels.backward, drive, arrays, eps, batch_sizes, batch)
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


for _key in ("CUDA", "CPU"):
    # On the CPU for the interpreter, which check_device asks for.
    torch.library.impl(LIBRARY, "triton_adaptive_rule", _key)(forward)
    torch.library.impl(LIBRARY, "triton_adaptive_rule_backward", _key)(backward)
torch.library.register_fake(FORWARD, _fake, lib=LIBRARY)
torch.library.register_fake(BACKWARD, _gradients, lib=LIBRARY)
