"""The recurrences in Triton, backwards; imported where Triton is there."""

from __future__ import annotations

import triton
import triton.language as tl

from momentumrnn.kernels.cuda.recurrence_forward import tanh

__all__ = ["backward"]


@triton.jit
def _slot(tensor, rows, column, valid, width, TOTAL: tl.constexpr):
    return tl.load(tensor + rows[:, None] * width + column[None, :], mask=valid, other=0.0).to(TOTAL)


@triton.jit
def _put(tensor, rows, column, valid, width, value):
    at = tensor + rows[:, None] * width + column[None, :]
    tl.store(at, value.to(tensor.dtype.element_ty), mask=valid)


@triton.jit
def _add_product(
    total,
    grads,
    rows,
    column,
    width,
    weight_hh,
    gate: tl.constexpr,
    units,
    depth,
    fed,
    hidden,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Add a gate's gradient at the step behind times some columns of U."""
    within = depth < hidden
    slopes = tl.load(
        grads + rows[:, None] * width + (column + depth)[None, :],
        mask=fed[:, None] & within[None, :],
        other=0.0,
    )
    u = tl.load(
        weight_hh + (gate * hidden + depth)[:, None] * hidden + units[None, :],
        mask=within[:, None] & (units < hidden)[None, :],
        other=0.0,
    )
    if WIDEN:
        slopes, u = slopes.to(total.dtype), u.to(total.dtype)
    return tl.dot(slopes, u, total, input_precision=PRECISION, out_dtype=total.dtype)


@triton.jit(do_not_specialize=["first", "last"])
def backward(
    weight_hh,  # (G·h, h)
    h_0,  # (B, h)
    c_0,  # (B, h)
    output,  # (N, h)
    gates,  # (N, slots·h)
    cells,  # (N, h)
    grad_output,  # (N, h)
    grad_d,  # (N, G·h), written
    grad_n,  # (N, h), written: of U_n h + b_n in a GRU, where it is not that of d_n
    carried_h,  # (B, h), of h_n; what else reaches h_{t-1} but by way of U is left there
    carried_c,  # (B, h), of c_n; of c_0 in the end
    starts,  # (T + 2,), the first row of every step
    hidden,
    first,
    last,
    CELL: tl.constexpr,
    GATES: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    DEPTH: tl.constexpr,
    TILES: tl.constexpr,
    TOTAL: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Run the steps from before ``last`` down to ``first``; programs share the work as in ``forward``."""
    sequences = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    width = GATES * hidden
    for step in range(last - first):
        t = last - 1 - step
        start = tl.load(starts + t)
        behind = tl.load(starts + t + 1)
        live = sequences < behind - start
        # Those that run on at the next step, and get a gradient from there.
        fed = sequences < tl.load(starts + t + 2) - behind
        rows = start + sequences
        if t == 0:
            previous_h = h_0
            previous_c = c_0
        else:
            before = tl.load(starts + t - 1) * hidden
            previous_h = output + before
            previous_c = cells + before
        for tile in range(TILES):
            units = (tl.program_id(1) * TILES + tile) * UNITS + tl.arange(0, UNITS)
            valid = live[:, None] & (units < hidden)[None, :]
            grad = tl.zeros((ROWS, UNITS), TOTAL)
            next_rows = behind + sequences
            # A loop a gate: all gates in one loop would want four times the shared memory.
            for gate in tl.static_range(GATES):
                for k in range(0, hidden, DEPTH):
                    depth = k + tl.arange(0, DEPTH)
                    if CELL == "gru" and gate == 2:
                        grad = _add_product(
                            grad, grad_n, next_rows, 0, hidden, weight_hh, gate, units, depth, fed, hidden,
                            PRECISION, WIDEN,
                        )  # fmt: skip
                    else:
                        grad = _add_product(
                            grad, grad_d, next_rows, gate * hidden, width, weight_hh, gate, units, depth, fed,
                            hidden, PRECISION, WIDEN,
                        )  # fmt: skip
            grad += _slot(grad_output, rows, units, valid, hidden, TOTAL)
            # The last h of a sequence has its own gradient; in a GRU z carries part of h on beside U.
            carried = _slot(carried_h, sequences, units, valid, hidden, TOTAL)
            if CELL == "gru":
                grad += carried
                r = _slot(gates, rows, units, valid, 4 * hidden, TOTAL)
                z = _slot(gates, rows, hidden + units, valid, 4 * hidden, TOTAL)
                n = _slot(gates, rows, 2 * hidden + units, valid, 4 * hidden, TOTAL)
                u_n = _slot(gates, rows, 3 * hidden + units, valid, 4 * hidden, TOTAL)
                h = _slot(previous_h, sequences, units, valid, hidden, TOTAL)
                slope_n = grad * (1.0 - z) * (1.0 - n * n)
                _put(grad_d, rows, units, valid, width, slope_n * u_n * r * (1.0 - r))
                _put(grad_d, rows, hidden + units, valid, width, grad * (h - n) * z * (1.0 - z))
                _put(grad_d, rows, 2 * hidden + units, valid, width, slope_n)
                _put(grad_n, rows, units, valid, hidden, slope_n * r)
                _put(carried_h, sequences, units, valid, hidden, grad * z)
            else:
                grad += tl.where(fed[:, None], 0.0, carried)
            if GATES > 1 and CELL != "gru":
                slots = width
                i = _slot(gates, rows, units, valid, slots, TOTAL)
                g = _slot(gates, rows, (GATES - 2) * hidden + units, valid, slots, TOTAL)
                o = _slot(gates, rows, (GATES - 1) * hidden + units, valid, slots, TOTAL)
                tanh_c = tanh(_slot(cells, rows, units, valid, hidden, TOTAL))
                slope_c = _slot(carried_c, sequences, units, valid, hidden, TOTAL)
                slope_c += grad * o * (1.0 - tanh_c * tanh_c)
                _put(grad_d, rows, units, valid, width, slope_c * g * i * (1.0 - i))
                _put(grad_d, rows, (GATES - 2) * hidden + units, valid, width, slope_c * i * (1.0 - g * g))
                _put(grad_d, rows, (GATES - 1) * hidden + units, valid, width, grad * tanh_c * o * (1.0 - o))
                if GATES > 3:
                    f = _slot(gates, rows, hidden + units, valid, slots, TOTAL)
                    c = _slot(previous_c, sequences, units, valid, hidden, TOTAL)
                    _put(grad_d, rows, hidden + units, valid, width, slope_c * c * f * (1.0 - f))
                    slope_c *= f
                _put(carried_c, sequences, units, valid, hidden, slope_c)
            if GATES == 1:
                h = _slot(output, rows, units, valid, hidden, TOTAL)
                if CELL == "rnn_tanh":
                    grad *= 1.0 - h * h
                else:
                    # For modrelu and relu alike h is zero just where nothing passes.
                    grad = tl.where(h == 0.0, 0.0, grad)
                _put(grad_d, rows, units, valid, width, grad)
        tl.debug_barrier()
