"""How a later hidden state depends on an earlier one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from momentumrnn.analysis.observed_call import arguments
from momentumrnn.analysis.recurrence import call_of
from momentumrnn.analysis.watching import find_layer
from momentumrnn.errors import InputError
from momentumrnn.kernels import GateInput, reference
from momentumrnn.layers.base import RecurrentLayer

__all__ = ["Block", "state_jacobian_singular_values", "state_jacobians"]

Block = Literal["h", "c", "state"]


def state_jacobian_singular_values(
    layer: nn.Module,
    x: Tensor,
    t: int | None = None,
    T: int | None = None,
    *,
    place: str | None = None,
    block: Block = "h",
) -> Tensor:
    r"""Return the singular values of ∂h_T/∂h_t along a sequence, (11) transposed.

    The Jacobian is the product of those of single steps,

        ∂h_T/∂h_t = J_T J_{T-1} ⋯ J_{t+1},   J_k = ∂h_k/∂h_{k-1} = diag(σ'(U h_{k-1} + bias_hh + d_k)) U

    for an RNN, found by automatic differentiation of one step for every cell. The gate inputs d_k are those
    of ``x``, momentum included, and are held fixed: they do not depend on the hidden state. All is computed
    in float64. Values below 1e-16 of the largest of the same Jacobian are rounding.

    Args:
        layer: one of this package's layers.
        x: a single sequence, (T, d), or a batch of one; the state before it is zero.
        t: the earlier step, counted from 0; ``None`` for every step from 0 to ``T``.
        T: the later step; ``None`` for the last.
        place: which recurrence of a stacked or bidirectional layer: ``"l0"``, ``"l1_reverse"``. In a reverse
            direction steps count from where it starts, the sequence's end.
        block: an LSTM's state is (h, c): ``"h"`` for ∂h_T/∂h_t with c_t held fixed, ``"c"`` for ∂c_T/∂c_t
            with h_t held fixed, ``"state"`` for the whole, ∂(h_T, c_T)/∂(h_t, c_t). For other cells ``"h"``.

    Returns:
        (n,) for one t, (T + 1, n) for all, float64, largest first; n is h, or 2 h for the whole of an LSTM.

    Raises:
        InputError: more than one sequence, or an ``x`` that does not fit the layer.
        IndexError: not 0 <= t <= T < steps.
        ValueError: no such block or place, or several places and none was named.
        TypeError: ``layer`` is none of this package's layers.

    Example:
        >>> import torch
        >>> from momentumrnn import MomentumRNN
        >>> from momentumrnn.analysis import state_jacobian_singular_values
        >>> layer, x = MomentumRNN(3, 8), torch.randn(20, 3)
        >>> state_jacobian_singular_values(layer, x, t=5, T=19).shape
        torch.Size([8])
        >>> state_jacobian_singular_values(layer, x).shape
        torch.Size([20, 8])
    """
    values: Tensor = torch.linalg.svdvals(state_jacobians(layer, x, t, T, place=place, block=block))
    return values


def state_jacobians(
    layer: nn.Module,
    x: Tensor,
    t: int | None = None,
    T: int | None = None,
    *,
    place: str | None = None,
    block: Block = "h",
) -> Tensor:
    """Return ∂h_T/∂h_t itself, (n, n) for one t or (T + 1, n, n) for all; see the singular values."""
    owner = "state_jacobian_singular_values"
    if not isinstance(layer, RecurrentLayer):
        raise TypeError(f"{owner}: expected an RNN, LSTM or GRU of momentumrnn, got {type(layer).__name__}")
    layer.check_input(x)
    if isinstance(x, PackedSequence):
        raise InputError(f"{owner}: expected a tensor of a single sequence, got a PackedSequence")
    if x.dim() == 3 and x.shape[0 if layer.batch_first else 1] != 1:
        raise InputError(f"{owner}: expected a single sequence, got a batch of shape {tuple(x.shape)}")
    recurrence, args = call_of(owner, find_layer(owner, layer, layer), x, place)
    blocks = ("h", "c", "state") if recurrence == "lstm" else ("h",)
    if block not in blocks:
        raise ValueError(f"{owner}: expected block to be one of {', '.join(blocks)}, got {block!r}")
    inputs, initial, *_ = arguments(recurrence, args)
    d = _exact(inputs.multiplied())
    last = len(d) - 1 if T is None else T
    first = 0 if t is None else t
    if not 0 <= first <= last < len(d):
        raise IndexError(f"{owner}: expected 0 <= t <= T < {len(d)}, the number of steps; got t={t}, T={T}")

    rest = tuple(_exact(arg) for arg in args[1 + len(initial) :])
    states = [tuple(_exact(state) for state in initial)]
    for d_t in d[: last + 1]:
        states.append(_step(recurrence, d_t, states[-1], rest))
    widths = [state.shape[1] for state in states[0]]
    rows = torch.eye(sum(widths), dtype=torch.float64, device=d.device)
    # Rows of the identity are the derivatives to start from: of h_T, of c_T or of both.
    chosen = {"h": slice(0, widths[0]), "c": slice(widths[0], None), "state": slice(None)}[block]
    rows = rows[chosen]
    found = [rows[:, chosen]]
    for k in range(last, first, -1):
        rows = _back_one_step(recurrence, d[k], states[k], rows, widths, rest)
        found.append(rows[:, chosen])
    return found[-1] if t is not None else torch.stack(found[::-1])


def _exact(value: Any) -> Any:
    return value.detach().to(torch.float64) if isinstance(value, Tensor) else value


def _step(
    recurrence: str, d_t: Tensor, states: tuple[Tensor, ...], rest: tuple[Any, ...]
) -> tuple[Tensor, ...]:
    """Run one step of the recurrence on d_t, (B, G·h), and return the states after it."""
    run: Any = getattr(reference, recurrence)
    after: tuple[Tensor, ...] = run(GateInput(d_t.unsqueeze(0)), *states, *rest)[1:]
    return after


def _back_one_step(
    recurrence: str,
    d_t: Tensor,
    states: tuple[Tensor, ...],
    rows: Tensor,
    widths: list[int],
    rest: tuple[Any, ...],
) -> Tensor:
    """Multiply the rows with the Jacobian of the step that leads on from ``states``."""
    count = rows.shape[0]
    with torch.enable_grad():
        # A batch of copies of the one state, each to take one row back.
        copies = tuple(state.expand(count, -1).clone().requires_grad_() for state in states)
        after = _step(recurrence, d_t.expand(count, -1), copies, rest)
        return torch.cat(torch.autograd.grad(after, copies, rows.split(widths, dim=1)), dim=1)
