"""What the recurrences' kernels in Triton are put together from; imported where Triton is there."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["product", "read", "tanh", "write"]


@triton.jit
def tanh(x):
    """Return tanh x: Triton's own is not in its interpreter."""
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def product(left, right, total, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """Return total + left · right, in total's dtype."""
    if WIDEN:
        left, right = left.to(total.dtype), right.to(total.dtype)
    return tl.dot(left, right, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit
def read(tensor, rows, columns, valid, width, TOTAL: tl.constexpr):
    """Load some rows and columns of a matrix of so many columns, zero where there are none."""
    return tl.load(tensor + rows[:, None] * width + columns[None, :], mask=valid, other=0.0).to(TOTAL)


@triton.jit
def write(tensor, rows, columns, valid, width, value):
    """Store some rows and columns of a matrix of so many columns."""
    at = tensor + rows[:, None] * width + columns[None, :]
    tl.store(at, value.to(tensor.dtype.element_ty), mask=valid)


@triton.jit
def sum_of_parts(parts, ROWS: tl.constexpr, UNITS: tl.constexpr, PARTS: tl.constexpr):
    """Return the sum over the first axis of (PARTS, ROWS, UNITS), a power of two long."""
    total = tl.permute(parts, (1, 2, 0))
    if PARTS > 4:
        total, other = tl.split(tl.reshape(total, (ROWS, UNITS, 4, 2)))
        total += other
    if PARTS > 2:
        total, other = tl.split(tl.reshape(total, (ROWS, UNITS, 2, 2)))
        total += other
    if PARTS > 1:
        total, other = tl.split(tl.reshape(total, (ROWS, UNITS, 2)))
        total += other
    return tl.reshape(total, (ROWS, UNITS))
