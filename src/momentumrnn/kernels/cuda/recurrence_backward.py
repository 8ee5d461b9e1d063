"""The recurrences in Triton, backwards; imported where Triton is there."""

from __future__ import annotations

import triton
import triton.language as tl

from momentumrnn.kernels.cuda.meeting import arrive, wait_for
from momentumrnn.kernels.cuda.pieces import product, read, sum_of_parts, tanh, write

__all__ = ["backward"]


@triton.jit
def _rows_of_u(weight_hh, gate: tl.constexpr, inner, units, hidden):
    """Load some columns of a gate's U, (PARTS, DEPTH, UNITS)."""
    return tl.load(
        weight_hh + (gate * hidden + inner)[:, :, None] * hidden + units[None, None, :],
        mask=(inner < hidden)[:, :, None] & (units < hidden)[None, None, :],
        other=0.0,
    )


@triton.jit
def _add_kept(
    total, grads, rows, column, width, u, inner, fed, hidden, PRECISION: tl.constexpr, WIDEN: tl.constexpr
):
    """Add a gate's gradient at the step behind times columns of U that are at hand."""
    slopes = tl.load(
        grads + rows[None, :, None] * width + (column + inner)[:, None, :],
        mask=fed[None, :, None] & (inner < hidden)[:, None, :],
        other=0.0,
    )
    return product(slopes, u, total, PRECISION, WIDEN)


