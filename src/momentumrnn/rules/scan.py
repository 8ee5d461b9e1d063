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

import math
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["cumulative_decay", "linear_scan", "linear_scan_loop", "linear_step", "without_autocast"]

_UNCHANGED = nullcontext()
_SHORTEST_CHUNK, _USUAL_CHUNK, _LONGEST_CHUNK = 12, 16, 24
_LEVELS_IN_A_GRAPH = 3


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
        factors = _as_steps(decay, x.device)
        constant = factors.shape[0] == 1
        if _readable(x):
            y = _scan(factors, x, initial, gain, constant=constant, careful=False)
            # The last step depends on every value before it.
            if math.isfinite(y.detach()[-1].sum()):
                return y
        return _scan(factors, x, initial, gain, constant=constant, careful=True)


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
    factors = _as_steps(decay, like.device)
    if factors.shape[0] == 1:
        return torch.pow(factors, _count(steps, factors, first=1)[:, None, None]).to(dtype)
    nothing, start = torch.zeros_like(factors), torch.ones_like(factors[0])
    return _scan(factors, nothing, start, constant=False, careful=False).to(dtype)


def _scan(
    decay: Tensor,
    x: Tensor,
    initial: Tensor | None,
    gain: float | Tensor = 1.0,
    *,
    constant: bool,
    careful: bool,
    level: int = 1,
) -> Tensor:
    """Scan with ``decay`` of shape (1 or T, 1 or B, 1 or C); at most one of B and C above 1.

    ``constant`` says that the decay's first size is 1, ``careful`` that x and the initial value may hold what
    is not finite, ``level`` how deep the scan has called itself.
    """
    steps = x.shape[0]
    # A graph has to serve every T, a symbol there, or a tensor in a trace by torch.jit. So its scan has the
    # same levels for all of them, and the last level is one chunk, however long.
    open_ended = torch.compiler.is_compiling() or type(steps) is not int
    if steps == 1 and not open_ended:
        y = x * gain
        return y if initial is None else torch.addcmul(y, decay[:1].to(x.dtype), initial)
    if careful:
        x, initial, rest = _without_infinite(decay, x, initial, gain)
    one_chunk = level == _LEVELS_IN_A_GRAPH if open_ended else steps <= _LONGEST_CHUNK
    if one_chunk:
        blocks, decay, chunks, pads = x.unsqueeze(0), decay.unsqueeze(0), 1, False
    else:
        size = _USUAL_CHUNK if open_ended else _chunk_size(steps)
        # At least two in a graph: a size that may be one divides what is symbolic into two cases.
        chunks = (steps - 1) // size + 2 if open_ended else -(-steps // size)
        missing = chunks * size - steps
        pads = open_ended or missing > 0
        blocks = (F.pad(x, (0, 0, 0, 0, 0, missing)) if pads else x).unflatten(0, (chunks, size))
        if constant:
            decay = decay.unsqueeze(0)
        else:
            decay = F.pad(decay, (0, 0, 0, 0, 0, missing), value=1.0).unflatten(0, (chunks, size))
    if constant:
        from_start, from_inputs = _powers(decay, blocks.shape[1])
    else:
        from_start, from_inputs = _products(decay, open_ended)
    if isinstance(gain, Tensor) or gain != 1.0:
        from_inputs = from_inputs * gain
    y = _apply(from_inputs.to(x.dtype), blocks)
    if not one_chunk:
        # No chunk starts at the last end; in a graph it is there all the same, for a size of two.
        wanted = chunks if open_ended else chunks - 1
        through = from_start[:, -1] if constant else from_start[:wanted, -1]
        # The ends of finite inputs are finite unless they overflow. That is treated only where this code runs
        # after a failed check: elsewhere it would slow down every call.
        careful_of_ends = careful and _readable(x)
        ends = _scan(
            through, y[:wanted, -1], initial, constant=constant, careful=careful_of_ends, level=level + 1
        )
        first = torch.zeros_like(ends[:1]) if initial is None else initial.expand_as(ends[0]).unsqueeze(0)
        y = torch.addcmul(y, from_start.to(x.dtype), torch.cat([first, ends])[:chunks].unsqueeze(1))
    elif initial is not None:
        y = torch.addcmul(y, from_start.to(x.dtype), initial)
    y = y.flatten(0, 1)
    y = y[:steps] if pads else y
    return y + rest if careful else y


