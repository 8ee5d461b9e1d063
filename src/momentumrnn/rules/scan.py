"""The linear recurrence along time, for all steps at once, and the loop it is tested against.

Every momentum rule is made of one recurrence,

    y_t = decay_t · y_{t-1} + gain · x_t,        y_{-1} = initial,

whose input is known for all t before it starts. Time is cut into chunks of K steps. Within a chunk
the K results are a lower triangular matrix times the K inputs; only the value at each chunk's end
has to be carried on, and those values obey the same recurrence over T / K steps, so the scan calls
itself. Work and memory are linear in T, and no power of a decay is ever divided by another, so
nothing overflows or cancels however long the sequence and however close a decay is to 1.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["cumulative_decay", "linear_scan", "linear_scan_loop", "linear_step", "without_autocast"]

_UNCHANGED = nullcontext()
_SHORTEST_CHUNK, _USUAL_CHUNK, _LONGEST_CHUNK = 12, 16, 24


def linear_scan(
    decay: float | Tensor, x: Tensor, initial: Tensor | None = None, gain: float | Tensor = 1.0
) -> Tensor:
    r"""Run ``y_t = decay_t * y_{t-1} + gain * x_t`` along the first dimension.

    The recurrence behind (9) and (15). Differentiable any number of times in every tensor argument.
    Float16 and bfloat16 inputs are accumulated, and returned, in float32, under autocast too.

    Args:
        decay: a number or 0-dim tensor; ``(T,)``, one for each step; ``(T, B)``, one for each step
            and sequence; or ``(1, 1, C)``, one for each channel.
        x: ``(T, B, C)``, T >= 1.
        initial: ``(B, C)``; zeros where ``None``.
        gain: a number, a 0-dim tensor or ``(1, 1, C)``.

    Returns:
        ``(T, B, C)``.

    Example:
        >>> import torch
        >>> linear_scan(0.5, torch.ones(3, 1, 1)).flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    with without_autocast(x.device):
        x = x.to(dtype)
        initial = None if initial is None else initial.to(dtype)
        if isinstance(gain, Tensor) and gain.dim() > 0:
            x, gain = x * gain.to(dtype), 1.0
        return _scan(_as_steps(decay, x.device), x, initial, gain)


def linear_scan_loop(
    decay: float | Tensor, x: Tensor, initial: Tensor | None = None, gain: float | Tensor = 1.0
) -> Tensor:
    """Run the same recurrence as ``linear_scan`` one step at a time: its oracle.

    Arguments and result are those of ``linear_scan``; the dtype is that of ``x`` throughout.

    Example:
        >>> import torch
        >>> x = torch.randn(50, 2, 3, dtype=torch.float64)
        >>> torch.testing.assert_close(linear_scan(0.9, x), linear_scan_loop(0.9, x))
    """
    y = torch.zeros_like(x[0]) if initial is None else initial
    outputs = []
    for t in range(x.shape[0]):
        step = decay
        if isinstance(decay, Tensor) and decay.dim() > 0:
            step = decay[0] if decay.dim() == 3 else decay[t].reshape(-1, 1)
        amount = gain[0] if isinstance(gain, Tensor) and gain.dim() == 3 else gain
        y = step * y + amount * x[t]
        outputs.append(y)
    return torch.stack(outputs)


def linear_step(
    decay: float | Tensor, x: Tensor, initial: Tensor | None = None, gain: float | Tensor = 1.0
) -> Tensor:
    """Run one step of the same recurrence, without what ``linear_scan`` prepares for many.

    Args:
        decay: as in ``linear_scan``, T = 1.
        x: ``(B, C)``, in float32 or float64.
        initial: ``(B, C)``, in the dtype of ``x``; zeros where ``None``.
        gain: as in ``linear_scan``.

    Returns:
        ``(B, C)``.

    Example:
        >>> import torch
        >>> linear_step(0.5, torch.ones(1, 1), torch.ones(1, 1), gain=2.0)
        tensor([[2.5000]])
    """
    if isinstance(gain, Tensor):
        gain = gain.to(x.dtype)
        gain = gain[0] if gain.dim() == 3 else gain
    y = x * gain
    if initial is None:
        return y
    if isinstance(decay, Tensor):
        return torch.addcmul(y, _as_steps(decay, x.device)[0].to(x.dtype), initial)
    return torch.add(y, initial, alpha=decay)