@triton.jit
def _add_read(
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
    """Add a gate's gradient at the step behind times columns of U that are read for it."""
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
    return product(slopes, u, total, PRECISION, WIDEN)


@triton.jit(do_not_specialize=["first_group", "first", "last"])
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
    arrivals,  # zero, a counter for each group of sequences
    hidden,
    first_group,
    first,
    last,
    CELL: tl.constexpr,
    GATES: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    PARTS: tl.constexpr,
    DEPTH: tl.constexpr,
    RESIDENT: tl.constexpr,
    WAIT: tl.constexpr,
    TOTAL: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Run the steps from before ``last`` down to ``first``; programs share the work as in ``forward``."""
    group = first_group + tl.program_id(1)
    sequences = group * ROWS + tl.arange(0, ROWS)
    units = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside = units < hidden
    width = GATES * hidden
    begun = (sequences < tl.load(starts + 1))[:, None] & inside[None, :]
    of_h_n = read(carried_h, sequences, units, begun, hidden, TOTAL)
    if GATES > 1 and CELL != "gru":
        slope_c = read(carried_c, sequences, units, begun, hidden, TOTAL)
    if RESIDENT:
        inner = tl.arange(0, PARTS)[:, None] * DEPTH + tl.arange(0, DEPTH)[None, :]
        u_0 = _rows_of_u(weight_hh, 0, inner, units, hidden)
        if GATES > 1:
            u_1 = _rows_of_u(weight_hh, 1, inner, units, hidden)
            u_2 = _rows_of_u(weight_hh, 2, inner, units, hidden)
        if GATES > 3:
            u_3 = _rows_of_u(weight_hh, 3, inner, units, hidden)

    for step in range(last - first):
        t = last - 1 - step
        start = tl.load(starts + t)
        behind = tl.load(starts + t + 1)
        live = sequences < behind - start
        # Those that run on at the next step, and get a gradient from there.
        fed = sequences < tl.load(starts + t + 2) - behind
        rows = start + sequences
        next_rows = behind + sequences
        valid = live[:, None] & inside[None, :]
        if t == 0:
            previous_h = h_0
            previous_c = c_0
        else:
            before = tl.load(starts + t - 1) * hidden
            previous_h = output + before
            previous_c = cells + before
        # What no other program writes, before the others are waited for.
        grad = read(grad_output, rows, units, valid, hidden, TOTAL)
        if CELL == "gru":
            r = read(gates, rows, units, valid, 4 * hidden, TOTAL)
            z = read(gates, rows, hidden + units, valid, 4 * hidden, TOTAL)
            n = read(gates, rows, 2 * hidden + units, valid, 4 * hidden, TOTAL)
            u_n = read(gates, rows, 3 * hidden + units, valid, 4 * hidden, TOTAL)
            h = read(previous_h, sequences, units, valid, hidden, TOTAL)
        elif GATES > 1:
            i = read(gates, rows, units, valid, width, TOTAL)
            g = read(gates, rows, (GATES - 2) * hidden + units, valid, width, TOTAL)
            o = read(gates, rows, (GATES - 1) * hidden + units, valid, width, TOTAL)
            tanh_c = tanh(read(cells, rows, units, valid, hidden, TOTAL))
            if GATES > 3:
                f = read(gates, rows, hidden + units, valid, width, TOTAL)
                c = read(previous_c, sequences, units, valid, hidden, TOTAL)
        else:
            h = read(output, rows, units, valid, hidden, TOTAL)

        if WAIT:
            wait_for(arrivals, group, step)
        if RESIDENT:
            total = tl.zeros((PARTS, ROWS, UNITS), TOTAL)
            total = _add_kept(total, grad_d, next_rows, 0, width, u_0, inner, fed, hidden, PRECISION, WIDEN)
            if GATES > 1:
                total = _add_kept(
                    total, grad_d, next_rows, hidden, width, u_1, inner, fed, hidden, PRECISION, WIDEN
                )
            if CELL == "gru":
                total = _add_kept(
                    total, grad_n, next_rows, 0, hidden, u_2, inner, fed, hidden, PRECISION, WIDEN
                )
            elif GATES > 1:
                total = _add_kept(
                    total, grad_d, next_rows, 2 * hidden, width, u_2, inner, fed, hidden, PRECISION, WIDEN
                )
            if GATES > 3:
                total = _add_kept(
                    total, grad_d, next_rows, 3 * hidden, width, u_3, inner, fed, hidden, PRECISION, WIDEN
                )
            grad += sum_of_parts(total, ROWS, UNITS, PARTS)
        else:
            # A loop a gate: all gates in one loop would want four times the shared memory.
            for gate in tl.static_range(GATES):
                for k in range(0, hidden, DEPTH):
                    depth = k + tl.arange(0, DEPTH)
                    if CELL == "gru" and gate == 2:
                        grad = _add_read(
                            grad, grad_n, next_rows, 0, hidden, weight_hh, gate, units, depth, fed, hidden,
                            PRECISION, WIDEN,
                        )  # fmt: skip
                    else:
                        grad = _add_read(
                            grad, grad_d, next_rows, gate * hidden, width, weight_hh, gate, units, depth, fed,
                            hidden, PRECISION, WIDEN,
                        )  # fmt: skip

        # The last h of a sequence has its own gradient; in a GRU z carries part of h on beside U.
        if CELL == "gru":
            grad += of_h_n
            slope_n = grad * (1.0 - z) * (1.0 - n * n)
            write(grad_d, rows, units, valid, width, slope_n * u_n * r * (1.0 - r))
            write(grad_d, rows, hidden + units, valid, width, grad * (h - n) * z * (1.0 - z))
            write(grad_d, rows, 2 * hidden + units, valid, width, slope_n)
            write(grad_n, rows, units, valid, hidden, slope_n * r)
            of_h_n = tl.where(valid, grad * z, of_h_n)
        else:
            grad += tl.where(fed[:, None], 0.0, of_h_n)
        if GATES > 1 and CELL != "gru":
            reached = slope_c + grad * o * (1.0 - tanh_c * tanh_c)
            write(grad_d, rows, units, valid, width, reached * g * i * (1.0 - i))
            write(grad_d, rows, (GATES - 2) * hidden + units, valid, width, reached * i * (1.0 - g * g))
            write(grad_d, rows, (GATES - 1) * hidden + units, valid, width, grad * tanh_c * o * (1.0 - o))
            if GATES > 3:
                write(grad_d, rows, hidden + units, valid, width, reached * c * f * (1.0 - f))
                reached *= f
            slope_c = tl.where(valid, reached, slope_c)
        if GATES == 1:
            if CELL == "rnn_tanh":
                grad *= 1.0 - h * h
            else:
                # For modrelu and relu alike h is zero just where nothing passes.
                grad = tl.where(h == 0.0, 0.0, grad)
            write(grad_d, rows, units, valid, width, grad)
        if WAIT:
            arrive(arrivals, group)

    if CELL == "gru":
        write(carried_h, sequences, units, begun, hidden, of_h_n)
    elif GATES > 1:
        write(carried_c, sequences, units, begun, hidden, slope_c)
