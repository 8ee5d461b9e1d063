"""The filter of ``momentumrnn.kernels.channel_filter`` in torch's operators.

Real and complex numbers go through the same code: a number is a list of its parts, the real one alone or the
real and the imaginary one. ONNX has no complex tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.kernels.packed import PackedRows
from momentumrnn.rules.base import last_step

__all__ = ["channel_scan"]

# Steps of a chunk, a power of two.
_CHUNK = 16
# A graph serves any number of steps. It cuts them into chunks this many times and then doubles this many
# times, which is enough for 2³² steps.
_LEVELS = 2
_DOUBLINGS = 24

Parts = list[Tensor]


def channel_scan(
    drive: Tensor, coefficients: Tensor, initial: Sequence[Tensor | None], packed: PackedRows | None
) -> tuple[Tensor, Parts]:
    """Run u_t = μ u_{t-1} + a_t, d_t = e a_t + Re(c u_t); differentiable any number of times.

    A value that is not finite reaches no earlier step.

    Args:
        drive: a, (T, B, C), or the rows (N, C) of a packed batch.
        coefficients: (3, C): μ, c and e; or (5, C): Re μ, Im μ, Re c, Im c and e.
        initial: parts of u before the first step, (B, C) each or ``None`` for zero.
        packed: the packed batch's places.

    Returns:
        d, (T, B, C) or (N, C); and the parts of u after each sequence's own last step.
    """
    *rows, direct = coefficients.unbind()
    momentum, gain = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    a = drive if packed is None else packed.pad(drive)
    start = [torch.zeros_like(a[0]) if part is None else part for part in initial[: len(momentum)]]
    u = _scan(momentum, [a, *(torch.zeros_like(a) for _ in momentum[1:])], start)
    d = direct * a + _times(gain, u)[0]
    lengths = None if packed is None else packed.lengths
    return (d if packed is None else packed.pack(d)), [last_step(part, lengths) for part in u]


def _scan(momentum: Parts, x: Parts, initial: Parts, level: int = 0) -> Parts:
    """Run u_t = μ u_{t-1} + x_t over the parts (T, B, C) of x, from those (B, C) of the initial u."""
    steps = x[0].shape[0]
    open_ended = torch.compiler.is_compiling() or type(steps) is not int
    if open_ended and level == _LEVELS:
        first = _sum([part[:1] for part in x], _times(momentum, initial))
        return _doubled(momentum, [torch.cat([one, part[1:]]) for one, part in zip(first, x, strict=True)])
    # At least two chunks in a graph: a size that may be one would divide it into two cases.
    chunks = (steps - 1) // _CHUNK + 2 if open_ended else -(-steps // _CHUNK)
    size = steps if chunks == 1 else _CHUNK
    missing = chunks * size - steps
    u = [F.pad(part, (0, 0, 0, 0, 0, missing)).unflatten(0, (chunks, size)) for part in x]
    powers = [part.unsqueeze(1) for part in _powers(momentum, size)]
    shift = 1
    while shift < size:
        # Zeros come in from before the chunk, not what is multiplied with zero: 0 · NaN would be NaN.
        earlier = [F.pad(part[:, :-shift], (0, 0, 0, 0, shift, 0)) for part in u]
        u = _sum(u, _times([part[shift - 1] for part in powers], earlier))
        shift *= 2
    before = [part.unsqueeze(0) for part in initial]
    if chunks != 1:
        ends = _scan([part[-1, 0] for part in powers], [part[:, -1] for part in u], initial, level + 1)
        before = [torch.cat([part, end[:-1]]) for part, end in zip(before, ends, strict=True)]
    u = _sum(u, _times(powers, [part.unsqueeze(1) for part in before]))
    return [part.flatten(0, 1)[:steps] for part in u]


def _doubled(momentum: Parts, u: Parts) -> Parts:
    """Scan by adding up twice as many steps each time."""
    step = torch.arange(u[0].shape[0], device=u[0].device)
    for doubling in range(_DOUBLINGS):
        before = step - 2**doubling
        place = before.clamp(min=0)
        more = _sum(u, _times(momentum, [part[place] for part in u]))
        there = (before >= 0)[:, None, None]
        u = [torch.where(there, new, old) for new, old in zip(more, u, strict=True)]
        momentum = _times(momentum, momentum)
    return u


def _powers(momentum: Parts, most: int) -> Parts:
    """Return the first ``most`` powers of μ, the parts (most, C)."""
    powers = [part.unsqueeze(0) for part in momentum]
    while powers[0].shape[0] < most:
        more = _times([part[-1] for part in powers], powers)
        powers = [torch.cat(pair) for pair in zip(powers, more, strict=True)]
    return [part[:most] for part in powers]


def _times(one: Parts, other: Parts) -> Parts:
    if len(one) == 1:
        return [one[0] * other[0]]
    (a, b), (c, d) = one, other
    return [a * c - b * d, a * d + b * c]


def _sum(one: Parts, other: Parts) -> Parts:
    return [a + b for a, b in zip(one, other, strict=True)]
