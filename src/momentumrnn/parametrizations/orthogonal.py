"""An orthogonal matrix as a module: base · φ(A - Aᵀ)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from momentumrnn.errors import InputError
from momentumrnn.kernels.problem import eager
from momentumrnn.parametrizations.initialisation import STARTS, Start, start_
from momentumrnn.parametrizations.maps import MAPS, Map, skew_matrix, tightened
from momentumrnn.parametrizations.steps import follow
from momentumrnn.rules.scan import without_autocast

__all__ = ["Orthogonal"]

# Changes of base from one projection to the next.
_PROJECT_EVERY = 100
# How far |BᵀB - I| of an orthogonal matrix may be from zero: given by a user, and by rounding alone.
_GIVEN, _ROUNDED, _ROUNDED_IN_HALF = 1e-3, 1e-5, 0.05


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

    A base that something else has changed, such as an average over buffers, is replaced by the nearest
    orthogonal matrix before it is used or saved.

    Raises:
        ValueError: a map or start by another name, ``rebase_every`` below 1 or no whole number.
        TypeError: a ``rebase_every`` that is no number.
        InputError: when called, parts on different devices, or a base that something made singular.

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
    _steps: int
    _changes: int
    # Which tensors were seen to be orthogonal, or were counted: by identity and version.
    _checked_base: tuple[int, int] | None = None
    _counted: tuple[int, int, int, int] | None = None

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
        self.reset_parameters()
        self._follow()

    def reset_parameters(self) -> None:
        """Draw a new start, and forget the steps."""
        start_(self.skew, self.base, self.start)
        self.steps.zero_()
        self.changes.zero_()
        self._checked_base = None

    @property
    def places(self) -> Tensor:
        """Where A's entries belong in the flattened matrix, int64, (n (n - 1) / 2,)."""
        # Computed at each call. In a buffer, tools that average or fill tensors one by one would spoil it.
        rows, columns = torch.triu_indices(self.size, self.size, 1, device=self.skew.device)
        return torch.add(columns, rows, alpha=self.size)

    def forward(self) -> Tensor:
        """Return U, (n, n)."""
        skew, base = self.skew, self.base
        self._repair_base(base)
        with without_autocast(skew.device):
            # In fewer bits U would not be orthogonal.
            entries = _whole(skew)
            if entries.dtype in (torch.float16, torch.bfloat16):
                entries, base = entries.float(), base.float()
            moved = tightened(MAPS[self.map](skew_matrix(entries, self.places, self.size)))
            return (base @ moved).to(skew.dtype)

    @torch.no_grad()
    def rebase(self) -> None:
        """Make U the base and A zero; U stays what it is, to rounding."""
        self._read_counts()
        # Not tightened rounding would gather in the base from one projection to the next, nor in fewer bits.
        with without_autocast(self.skew.device):
            self.base.copy_(tightened(self()))
        self.skew.zero_()
        self._changes += 1
        self.changes += 1
        if self._changes % _PROJECT_EVERY == 0:
            self.project()
        self._remember()

    @torch.no_grad()
    def project(self) -> None:
        """Replace the base by the orthogonal matrix nearest to it, its polar factor."""
        # On the CPU: not every device has float64.
        left, _, right = torch.linalg.svd(self.base.cpu().double())
        self.base.copy_(left @ right)
        self._remember()

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
        distance = _from_orthogonal(matrix)
        if not distance < _GIVEN:
            raise InputError(
                f"expected an orthogonal matrix, got one that is off by {distance:.2g} in UᵀU; for the "
                "nearest one give its polar factor, U Vᵀ of torch.linalg.svd"
            )
        self.base.copy_(matrix)
        self.project()
        self.skew.zero_()

    def after_step(self) -> None:
        """Count an optimizer step, and change the base where one is due."""
        self._read_counts()
        self._steps += 1
        self.steps += 1
        self._remember()
        every = self.rebase_every
        if every is not None and (self._steps == 1 if every == math.inf else self._steps % every == 0):
            self.rebase()

    def extra_repr(self) -> str:
        shown = f"{self.size}, map={self.map!r}"
        return shown if self.rebase_every is None else f"{shown}, rebase_every={self.rebase_every}"

    def _versions(self) -> tuple[int, int, int, int]:
        steps, changes = self.steps, self.changes
        return id(steps), steps._version, id(changes), changes._version

    def _read_counts(self) -> None:
        # Reading a number waits for its device: only where something else has written it.
        if self._counted != self._versions():
            self._steps, self._changes = int(self.steps), int(self.changes)

    def _remember(self) -> None:
        """Take the base and the counts as they are for this module's own work."""
        self._counted = self._versions()
        self._checked_base = id(self.base), self.base._version

    def _repair_base(self, base: Tensor) -> None:
        """Replace a base that something else has changed by the nearest orthogonal matrix."""
        if torch.compiler.is_compiling() or base.is_inference():
            return
        if self._checked_base != (id(base), base._version):
            self._check_base(base)

    @torch.no_grad()
    def _check_base(self, base: Tensor) -> None:
        if self.skew.device != base.device:
            raise InputError(
                f"Orthogonal: expected base on {self.skew.device}, where skew is, got {base.device}; move "
                "the module as a whole with .to(device)"
            )
        if base.is_meta or not eager():
            return
        half = base.dtype in (torch.float16, torch.bfloat16)
        if not _from_orthogonal(base) < (_ROUNDED_IN_HALF if half else _ROUNDED):
            # A singular matrix has no nearest one, or many.
            if not bool(base.isfinite().all()) or torch.linalg.cond(base.cpu().double()) > 1e4:
                raise InputError(
                    "Orthogonal: expected an orthogonal base, but something has changed it to a singular "
                    "matrix; load a checkpoint, call reset_parameters(), or assign() an orthogonal matrix"
                )
            self.project()
        self._checked_base = id(base), base._version

    def _follow(self) -> None:
        if self.rebase_every is not None:
            follow(self)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._repair_base(self.base)
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *rest: Any, **kwargs: Any
    ) -> None:
        base = state_dict.get(f"{prefix}base")
        if isinstance(base, Tensor) and base.shape == self.base.shape and not base.is_meta:
            half = base.dtype in (torch.float16, torch.bfloat16)
            distance = _from_orthogonal(base)
            if not distance < (_ROUNDED_IN_HALF if half else _GIVEN):
                *_, errors = rest
                errors.append(
                    f"expected {prefix}base to be an orthogonal matrix, got one that is off by "
                    f"{distance:.2g} in UᵀU; for the nearest one give its polar factor, U Vᵀ of its SVD."
                )
                state_dict[f"{prefix}base"] = self.base
        super()._load_from_state_dict(state_dict, prefix, *rest, **kwargs)
        self._follow()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # What copies and pickles come through; torch leaves it without types.
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._counted = self._checked_base = None
        self._follow()


def _whole(skew: Tensor) -> Tensor:
    """Return A's entries; between two calls FSDP leaves only a part of them on each process."""
    if type(skew) in (Tensor, nn.Parameter) or not hasattr(skew, "full_tensor"):
        return skew
    whole: Tensor = skew.full_tensor()
    return whole


def _from_orthogonal(matrix: Tensor) -> float:
    """Return the largest entry of |UᵀU - I|."""
    with without_autocast(matrix.device):
        given = matrix.detach().to(torch.promote_types(matrix.dtype, torch.float32))
        one = torch.eye(matrix.shape[-1], dtype=given.dtype, device=given.device)
        return float((given.mT @ given - one).abs().max()) if matrix.numel() else 0.0


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
