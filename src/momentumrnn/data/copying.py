"""The copying problem: ten symbols, a long wait, then the same ten symbols."""

import numpy as np
import torch
from torch import Tensor

SYMBOLS, COPIED = 8, 10
BLANK, MARKER = SYMBOLS, SYMBOLS + 1
# What is read: the symbols, the blank and the marker. What is said: all of them but the marker.
FEATURES, CLASSES = SYMBOLS + 2, SYMBOLS + 1


def draw_copying(count: int, length: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Draw sequences of the copying problem.

    Args:
        count: N.
        length: T, the wait, 1 or more.
        seed: Which; the same numbers always give the same sequences.

    Returns:
        What is read, (T + 20, N), int64 in [0, 10): ten symbols below 8, T − 1 blanks (8), a marker (9), ten
        blanks. What is to be said, (N, T + 20), int64 in [0, 9): blanks, then the ten symbols.

    >>> inputs, targets = draw_copying(count=3, length=5, seed=(0,))
    >>> inputs.shape, targets.shape
    (torch.Size([25, 3]), torch.Size([3, 25]))
    >>> bool((inputs[:10].t() == targets[:, -10:]).all())
    True
    """
    random = np.random.RandomState(list(seed))
    symbols = torch.from_numpy(random.randint(SYMBOLS, size=(COPIED, count), dtype=np.int64))
    inputs = torch.full((length + 2 * COPIED, count), BLANK)
    targets = inputs.t().clone()
    inputs[:COPIED] = symbols
    inputs[COPIED + length - 1] = MARKER
    targets[:, -COPIED:] = symbols.t()
    return inputs, targets
