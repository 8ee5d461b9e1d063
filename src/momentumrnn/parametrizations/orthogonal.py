"""An orthogonal matrix as a module: base · φ(A - Aᵀ)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from momentumrnn.errors import InputError
from momentumrnn.parametrizations.initialisation import STARTS, Start, start_
from momentumrnn.parametrizations.maps import MAPS, Map, skew_matrix, tightened
from momentumrnn.parametrizations.steps import follow
from momentumrnn.rules.scan import without_autocast

__all__ = ["Orthogonal"]

# Changes of base from one projection to the next.
_PROJECT_EVERY = 100


class Orthogonal(nn.Module):
    r"""An orthogonal matrix U = B φ(A - Aᵀ), trained by way of A, which may be anything.

    A is strictly upper triangular, φ the matrix exponential (expRNN and DTRIV) or scoRNN's Cayley map
    (I + S)⁻¹ (I - S), B the base, an orthogonal matrix that no gradient reaches. With ``rebase_every`` = K,
    after every K-th step of an optimizer B becomes U and A becomes 0 (dynamic trivialization), which leaves
    U as it is to rounding; and every hundredth time B is replaced by the nearest orthogonal matrix, its
    polar factor.

    The steps are counted by themselves, for any ``torch.optim.Optimizer`` that holds ``skew``, and each
    ``Optimizer.step`` once: a step that a gradient scaler skips is none, nor are the backward passes of
    gradient accumulation; an optimizer that steps another with the same parameters counts as two. Where no
    such optimizer is, call ``rebase``.

    The optimizer's own state stays when the base changes. Near A = 0 a step dA moves U by B (dA - dAᵀ),
    whatever the base: averages of earlier gradients, and of their squares, keep their meaning in coordinates
    that turn with the base.

    ``torch.nn.utils.parametrizations.orthogonal`` keeps no base that changes, and a module parametrized that
    way can be neither pickled nor copied with its counts; so this is a module of its own.

    Args:
        size: n.
        map: φ, ``"exp"`` or ``"cayley"``.
        rebase_every: K: a number of steps; ``math.inf`` to change the base once, after the first step;
            ``None`` never.
        start: ``"cayley"``, ``"henaff"``, ``"haar"`` or ``"identity"``, see
            ``momentumrnn.parametrizations.start_``.
        device: where the parameters are made.
        dtype: what they are made of.

    Attributes:
        skew: A's entries above the diagonal, row by row, (n (n - 1) / 2,): the parameter.
        base: B, (n, n): a buffer.
        steps: optimizer steps so far, int64: a buffer, for the ``state_dict``.
        changes: changes of base so far, int64: likewise.

    Raises:
        ValueError: a map or start by another name, ``rebase_every`` below 1 or no whole number.
        TypeError: a ``rebase_every`` that is no number.

    Example:
        >>> import torch
        >>> matrix = Orthogonal(4, rebase_every=1)
        >>> optimizer = torch.optim.SGD(matrix.parameters(), lr=0.1)
        >>> matrix().square()[0, 1].backward()
        >>> optimizer.step()
        >>> int(matrix.changes), int(matrix.skew.count_nonzero())
        (1, 0)
        >>> torch.testing.assert_close(matrix() @ matrix().t(), torch.eye(4))
    """

    skew: nn.Parameter
    base: Tensor
    steps: Tensor
    changes: Tensor
    places: Tensor

    def __init__(
        self,
        size: int,
        map: Map = "exp",
        rebase_every: float | None = None,
        start: Start = "cayley",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if map not in MAPS:
            raise ValueError(f'Orthogonal: expected map "exp" or "cayley", got {map!r}')
        if start not in STARTS:
            raise ValueError(f"Orthogonal: expected start among {', '.join(STARTS)}, got {start!r}")
        self.size = size
        self.map: Map = map
        self.rebase_every = _checked(rebase_every)
        self.start: Start = start
        entries = torch.empty(size * (size - 1) // 2, device=device, dtype=dtype)
        self.skew = nn.Parameter(entries)
        self.register_buffer("base", torch.empty(size, size, device=device, dtype=dtype))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("changes", torch.zeros((), dtype=torch.int64, device=device))
        places = torch.empty(entries.shape, dtype=torch.int64, device=device)
        self.register_buffer("places", places, persistent=False)
        self.reset_parameters()
        self._follow()

    def reset_parameters(self) -> None:
        """Draw a new start, and forget the steps."""
        self.places.copy_(self._upper())
        start_(self.skew, self.base, self.start)
        self.steps.zero_()
        self.changes.zero_()
        self._steps = self._changes = 0

    def forward(self) -> Tensor:
        """Return U, (n, n)."""
        with without_autocast(self.skew.device):
            # In fewer bits U would not be orthogonal.
            entries: Tensor = self.skew
            base = self.base
            if entries.dtype in (torch.float16, torch.bfloat16):
                entries, base = entries.float(), base.float()
            moved = tightened(MAPS[self.map](skew_matrix(entries, self.places, self.size)))
            return (base @ moved).to(self.skew.dtype)

    @torch.no_grad()
    def rebase(self) -> None:
        """Make U the base and A zero; U stays what it is, to rounding."""
        # Not tightened rounding would gather in the base from one projection to the next, nor in fewer bits.
        with without_autocast(self.skew.device):
            self.base.copy_(tightened(self()))
        self.skew.zero_()
        self.changes += 1
        self._changes += 1
        if self._changes % _PROJECT_EVERY == 0:
            self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Replace the base by the orthogonal matrix nearest to it, its polar factor."""
        # On the CPU: not every device has float64.
        left, _, right = torch.linalg.svd(self.base.cpu().double())
        self.base.copy_(left @ right)

    @torch.no_grad()
    def assign(self, matrix: Tensor) -> None:
        """Set U: the base becomes the orthogonal matrix nearest to ``matrix``, and A zero.

        Raises:
            InputError: ``matrix`` has another shape, or is not orthogonal to three digits.
        """
        if matrix.shape != self.base.shape:
            raise InputError(
                f"expected an orthogonal matrix of shape {tuple(self.base.shape)}, got {tuple(matrix.shape)}"
            )
        given, one = matrix.cpu().double(), torch.eye(self.size, dtype=torch.float64, device="cpu")
        distance = (given.t() @ given - one).abs().max() if self.size else one.sum()
        if not distance < 1e-3:
            raise InputError(
                "expected an orthogonal matrix, got one that is off by "
                f"{float(distance):.2g} in UᵀU; for the nearest one give its polar factor, "
                "U Vᵀ of torch.linalg.svd"
            )
        self.base.copy_(matrix)
        self.project()
        self.skew.zero_()

    def after_step(self) -> None:
        """Count an optimizer step, and change the base where one is due."""
        self._steps += 1
        self.steps += 1
        every = self.rebase_every
        if every is not None and (self._steps == 1 if every == math.inf else self._steps % every == 0):
            self.rebase()

    def extra_repr(self) -> str:
        shown = f"{self.size}, map={self.map!r}"
        return shown if self.rebase_every is None else f"{shown}, rebase_every={self.rebase_every}"

    def _begin(self) -> None:
        # The numbers again where reading them costs no wait for a device.
        if not self.steps.is_meta:
            self._steps, self._changes = int(self.steps), int(self.changes)
        self._follow()

    def _follow(self) -> None:
        if self.rebase_every is not None:
            follow(self)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if not self.skew.is_meta:
            # Saved nowhere: of a module that was made without memory nothing else would fill them.
            self.places = self._upper().to(self.skew.device)
        self._begin()

    def _upper(self) -> Tensor:
        rows, columns = torch.triu_indices(self.size, self.size, 1, device="cpu")
        places: Tensor = rows * self.size + columns
        return places

    def __setstate__(self, state: dict[str, Any]) -> None:
        # What copies and pickles come through; torch leaves it without types.
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._begin()


def _checked(every: Any) -> float | None:
    if every is None or every == math.inf:
        return None if every is None else math.inf
    if isinstance(every, bool) or not isinstance(every, int | float):
        raise TypeError(
            f"rebase_every: expected a number of optimizer steps, math.inf or None, got {every!r}"
        )
    if not every >= 1 or every != int(every):
        raise ValueError(f"rebase_every: expected a whole number of 1 or more, math.inf or None, got {every}")
    return int(every)