def cumulative_decay(decay: float | Tensor, steps: int, like: Tensor) -> Tensor:
    """Return what is left of an initial value after each step: the products of the decays so far.

    Args:
        decay: as in ``linear_scan``.
        steps: T.
        like: a tensor with the wanted device; the dtype is its own, float32 at least.

    Returns:
        ``(T, 1, 1)``, ``(T, B, 1)`` or ``(T, 1, C)``, to be multiplied with ``(B, C)``.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    expanded = _as_steps(decay, like.device)
    expanded = expanded.expand(steps, *expanded.shape[1:])
    return expanded.cumprod(0).to(dtype)


def _scan(decay: Tensor, x: Tensor, initial: Tensor | None, gain: float | Tensor = 1.0) -> Tensor:
    """Scan with ``decay`` of shape (T or 1, B or 1, C or 1); at most one of B and C above 1."""
    steps = x.shape[0]
    # In a graph that is to serve other lengths, too, nothing may hang on this one: a symbol, or in a trace by
    # torch.jit a tensor.
    open_ended = torch.compiler.is_compiling() or type(steps) is not int
    if steps == 1 and not open_ended:
        y = x * gain
        return y if initial is None else torch.addcmul(y, decay[:1].to(x.dtype), initial)
    size = _chunk_size(steps, open_ended)
    chunks = -(-steps // size)
    missing = chunks * size - steps
    pads = open_ended or missing
    blocks = (F.pad(x, (0, 0, 0, 0, 0, missing)) if pads else x).unflatten(0, (chunks, size))
    if decay.shape[0] == 1:
        decay = decay.expand(size, -1, -1).unsqueeze(0)
    else:
        decay = F.pad(decay, (0, 0, 0, 0, 0, missing), value=1.0).unflatten(0, (chunks, size))
    from_start, from_inputs = _responses(decay)
    y = _apply((from_inputs * gain).to(x.dtype), blocks)
    if chunks > 1:
        # No chunk starts at the last end; but where the number of chunks is open, there may be no other.
        wanted = chunks if open_ended else chunks - 1
        ends = _scan(
            from_start[:, -1] if decay.shape[0] == 1 else from_start[:wanted, -1], y[:wanted, -1], initial
        )
        first = torch.zeros_like(ends[:1]) if initial is None else initial.expand_as(ends[0]).unsqueeze(0)
        y = torch.addcmul(y, from_start.to(x.dtype), torch.cat([first, ends])[:chunks].unsqueeze(1))
    elif initial is not None:
        y = torch.addcmul(y, from_start.to(x.dtype), initial)
    y = y.flatten(0, 1)
    return y[:steps] if pads else y


def _responses(decay: Tensor) -> tuple[Tensor, Tensor]:
    """Return how each step of a chunk answers to the value before it and to each of its inputs.

    From decays (n, K, p, q): (n, K, p, q), the products from the chunk's start; and (n, K, K, p, q),
    entry i, j the product of the decays after step j up to step i, zero for j > i.
    """
    size = decay.shape[1]
    step = torch.arange(size, device=decay.device)
    later = (step[:, None] > step[None, :])[None, :, :, None, None]
    factors = torch.where(later, decay.unsqueeze(2), 1.0)
    causal = (step[:, None] >= step[None, :])[None, :, :, None, None]
    return decay.cumprod(1), torch.where(causal, factors.cumprod(1), 0.0)


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply triangular matrices (n, K, K, p, q) with inputs (n, K, B, C), n, p, q broadcast."""
    if matrix.shape[3] == matrix.shape[4] == 1:
        flat: Tensor = matrix[..., 0, 0] @ x.flatten(2)
        return flat.reshape(x.shape)
    if matrix.shape[4] == 1:
        return torch.einsum("nijb,njbc->nibc", matrix[..., 0], x)
    return torch.einsum("ijc,njbc->nibc", matrix[0, :, :, 0], x)


def _chunk_size(steps: int, open_ended: bool) -> int:
    """Choose the chunk length that needs the least padding: a padded input is a copied one."""
    if steps <= _LONGEST_CHUNK:
        return steps
    if open_ended:
        return _USUAL_CHUNK
    return min(range(_LONGEST_CHUNK, _SHORTEST_CHUNK - 1, -1), key=lambda size: -steps % size)


def _as_steps(decay: float | Tensor, device: torch.device) -> Tensor:
    """Return the decay as (T or 1, B or 1, C or 1); products of a plain number are kept in float64."""
    if not isinstance(decay, Tensor):
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return torch.full((1, 1, 1), decay, dtype=dtype, device=device)
    decay = decay.to(torch.promote_types(decay.dtype, torch.float32))
    if decay.dim() == 3:
        return decay
    return decay.reshape(-1, 1, 1) if decay.dim() < 2 else decay.unsqueeze(-1)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which autocast lowers no precision on ``device``."""
    kind = device.type if torch.amp.is_autocast_available(device.type) else "cpu"
    # To enter autocast costs more than a small scan.
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else _UNCHANGED
