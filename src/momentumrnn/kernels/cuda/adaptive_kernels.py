"""The scans of Adam and RMSProp in Triton; imported where Triton is there."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["backward", "forward"]


@triton.jit
def _coefficients(coefficients, channel, channels, inside):
    """Load μ, s, β and 1 - β of some channels."""
    at = coefficients + channel
    return (
        tl.load(at, mask=inside, other=0.0),
        tl.load(at + channels, mask=inside, other=0.0),
        tl.load(at + 2 * channels, mask=inside, other=0.0),
        tl.load(at + 3 * channels, mask=inside, other=0.0),
    )


@triton.jit
def _column(matrix, row, k: tl.constexpr, inside, FEATURES: tl.constexpr, TOTAL: tl.constexpr):
    """Load the k-th number of some rows, zero where there is none."""
    if k < FEATURES:
        numbers = tl.load(matrix + row * FEATURES + k, mask=inside, other=0.0).to(TOTAL)
    else:
        numbers = tl.zeros(row.shape, TOTAL)
    return numbers


@triton.jit
def _columns(matrix, row, inside, FEATURES: tl.constexpr, TOTAL: tl.constexpr):
    """Load some rows of up to four numbers: a number a thread, for whom a tensor would change hands."""
    return (
        _column(matrix, row, 0, inside, FEATURES, TOTAL),
        _column(matrix, row, 1, inside, FEATURES, TOTAL),
        _column(matrix, row, 2, inside, FEATURES, TOTAL),
        _column(matrix, row, 3, inside, FEATURES, TOTAL),
    )


@triton.jit
def _bias(bias, channel, inside, TOTAL: tl.constexpr):
    # Not by a return in between: Triton compiles what stands behind it all the same.
    if bias is None:
        numbers = tl.zeros(channel.shape, TOTAL)
    else:
        numbers = tl.load(bias + channel, mask=inside, other=0.0).to(TOTAL)
    return numbers


@triton.jit
def forward(
    drive,  # (N, C), or x, (N, F), of few features
    weight,  # (C, F), of few features
    bias,  # (C,), of few features
    coefficients,  # (4, C)
    d,  # (N, C), written
    v_n,  # (B, C), v_0, and v_n in the end
    m_n,  # (B, C), m_0, and m_n in the end
    saved,  # (2, T / INTERVAL, B, C), v and m before every INTERVAL-th step
    starts,  # (T + 2,), the first row of every step
    steps,
    batch,
    channels,
    TRAIN: tl.constexpr,
    FEATURES: tl.constexpr,
    SQUARED_EPS: tl.constexpr,
    INTERVAL: tl.constexpr,
    BLOCK: tl.constexpr,
    TOTAL: tl.constexpr,
):
    """Run v and m, (15), over all steps for BLOCK of the B · C channels of all sequences.

    Of FEATURES, unless they are 0, the drive is made here.
    """
    own = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    count = batch * channels
    inside = own < count
    momentum, step_size, beta, rest = _coefficients(coefficients, own % channels, channels, inside)
    v = tl.load(v_n + own, mask=inside, other=0.0)
    m = tl.load(m_n + own, mask=inside, other=0.0)
    if FEATURES:
        w_0, w_1, w_2, w_3 = _columns(weight, own % channels, inside, FEATURES, TOTAL)
        b = _bias(bias, own % channels, inside, TOTAL)
    kept = (steps + INTERVAL - 1) // INTERVAL
    # In 64 bits, as the first row is: all that is kept may be more than 32 can count.
    wide = tl.load(starts) + count
    for t in range(steps):
        start = tl.load(starts + t)
        live = own < (tl.load(starts + t + 1) - start) * channels
        if TRAIN and t % INTERVAL == 0:
            place = saved + (t // INTERVAL) * wide + own
            tl.store(place, v, mask=inside)
            tl.store(place + kept * wide, m, mask=inside)
        here = start * channels + own
        if FEATURES:
            x_0, x_1, x_2, x_3 = _columns(drive, start + own // channels, live, FEATURES, TOTAL)
            a = w_0 * x_0 + w_1 * x_1 + w_2 * x_2 + w_3 * x_3 + b
        else:
            a = tl.load(drive + here, mask=live, other=0.0).to(TOTAL)
        v = tl.where(live, momentum * v + step_size * a, v)
        m = tl.where(live, beta * m + rest * a * a, m)
        tl.store(d + here, (v / tl.sqrt(m + SQUARED_EPS)).to(d.dtype.element_ty), mask=live)
    tl.store(v_n + own, v, mask=inside)
    tl.store(m_n + own, m, mask=inside)


@triton.jit
def backward(
    drive,  # (N, C), or x, (N, F), of few features
    weight,  # (C, F), of few features
    bias,  # (C,), of few features
    coefficients,  # (4, C)
    saved,  # (2, T / INTERVAL, B, C), v and m before every INTERVAL-th step
    scratch,  # (2, INTERVAL, B, C), v and m before every step of one interval
    grad_output,  # (N, C)
    grad_drive,  # (N, C), written; of few features not
    grad_weight,  # (B, C, F), written, of few features
    grad_bias,  # (B, C), written, of few features
    grad_coefficients,  # (4, B, C), written
    grad_v,  # (B, C), of v_n, and of v_0 in the end
    grad_m,  # (B, C), of m_n, and of m_0 in the end
    starts,  # (T + 2,), the first row of every step
    steps,
    batch,
    channels,
    FEATURES: tl.constexpr,
    SQUARED_EPS: tl.constexpr,
    INTERVAL: tl.constexpr,
    BLOCK: tl.constexpr,
    TOTAL: tl.constexpr,
):
    """Run the steps backwards, with v and m of one interval after another computed again."""
    own = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    count = batch * channels
    inside = own < count
    momentum, step_size, beta, rest = _coefficients(coefficients, own % channels, channels, inside)
    slope_v = tl.load(grad_v + own, mask=inside, other=0.0)
    slope_m = tl.load(grad_m + own, mask=inside, other=0.0)
    of_momentum = tl.zeros((BLOCK,), TOTAL)
    of_step_size = tl.zeros((BLOCK,), TOTAL)
    of_beta = tl.zeros((BLOCK,), TOTAL)
    of_rest = tl.zeros((BLOCK,), TOTAL)
    if FEATURES:
        w_0, w_1, w_2, w_3 = _columns(weight, own % channels, inside, FEATURES, TOTAL)
        b = _bias(bias, own % channels, inside, TOTAL)
        of_w_0 = tl.zeros((BLOCK,), TOTAL)
        of_w_1 = tl.zeros((BLOCK,), TOTAL)
        of_w_2 = tl.zeros((BLOCK,), TOTAL)
        of_w_3 = tl.zeros((BLOCK,), TOTAL)
        of_bias = tl.zeros((BLOCK,), TOTAL)
    kept = (steps + INTERVAL - 1) // INTERVAL
    wide = tl.load(starts) + count
    for back in range(kept):
        interval = kept - 1 - back
        begin = interval * INTERVAL
        end = tl.minimum(begin + INTERVAL, steps)
        v = tl.load(saved + interval * wide + own, mask=inside, other=0.0)
        m = tl.load(saved + (kept + interval) * wide + own, mask=inside, other=0.0)
        for t in range(begin, end):
            start = tl.load(starts + t)
            live = own < (tl.load(starts + t + 1) - start) * channels
            place = scratch + (t - begin) * wide + own
            tl.store(place, v, mask=inside)
            tl.store(place + INTERVAL * wide, m, mask=inside)
            if FEATURES:
                x_0, x_1, x_2, x_3 = _columns(drive, start + own // channels, live, FEATURES, TOTAL)
                a = w_0 * x_0 + w_1 * x_1 + w_2 * x_2 + w_3 * x_3 + b
            else:
                a = tl.load(drive + start * channels + own, mask=live, other=0.0).to(TOTAL)
            v = tl.where(live, momentum * v + step_size * a, v)
            m = tl.where(live, beta * m + rest * a * a, m)
        # What a thread wrote another may read.
        tl.debug_barrier()
        for step in range(end - begin):
            t = end - 1 - step
            start = tl.load(starts + t)
            live = own < (tl.load(starts + t + 1) - start) * channels
            here = start * channels + own
            place = scratch + (t - begin) * wide + own
            v_before = tl.load(place, mask=live, other=0.0)
            m_before = tl.load(place + INTERVAL * wide, mask=live, other=0.0)
            if FEATURES:
                x_0, x_1, x_2, x_3 = _columns(drive, start + own // channels, live, FEATURES, TOTAL)
                a = tl.where(live, w_0 * x_0 + w_1 * x_1 + w_2 * x_2 + w_3 * x_3 + b, 0.0)
            else:
                a = tl.load(drive + here, mask=live, other=0.0).to(TOTAL)
            slope = tl.load(grad_output + here, mask=live, other=0.0).to(TOTAL)
            v = momentum * v_before + step_size * a
            scale = 1.0 / tl.sqrt(beta * m_before + rest * a * a + SQUARED_EPS)
            # Grouped so that no factor alone leaves float32, at m = 0 and ε = 1e-8 neither.
            through_v = slope * scale
            through_m = -0.5 * through_v * (v * scale) * scale
            slope_v += through_v
            slope_m += through_m
            # Zero where a sequence is over, as is all that was loaded or made of it.
            of_momentum += slope_v * v_before
            of_step_size += slope_v * a
            of_beta += slope_m * m_before
            of_rest += slope_m * a * a
            grad = slope_v * step_size + 2.0 * slope_m * rest * a
            if FEATURES:
                grad = tl.where(live, grad, 0.0)
                of_w_0 += grad * x_0
                of_w_1 += grad * x_1
                of_w_2 += grad * x_2
                of_w_3 += grad * x_3
                of_bias += grad
            else:
                tl.store(grad_drive + here, grad.to(grad_drive.dtype.element_ty), mask=live)
            slope_v = tl.where(live, slope_v * momentum, slope_v)
            slope_m = tl.where(live, slope_m * beta, slope_m)
        tl.debug_barrier()
    tl.store(grad_v + own, slope_v, mask=inside)
    tl.store(grad_m + own, slope_m, mask=inside)
    places = grad_coefficients + own
    tl.store(places, of_momentum, mask=inside)
    tl.store(places + wide, of_step_size, mask=inside)
    tl.store(places + 2 * wide, of_beta, mask=inside)
    tl.store(places + 3 * wide, of_rest, mask=inside)
    if FEATURES:
        rows = grad_weight + own.to(tl.int64) * FEATURES
        tl.store(rows, of_w_0, mask=inside)
        if FEATURES > 1:
            tl.store(rows + 1, of_w_1, mask=inside)
        if FEATURES > 2:
            tl.store(rows + 2, of_w_2, mask=inside)
        if FEATURES > 3:
            tl.store(rows + 3, of_w_3, mask=inside)
        tl.store(grad_bias + own, of_bias, mask=inside)
