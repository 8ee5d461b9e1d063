"""The recurrences in Triton, forwards; imported where Triton is there."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["forward", "tanh"]


@triton.jit
def tanh(x):
    """Return tanh x: Triton's own is not in its interpreter."""
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0


@triton.jit
def _tile(tensor, rows, columns, live, inside, width):
    """Load some rows and columns of a matrix, zero where there are none."""
    return tl.load(
        tensor + rows[:, None] * width + columns[None, :], mask=live[:, None] & inside[None, :], other=0.0
    )


@triton.jit
def _add_product(
    total,
    h,
    weight_hh,
    gate: tl.constexpr,
    units,
    depth,
    hidden,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Add h times some of a gate's rows of U."""
    u = tl.load(
        weight_hh + (gate * hidden + units)[None, :] * hidden + depth[:, None],
        mask=(units < hidden)[None, :] & (depth < hidden)[:, None],
        other=0.0,
    )
    if WIDEN:
        h, u = h.to(total.dtype), u.to(total.dtype)
    return tl.dot(h, u, total, input_precision=PRECISION, out_dtype=total.dtype)


# A step's number is no reason to compile anew.
@triton.jit(do_not_specialize=["first", "last"])
def forward(
    d,  # (N, G·h)
    weight_hh,  # (G·h, h)
    bias_hh,  # (G·h,)
    modrelu_bias,  # (h,)
    h_0,  # (B, h)
    c,  # (B, h), c_0, and c_n in the end
    output,  # (N, h)
    gates,  # (N, slots·h)
    cells,  # (N, h)
    starts,  # (T + 2,), the first row of every step
    hidden,
    first,
    last,
    CELL: tl.constexpr,
    GATES: tl.constexpr,
    BIAS: tl.constexpr,
    TRAIN: tl.constexpr,
    ROWS: tl.constexpr,
    UNITS: tl.constexpr,
    DEPTH: tl.constexpr,
    TILES: tl.constexpr,
    TOTAL: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Run the steps from ``first`` to before ``last`` for ROWS sequences and TILES · UNITS hidden units.

    More than one step needs all units in one program: nothing but the program's own threads waits for what
    h_{t-1} is made of.
    """
    sequences = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    for t in range(first, last):
        start = tl.load(starts + t)
        live = sequences < tl.load(starts + t + 1) - start
        rows = start + sequences
        previous = h_0 if t == 0 else output + tl.load(starts + t - 1) * hidden
        for tile in range(TILES):
            units = (tl.program_id(1) * TILES + tile) * UNITS + tl.arange(0, UNITS)
            inside = units < hidden
            valid = live[:, None] & inside[None, :]
            u_0 = tl.zeros((ROWS, UNITS), TOTAL)
            u_1 = tl.zeros((ROWS, UNITS), TOTAL)
            u_2 = tl.zeros((ROWS, UNITS), TOTAL)
            u_3 = tl.zeros((ROWS, UNITS), TOTAL)
            for k in range(0, hidden, DEPTH):
                depth = k + tl.arange(0, DEPTH)
                h = _tile(previous, sequences, depth, live, depth < hidden, hidden)
                u_0 = _add_product(u_0, h, weight_hh, 0, units, depth, hidden, PRECISION, WIDEN)
                if GATES > 1:
                    u_1 = _add_product(u_1, h, weight_hh, 1, units, depth, hidden, PRECISION, WIDEN)
                    u_2 = _add_product(u_2, h, weight_hh, 2, units, depth, hidden, PRECISION, WIDEN)
                if GATES > 3:
                    u_3 = _add_product(u_3, h, weight_hh, 3, units, depth, hidden, PRECISION, WIDEN)
            if BIAS:
                u_0 += tl.load(bias_hh + units, mask=inside, other=0.0).to(TOTAL)[None, :]
                if GATES > 1:
                    u_1 += tl.load(bias_hh + hidden + units, mask=inside, other=0.0).to(TOTAL)[None, :]
                    u_2 += tl.load(bias_hh + 2 * hidden + units, mask=inside, other=0.0).to(TOTAL)[None, :]
                if GATES > 3:
                    u_3 += tl.load(bias_hh + 3 * hidden + units, mask=inside, other=0.0).to(TOTAL)[None, :]

            width = GATES * hidden
            d_0 = _tile(d, rows, units, live, inside, width).to(TOTAL)
            here = rows[:, None] * hidden + units[None, :]
            if GATES > 1:
                d_1 = _tile(d, rows, hidden + units, live, inside, width).to(TOTAL)
                d_2 = _tile(d, rows, 2 * hidden + units, live, inside, width).to(TOTAL)
            if CELL == "gru":
                r = tl.sigmoid(d_0 + u_0)
                z = tl.sigmoid(d_1 + u_1)
                n = tanh(d_2 + r * u_2)
                h_t = n + z * (_tile(previous, sequences, units, live, inside, hidden).to(TOTAL) - n)
                if TRAIN:
                    _keep(gates, rows, units, valid, hidden, r, z, n, u_2, 4)
            elif GATES > 1:
                state = c + sequences[:, None] * hidden + units[None, :]
                c_t = tl.load(state, mask=valid, other=0.0)
                i = tl.sigmoid(d_0 + u_0)
                if GATES > 3:
                    f = tl.sigmoid(d_1 + u_1)
                    g = tanh(d_2 + u_2)
                    o = tl.sigmoid(_tile(d, rows, 3 * hidden + units, live, inside, width).to(TOTAL) + u_3)
                    c_t = f * c_t + i * g
                    if TRAIN:
                        _keep(gates, rows, units, valid, hidden, i, f, g, o, 4)
                else:
                    g = tanh(d_1 + u_1)
                    o = tl.sigmoid(d_2 + u_2)
                    c_t = c_t + i * g
                    if TRAIN:
                        _keep(gates, rows, units, valid, hidden, i, g, o, o, 3)
                tl.store(state, c_t, mask=valid)
                if TRAIN:
                    tl.store(cells + here, c_t, mask=valid)
                h_t = o * tanh(c_t)
            else:
                x = d_0 + u_0
                if CELL == "rnn_tanh":
                    h_t = tanh(x)
                elif CELL == "rnn_relu":
                    # Not a maximum, which would make a number of what is none.
                    h_t = tl.where(x < 0, 0.0, x)
                else:
                    threshold = tl.load(modrelu_bias + units, mask=inside, other=0.0).to(TOTAL)[None, :]
                    size = tl.abs(x) + threshold
                    size = tl.where(size < 0, 0.0, size)
                    h_t = tl.where(x > 0, size, tl.where(x < 0, -size, x * size))
            tl.store(output + here, h_t.to(output.dtype.element_ty), mask=valid)
        # The next step reads what other threads of this program have written.
        tl.debug_barrier()


@triton.jit
def _keep(
    gates,
    rows,
    units,
    valid,
    hidden,
    a,
    b,
    c,
    e,
    SLOTS: tl.constexpr,
):
    """Store three or four values of each unit for the backward pass."""
    at = gates + rows[:, None] * (SLOTS * hidden) + units[None, :]
    kind = gates.dtype.element_ty
    tl.store(at, a.to(kind), mask=valid)
    tl.store(at + hidden, b.to(kind), mask=valid)
    tl.store(at + 2 * hidden, c.to(kind), mask=valid)
    if SLOTS > 3:
        tl.store(at + 3 * hidden, e.to(kind), mask=valid)
