"""A linear rule over a layer's input in C++, as a torch operator."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.errors import InputError
from momentumrnn.kernels.derivatives import (
    holds_many,
    in_graph,
    may_be_asked_again,
    wants_gradient,
    without_operator,
)
from momentumrnn.kernels.operands import CPU, cast, check_kind, check_operands, check_rows
from momentumrnn.kernels.operators import LIBRARY, addresses, compiled, empty, plain, plain_each
from momentumrnn.kernels.packed import PackedRows

__all__ = ["linear_filter"]

LIBRARY.define(
    "linear_filter(Tensor x, bool ones, Tensor decay, float gain, Tensor? batch_sizes, SymInt? batch) "
    "-> (Tensor, Tensor)"
)
LIBRARY.define(
    "linear_filter_backward(Tensor grad_output, Tensor? grad_last, bool ones, Tensor decay, float gain, "
    "Tensor? batch_sizes, SymInt? batch) -> Tensor"
)


def linear_filter(
    x: Tensor, ones: bool, decay: float | Tensor, gain: float, packed: PackedRows | None
) -> tuple[Tensor, Tensor]:
    """Run p_t = μ_t p_{t-1} + s [x_t, 1] from p = 0, the state kept in float64 between steps.

    Args:
        x: (T, B, d), or the rows (N, d) of a packed batch.
        ones: whether a constant feature is put behind x's.
        decay: μ: a number, (T,) or (T, B), in no need of a gradient.
        gain: s.
        packed: the packed batch's places.

    Returns:
        p, (T, B, d + 1) or (N, d + 1), d without the constant; and p after each sequence's own last step.
    """
    if isinstance(decay, Tensor):
        decay = cast("the decay of a rule", decay, torch.float64)
    else:
        decay = torch.full((1,), decay, dtype=torch.float64, device="cpu")
    sizes = None if packed is None else packed.batch_sizes
    # For whoever looks at shapes alone; a trace by torch.jit holds that of its example.
    batch = None if packed is None else packed.lengths.shape[0]
    inputs = (x, ones, decay, gain, sizes, batch)
    if in_graph(x):
        p, last = torch.ops.momentumrnn.linear_filter(*inputs)
    else:
        run = _filter if wants_gradient((x,)) else _linear_filter
        p, last = run(*inputs)
    return p, last


def _check(rows: Tensor, decay: Tensor, batch_sizes: Tensor | None, fake: bool = False) -> tuple[int, int]:
    """Check what the kernel trusts; ``rows`` is x or its gradient. Return T and B."""
    steps, sequences = check_rows("the rows of a filter", rows, batch_sizes, fake=fake)
    check_kind("the decay of a rule", decay, (1, 2), (torch.float64,), rows.device if fake else CPU)
    if fake:
        return steps, sequences
    shape = tuple(decay.shape)
    if shape not in ((1,), (steps,), (1, 1), (steps, 1), (steps, sequences), (1, sequences)):
        raise InputError(
            f"expected the decay of a rule as (1,), ({steps},) or ({steps}, {sequences}), one for each of "
            f"{steps} steps and {sequences} sequences, got {shape}"
        )
    return steps, sequences


def _check_last(grad_output: Tensor, grad_last: Tensor | None, sequences: int, fake: bool = False) -> None:
    """Check the gradient of the last p against that of all p."""
    shape = sequences, grad_output.shape[-1]
    check_operands(grad_output.device, ("grad_last", grad_last, shape, grad_output.dtype, False), fake=fake)


def _run(
    kernel: str,
    rows: Tensor,
    size: tuple[int, int],
    ones: bool,
    decay: Tensor,
    gain: float,
    arrays: dict[str, Tensor | None],
) -> None:
    """Run the forward or the backward kernel over ``size``, T and B; ``rows`` is x or its gradient."""
    problem: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "steps": size[0],
        "batch": size[1],
        "features": rows.shape[-1],
        "ones": int(ones),
        "gain": gain,
        "decay_step": decay.stride(0) if decay.shape[0] > 1 else 0,
        "decay_sequence": 1 if decay.dim() == 2 and decay.shape[1] > 1 else 0,
        "decay": decay.data_ptr(),
        **addresses(arrays),
    }
    getattr(compiled(), kernel)(problem, rows.dtype is torch.float64)


@torch.library.impl(LIBRARY, "linear_filter", "CPU")
def _linear_filter(
    x: Tensor, ones: bool, decay: Tensor, gain: float, batch_sizes: Tensor | None, batch: int | None
) -> tuple[Tensor, Tensor]:
    size = _check(x, decay, batch_sizes)
    x, decay = plain(x), plain(decay)
    width = x.shape[-1] + int(ones)
    p, last = empty((*x.shape[:-1], width), x), x.new_empty((size[1], width))
    if p.numel():
        sizes = None if batch_sizes is None else plain(batch_sizes)
        arrays = {"sizes": sizes, "x": x, "output": p, "last": last}
        _run("linear_forward", x, size, ones, decay, gain, arrays)
    return p, last


@torch.library.impl(LIBRARY, "linear_filter_backward", "CPU")
def _linear_filter_backward(
    grad_output: Tensor,
    grad_last: Tensor | None,
    ones: bool,
    decay: Tensor,
    gain: float,
    batch_sizes: Tensor | None,
    batch: int | None,
) -> Tensor:
    size = _check(grad_output, decay, batch_sizes)
    _check_last(grad_output, grad_last, size[1])
    grad_output, decay = plain(grad_output), plain(decay)
    grad_x = empty((*grad_output.shape[:-1], grad_output.shape[-1] - int(ones)), grad_output)
    if grad_x.numel():
        sizes, grad_last = plain_each((batch_sizes, grad_last))
        arrays = {"sizes": sizes, "grad_output": grad_output, "grad_last": grad_last, "grad_x": grad_x}
        _run("linear_backward", grad_x, size, ones, decay, gain, arrays)
    return grad_x


def _fake(
    x: Tensor, ones: bool, decay: Tensor, gain: float, batch_sizes: Tensor | None, batch: int | None
) -> tuple[Tensor, Tensor]:
    _check(x, decay, batch_sizes, fake=True)
    width = x.shape[-1] + int(ones)
    return x.new_empty((*x.shape[:-1], width)), x.new_empty((x.shape[1] if batch is None else batch, width))


def _fake_backward(
    grad_output: Tensor,
    grad_last: Tensor | None,
    ones: bool,
    decay: Tensor,
    gain: float,
    batch_sizes: Tensor | None,
    batch: int | None,
) -> Tensor:
    _check(grad_output, decay, batch_sizes, fake=True)
    _check_last(grad_output, grad_last, 0, fake=True)
    return grad_output.new_empty((*grad_output.shape[:-1], grad_output.shape[-1] - int(ones)))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, ctx.ones, decay, ctx.gain, batch_sizes, ctx.batch = inputs
    ctx.save_for_backward(decay, batch_sizes)
    ctx.shape = output[0].shape
    ctx.like = x.new_empty(0)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, grad_last: Tensor | None) -> Any:
    decay, batch_sizes = ctx.saved_tensors
    if grad_output is None:
        grad_output = ctx.like.new_zeros(ctx.shape)
    through: Any = _linear_filter_backward
    if in_graph(grad_output, grad_last) or holds_many(grad_output, grad_last):
        through = torch.ops.momentumrnn.linear_filter_backward
    elif may_be_asked_again():
        through = _filter_backward
    grad_x = through(grad_output, grad_last, ctx.ones, decay, ctx.gain, batch_sizes, ctx.batch)
    return grad_x, None, None, None, None, None


def _setup_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, grad_last, ctx.ones, decay, ctx.gain, batch_sizes, ctx.batch = inputs
    ctx.save_for_backward(decay, batch_sizes)
    ctx.with_last = grad_last is not None


def _backward_of_backward(ctx: Any, grad: Tensor) -> Any:
    # The filter is linear: the derivative of its transpose is the filter, without the constant feature.
    decay, batch_sizes = ctx.saved_tensors
    through: Any = _filter
    if in_graph(grad) or holds_many(grad):
        through = torch.ops.momentumrnn.linear_filter
    p, last = through(grad, False, decay, ctx.gain, batch_sizes, ctx.batch)
    if ctx.ones:
        p, last = F.pad(p, (0, 1)), F.pad(last, (0, 1))
    return p, last if ctx.with_last else None, None, None, None, None, None


_filter = without_operator("_LinearFilter", _linear_filter, _setup, _backward)
_filter_backward = without_operator(
    "_LinearFilterBackward", _linear_filter_backward, _setup_backward, _backward_of_backward
)

torch.library.register_fake("momentumrnn::linear_filter", _fake, lib=LIBRARY)
torch.library.register_fake("momentumrnn::linear_filter_backward", _fake_backward, lib=LIBRARY)
torch.library.register_autograd("momentumrnn::linear_filter", _backward, setup_context=_setup, lib=LIBRARY)
torch.library.register_autograd(
    "momentumrnn::linear_filter_backward",
    _backward_of_backward,
    setup_context=_setup_backward,
    lib=LIBRARY,
)
