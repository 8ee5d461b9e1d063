"""Where an orthogonal matrix starts: the entries of A, and the base."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

__all__ = ["STARTS", "Start", "start_"]

Start = Literal["cayley", "henaff", "haar", "identity"]
STARTS: tuple[Start, ...] = ("cayley", "henaff", "haar", "identity")


@torch.no_grad()
def start_(entries: Tensor, base: Tensor, start: Start) -> None:
    """Draw a start, in place.

    - ``"cayley"``: 2 × 2 blocks with the entry -√((1 - cos θ) / (1 + cos θ)), θ from U[0, π/2]; base I.
    - ``"henaff"``: 2 × 2 blocks with the entry θ from U[-π, π]; base I.
    - ``"haar"``: A = 0; the base a rotation, all equally likely.
    - ``"identity"``: A = 0 and the base I.

    Args:
        entries: A's entries above the diagonal, (n (n - 1) / 2,), row by row.
        base: (n, n).
        start: which.

    Example:
        >>> import torch
        >>> entries, base = torch.empty(3), torch.empty(3, 3)
        >>> start_(entries, base, "henaff")
        >>> bool(entries[0].abs() <= torch.pi), entries[1:].tolist()
        (True, [0.0, 0.0])
    """
    size = base.shape[0]
    nn.init.zeros_(entries)
    if start == "haar":
        # Q of a normal matrix is Haar's only with the signs of R's diagonal; one column decides between
        # rotations and reflections.
        # In float32 at least: there is no QR of fewer bits.
        drawn = torch.empty_like(base, dtype=torch.promote_types(base.dtype, torch.float32))
        nn.init.orthogonal_(drawn)
        drawn[:, 0] *= torch.linalg.det(drawn).sign()
        base.copy_(drawn)
        return
    nn.init.eye_(base)
    if start == "identity":
        return
    angles = torch.empty(size // 2, dtype=entries.dtype, device=entries.device)
    if start == "cayley":
        angles.uniform_(0.0, math.pi / 2)
        angles = -torch.sqrt((1.0 - torch.cos(angles)) / (1.0 + torch.cos(angles)))
    else:
        angles.uniform_(-math.pi, math.pi)
    # Where A's entries (0, 1), (2, 3), … stand among those of the rows before.
    rows = torch.arange(0, 2 * (size // 2), 2, device=entries.device)
    entries[rows * size - rows * (rows + 1) // 2] = angles
