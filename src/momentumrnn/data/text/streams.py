"""A long text in columns that are read side by side, a piece of them at a time."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
import torch
from torch import Tensor

from momentumrnn.errors import DataError

# A target that counts nowhere, as in torch.nn.functional.cross_entropy.
IGNORED = -100
SHORTEST, SPREAD = 5, 5.0
SHARE_OF_WHOLE = 0.95


@dataclass(frozen=True)
class Columns:
    """A text in B columns, each going on where the one before ends.

    Attributes:
        inputs: (L, B), int64: what is read; the first word of all is preceded by the one given.
        targets: (L, B): the words that follow, ``IGNORED`` below the end of the text.
        lengths: How many targets of each column count.
    """

    inputs: Tensor
    targets: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, text: Tensor, columns: int, before: int, *, whole: bool) -> Self:
        """Lay out a text.

        Args:
            text: (N,), int64.
            columns: B, at most.
            before: The word that is read before the first one.
            whole: Whether the columns may be of unequal length; else up to B − 1 words at the end of the
                text are left out.

        Raises:
            DataError: There is not a word for each column.

        >>> columns = Columns.of(torch.arange(1, 8), 3, before=0, whole=True)
        >>> columns.targets
        tensor([[   1,    4,    7],
                [   2,    5, -100],
                [   3,    6, -100]])
        """
        if len(text) < columns and not whole:
            raise DataError(
                f"expected a word or more for each of training.batch_size = {columns} columns, got a text of "
                f"{len(text)} words; choose a smaller training.batch_size"
            )
        columns = min(columns, len(text))
        rows = -(-len(text) // columns) if whole else len(text) // columns
        read = torch.cat([text.new_tensor([before]), text[:-1]])
        targets = _laid_out(text, rows, columns, IGNORED)
        lengths = (targets != IGNORED).sum(dim=0).tolist()
        return cls(_laid_out(read, rows, columns, before), targets, tuple(lengths))

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device | str) -> Self:
        """The same columns on a device.

        Args:
            device: Which.
        """
        return type(self)(self.inputs.to(device), self.targets.to(device), self.lengths)


def _laid_out(words: Tensor, rows: int, columns: int, padding: int) -> Tensor:
    filled = words.new_full((rows * columns,), padding)
    count = min(len(words), rows * columns)
    filled[:count] = words[:count]
    return filled.view(columns, rows).t().contiguous()


def draw_lengths(rows: int, mean: int, seed: tuple[int, ...]) -> list[int]:
    """Cut a column into pieces of different lengths, so that epochs are not cut at the same places.

    A piece is as long as a draw from a normal distribution, of standard deviation 5 around the given length,
    or in one of 20 cases around half of it; 5 rows at least, but for the last piece.

    Args:
        rows: The length of the column.
        mean: About how long a piece is.
        seed: Which pieces; the same numbers always give the same ones.

    Returns:
        Lengths that add up to ``rows``.

    >>> draw_lengths(300, 70, (0, 1))
    [69, 70, 73, 60, 28]
    """
    random = np.random.RandomState(list(seed))
    lengths, left = [], rows
    while left:
        centre = mean if random.random_sample() < SHARE_OF_WHOLE else mean / 2
        drawn = max(SHORTEST, round(random.normal(centre, SPREAD)))
        lengths.append(min(drawn, left))
        left -= lengths[-1]
    return lengths


def expected_length(mean: int) -> float:
    """How long a drawn piece is on average.

    Args:
        mean: As ``draw_lengths`` takes it.

    >>> round(expected_length(70), 3), round(expected_length(10), 3)
    (68.25, 10.245)
    """
    return SHARE_OF_WHOLE * _at_least_shortest(mean) + (1 - SHARE_OF_WHOLE) * _at_least_shortest(mean / 2)


def _at_least_shortest(centre: float) -> float:
    # The mean of the larger of SHORTEST and a normal variable.
    normal, z = NormalDist(), (centre - SHORTEST) / SPREAD
    return SHORTEST + SPREAD * (z * normal.cdf(z) + normal.pdf(z))