def _powers(decay: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return how each step of a chunk responds to the value before it and to each of its inputs.

    From one decay for all steps, (1, 1, p, q): its powers from the chunk's start, (1, K, p, q); and
    (1, K, K, p, q), entry i, j the power i - j, zero for j > i.
    """
    step = _count(size, decay)[:, None, None]
    distance = step.unsqueeze(1) - step
    powers = torch.pow(decay.unsqueeze(2), distance.clamp(min=0.0))
    return torch.pow(decay, step + 1.0), torch.where(distance < 0.0, 0.0, powers)


def _products(decay: Tensor, open_ended: bool) -> tuple[Tensor, Tensor]:
    """Return what ``_powers`` does for decays that change, (n, K, p, q): (n, K, p, q) and (n, K, K, p, q)."""
    step = torch.arange(decay.shape[1], device=decay.device)
    # The first column stands for the value before the chunk, which every decay of the chunk acts on.
    since = torch.arange(-1, decay.shape[1], device=decay.device)
    acts = step[:, None] > since[None, :]
    if open_ended:
        # Not cumprod, which the runtimes that graphs are exported to do not have.
        inside = (acts.t()[None] & (step[None, :] <= step[:, None])[:, None])[..., None, None]
        responses = torch.where(inside, decay[:, None, None], 1.0).prod(3)
    else:
        responses = torch.where(acts[..., None, None], decay.unsqueeze(2), 1.0).cumprod(1)
    causal = (step[:, None] >= step[None, :])[..., None, None]
    return responses[:, :, 0], torch.where(causal, responses[:, :, 1:], 0.0)


def _without_infinite(
    decay: Tensor, x: Tensor, initial: Tensor | None, gain: float | Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return x and the initial value with zeros for what is not finite, and what that adds to each step.

    The product multiplies zeros with later inputs, and 0 · inf is NaN: it would reach back in time.
    """
    finite = torch.nan_to_num(x, 0.0, 0.0, 0.0)
    outside = (x - finite).detach() * gain
    if initial is None:
        before = torch.zeros_like(outside[:1])
    else:
        clean = torch.nan_to_num(initial, 0.0, 0.0, 0.0)
        before = (initial - clean).detach().unsqueeze(0)
        initial = clean
    # An infinity stays until an opposite one makes it NaN, which has met both. Counted in integers: sums of
    # floating point numbers have no deterministic implementation on CUDA.
    seen = torch.cat([before, outside])
    above, below = torch.stack((~(seen <= 0.0), ~(seen >= 0.0))).cumsum(1, dtype=torch.int32) > 0
    rest = torch.where(above, math.inf, 0.0) + torch.where(below, -math.inf, 0.0)
    # A decay of zero makes it NaN, too.
    lost = ((decay == 0.0) & (above | below)[: x.shape[0]]).cumsum(0, dtype=torch.int32) > 0
    return finite, initial, torch.where(lost, math.nan, rest[1:]).to(x.dtype)


def _readable(x: Tensor) -> bool:
    """Whether a value can be read without waiting: outside graphs, ``torch.func`` and dispatch modes."""
    return (
        not torch.compiler.is_compiling()
        and type(x.shape[0]) is int
        and x.device.type == "cpu"
        and type(x) in (Tensor, torch.nn.Parameter)
        and not torch._C._are_functorch_transforms_active()
        and not torch._C._functorch.is_legacy_batchedtensor(x)
        and torch._C._len_torch_dispatch_stack() == 0
    )


def _apply(matrix: Tensor, x: Tensor) -> Tensor:
    """Multiply matrices (n, K, K, p, q) with inputs (n, K, B, C), n, p, q broadcast."""
    if matrix.shape[3] == matrix.shape[4] == 1:
        flat: Tensor = matrix[..., 0, 0] @ x.flatten(2)
        return flat.reshape(x.shape)
    if matrix.shape[4] == 1:
        return torch.einsum("nijb,njbc->nibc", matrix[..., 0], x)
    return torch.einsum("ijc,njbc->nibc", matrix[0, :, :, 0], x)


def _chunk_size(steps: int) -> int:
    """Choose the chunk length that needs the least padding: a padded input is a copied one."""
    return min(range(_LONGEST_CHUNK, _SHORTEST_CHUNK - 1, -1), key=lambda size: -steps % size)


def _count(steps: int, like: Tensor, first: int = 0) -> Tensor:
    return torch.arange(first, first + steps, dtype=like.dtype, device=like.device)


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
