"""From the skew-symmetric matrices, a vector space, to the orthogonal group."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from momentumrnn.kernels import transforms
from momentumrnn.kernels.derivatives import in_graph

__all__ = ["MAPS", "Map", "cayley", "exponential", "skew_matrix", "tightened"]

Map = Literal["exp", "cayley"]

# Enough for a norm of a thousand in either dtype.
_MOST_SQUARINGS = 12


def skew_matrix(entries: Tensor, places: Tensor, size: int) -> Tensor:
    """Return A - Aᵀ for the strictly upper triangular A with these entries.

    Args:
        entries: (n (n - 1) / 2,), row by row.
        places: where they belong in the flattened matrix, int64, of the same shape.
        size: n.

    Returns:
        (n, n), of the entries' dtype.

    Example:
        >>> import torch
        >>> skew_matrix(torch.tensor([2.0]), torch.tensor([1]), 2)
        tensor([[ 0.,  2.],
                [-2.,  0.]])
    """
    upper = entries.new_zeros(size * size).scatter(0, places, entries).view(size, size)
    return upper - upper.t()


def exponential(skew: Tensor) -> Tensor:
    """Return the matrix exponential of a skew-symmetric matrix: a rotation; all rotations are reached.

    Args:
        skew: (n, n).

    Example:
        >>> import torch
        >>> quarter = torch.tensor([[0.0, torch.pi / 2], [-torch.pi / 2, 0.0]])
        >>> torch.testing.assert_close(exponential(quarter), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    """
    return _by_squaring(skew)


def _by_squaring(matrix: Tensor) -> Tensor:
    """Return the exponential: Taylor's polynomial of degree 12 of a fraction, squared again and again.

    ``torch.linalg.matrix_exp`` is off by up to 5e-5 in float32 where the norm is near 1, as it is at the
    start of training; and its derivative is a block of an exponential of twice the size, which at n = 512
    took more than ten times as long as the exponential, where this one's takes about twice.
    """
    # Up to these norms what the polynomial leaves out is below the last bit.
    enough = 1.5 if matrix.dtype == torch.float32 else 0.33
    size = torch.linalg.matrix_norm(matrix.detach(), 1)
    if matrix.is_meta or in_graph(matrix) or transforms():
        # No number to decide by: a fixed loop, in which those squarings that are too many change nothing.
        count = torch.ceil(torch.log2(size / enough)).clamp(0, _MOST_SQUARINGS)
        # 2 to the power -count, exactly, by a product that other runtimes know.
        halves = torch.where(torch.arange(_MOST_SQUARINGS, device=matrix.device) < count, 0.5, 1.0)
        result = _polynomial(matrix * halves.prod().to(matrix.dtype))
        for k in range(_MOST_SQUARINGS):
            result = torch.where(k < count, result @ result, result)
        return result
    number = float(size)
    squarings = math.ceil(math.log2(number / enough)) if enough < number < math.inf else 0
    # Not a whole number: torch takes none beyond 64 bits, and the norm of a diverging run has twice as many.
    result = _polynomial(matrix * 2.0**-squarings)
    for _ in range(squarings):
        result = result @ result
    return result


def _polynomial(x: Tensor) -> Tensor:
    x2 = x @ x
    powers = (torch.eye(x.shape[-1], dtype=x.dtype, device=x.device), x, x2, x2 @ x)
    x4 = x2 @ x2

    def part(first: int) -> Tensor:
        terms = [power / math.factorial(first + k) for k, power in enumerate(powers)]
        total: Tensor = terms[0] + terms[1] + terms[2] + terms[3]
        return total

    result: Tensor = part(0) + x4 @ (part(4) + x4 @ (part(8) + x4 / math.factorial(12)))
    return result


def tightened(rotation: Tensor) -> Tensor:
    """Return a nearly orthogonal matrix made orthogonal to the last digits.

    One Newton step towards its polar factor. Squaring doubles the rounding errors of an exponential again
    and again; this squares what is left of them. Exactly orthogonal matrices stay as they are.

    Args:
        rotation: (n, n).

    Example:
        >>> import torch
        >>> tightened(1.001 * torch.eye(2))
        tensor([[1.0000, 0.0000],
                [0.0000, 1.0000]])
    """
    one = torch.eye(rotation.shape[-1], dtype=rotation.dtype, device=rotation.device)
    return rotation + 0.5 * rotation @ (one - rotation.mT @ rotation)


def cayley(skew: Tensor) -> Tensor:
    """Return scoRNN's map (I + S)⁻¹ (I - S): a rotation without -1 among its eigenvalues.

    Args:
        skew: S, (n, n), skew-symmetric.

    Example:
        >>> import torch
        >>> rotation = cayley(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> torch.testing.assert_close(rotation, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    """
    one = torch.eye(skew.shape[-1], dtype=skew.dtype, device=skew.device)
    rotation: Tensor = torch.linalg.solve(one + skew, one - skew)
    return rotation


MAPS = {"exp": exponential, "cayley": cayley}
