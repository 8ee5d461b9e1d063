"""The recurrences in Triton, forwards; imported where Triton is there."""

from __future__ import annotations

import triton
import triton.language as tl

from momentumrnn.kernels.cuda.meeting import arrive, wait_for
from momentumrnn.kernels.cuda.pieces import product, read, sum_of_parts, tanh, write

__all__ = ["forward"]


@triton.jit
def _keep(gates, rows, units, valid, hidden, a, b, c, e, SLOTS: tl.constexpr):
    """Store three or four values of each unit for the backward pass."""
    width = SLOTS * hidden
    write(gates, rows, units, valid, width, a)
    write(gates, rows, hidden + units, valid, width, b)
    write(gates, rows, 2 * hidden + units, valid, width, c)
    if SLOTS > 3:
        write(gates, rows, 3 * hidden + units, valid, width, e)


# A step's number is no reason to compile anew.
@triton.jit(do_not_specialize=["first_group", "first", "last"])
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
    arrivals,  # zero, a counter for each group of sequences
    hidden,
    first_group,
    first,
    last,
    CELL: tl.constexpr,
    GATES: tl.constexpr,
    BIAS: tl.constexpr,
    TRAIN: tl.constexpr,
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
    """Run the steps from ``first`` to before ``last`` for ROWS sequences and UNITS hidden units.

    More than one step needs WAIT: the other programs of the same sequences work out the rest of h_{t-1}.
    """
    group = first_group + tl.program_id(1)
    sequences = group * ROWS + tl.arange(0, ROWS)
    units = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    inside = units < hidden
    width = GATES * hidden

    # The gates of a unit stand beside one another in a product, so that it can be split; three are filled up.
    SLOTS: tl.constexpr = 1 if GATES == 1 else 4
    column = tl.arange(0, UNITS * SLOTS)
    owner = tl.program_id(0) * UNITS + column // SLOTS
    wanted = (owner < hidden) & (column % SLOTS < GATES)
    row_of_u = ((column % SLOTS) * hidden + owner) * hidden
    if RESIDENT:
        # A part for each warp, so that none reads what another multiplies.
        inner = tl.arange(0, PARTS)[:, None] * DEPTH + tl.arange(0, DEPTH)[None, :]
        u = tl.load(
            weight_hh + row_of_u[None, None, :] + inner[:, :, None],
            mask=wanted[None, None, :] & (inner < hidden)[:, :, None],
            other=0.0,
        )
    if BIAS:
        b_0 = tl.load(bias_hh + units, mask=inside, other=0.0).to(TOTAL)[None, :]
        if GATES > 1:
            b_1 = tl.load(bias_hh + hidden + units, mask=inside, other=0.0).to(TOTAL)[None, :]
            b_2 = tl.load(bias_hh + 2 * hidden + units, mask=inside, other=0.0).to(TOTAL)[None, :]
        if GATES > 3:
            b_3 = tl.load(bias_hh + 3 * hidden + units, mask=inside, other=0.0).to(TOTAL)[None, :]
    if CELL == "rnn_modrelu":
        threshold = tl.load(modrelu_bias + units, mask=inside, other=0.0).to(TOTAL)[None, :]
    if GATES > 1 and CELL != "gru":
        # Rows behind the last sequence hold nothing: c has as many as the first step.
        begun = (sequences < tl.load(starts + 1))[:, None] & inside[None, :]
        c_t = read(c, sequences, units, begun, hidden, TOTAL)

    for t in range(first, last):
        start = tl.load(starts + t)
        live = sequences < tl.load(starts + t + 1) - start
        rows = start + sequences
        valid = live[:, None] & inside[None, :]
        previous = h_0 if t == 0 else output + tl.load(starts + t - 1) * hidden
        # What no other program writes, before the others are waited for.
        d_0 = read(d, rows, units, valid, width, TOTAL)
        if GATES > 1:
            d_1 = read(d, rows, hidden + units, valid, width, TOTAL)
            d_2 = read(d, rows, 2 * hidden + units, valid, width, TOTAL)
        if GATES > 3:
            d_3 = read(d, rows, 3 * hidden + units, valid, width, TOTAL)

        if WAIT:
            wait_for(arrivals, group, t - first)
        if RESIDENT:
            h = tl.load(
                previous + sequences[None, :, None] * hidden + inner[:, None, :],
                mask=live[None, :, None] & (inner < hidden)[:, None, :],
                other=0.0,
            )
            parts = tl.zeros((PARTS, ROWS, UNITS * SLOTS), TOTAL)
            parts = product(h, u, parts, PRECISION, WIDEN)
            u_h = sum_of_parts(parts, ROWS, UNITS * SLOTS, PARTS)
        else:
            u_h = tl.zeros((ROWS, UNITS * SLOTS), TOTAL)
            for k in range(0, hidden, DEPTH):
                depth = k + tl.arange(0, DEPTH)
                h = tl.load(
                    previous + sequences[:, None] * hidden + depth[None, :],
                    mask=live[:, None] & (depth < hidden)[None, :],
                    other=0.0,
                )
                u = tl.load(
                    weight_hh + row_of_u[None, :] + depth[:, None],
                    mask=wanted[None, :] & (depth < hidden)[:, None],
                    other=0.0,
                )
                u_h = product(h, u, u_h, PRECISION, WIDEN)
        if GATES == 1:
            u_0 = u_h
        else:
            even, odd = tl.split(tl.reshape(u_h, (ROWS, UNITS, 2, 2)))
            u_0, u_2 = tl.split(even)
            u_1, u_3 = tl.split(odd)
        if BIAS:
            u_0 += b_0
            if GATES > 1:
                u_1 += b_1
                u_2 += b_2
            if GATES > 3:
                u_3 += b_3

        if CELL == "gru":
            r = tl.sigmoid(d_0 + u_0)
            z = tl.sigmoid(d_1 + u_1)
            n = tanh(d_2 + r * u_2)
            h_t = n + z * (read(previous, sequences, units, valid, hidden, TOTAL) - n)
        elif GATES > 1:
            i = tl.sigmoid(d_0 + u_0)
            if GATES > 3:
                f = tl.sigmoid(d_1 + u_1)
                g = tanh(d_2 + u_2)
                o = tl.sigmoid(d_3 + u_3)
                new_c = f * c_t + i * g
            else:
                g = tanh(d_1 + u_1)
                o = tl.sigmoid(d_2 + u_2)
                new_c = c_t + i * g
            h_t = o * tanh(new_c)
            c_t = tl.where(valid, new_c, c_t)
        else:
            x = d_0 + u_0
            if CELL == "rnn_tanh":
                h_t = tanh(x)
            elif CELL == "rnn_relu":
                # Not a maximum, which would make a number of what is none.
                h_t = tl.where(x < 0, 0.0, x)
            else:
                size = tl.abs(x) + threshold
                size = tl.where(size < 0, 0.0, size)
                h_t = tl.where(x > 0, size, tl.where(x < 0, -size, x * size))
        write(output, rows, units, valid, hidden, h_t)
        if WAIT:
            arrive(arrivals, group)
        # What the backward pass alone will read, when the others need not wait for it any more.
        if TRAIN:
            if CELL == "gru":
                _keep(gates, rows, units, valid, hidden, r, z, n, u_2, 4)
            elif GATES > 3:
                _keep(gates, rows, units, valid, hidden, i, f, g, o, 4)
            elif GATES > 1:
                _keep(gates, rows, units, valid, hidden, i, g, o, o, 3)
            if GATES > 1 and CELL != "gru":
                write(cells, rows, units, valid, hidden, new_c)

    if GATES > 1 and CELL != "gru":
        write(c, sequences, units, begun, hidden, c_t)
