"""The adding problem: a row of numbers, two of them marked, and their sum."""

import numpy as np
import torch
from torch import Tensor

FEATURES = 2


def draw_adding(count: int, length: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Draw sequences of the adding problem.

    Args:
        count: N.
        length: T, 2 or more; of an odd number of steps the second half has one more.
        seed: Which; the same numbers always give the same sequences.

    Returns:
        What is read, (T, N, 2), float32: a number from [0, 1], and a mark that is 1 once in each half and 0
        elsewhere. What is to be said, (N, 1), float32: the sum of the two marked numbers.

    >>> inputs, targets = draw_adding(count=3, length=6, seed=(0,))
    >>> inputs.shape, targets.shape
    (torch.Size([6, 3, 2]), torch.Size([3, 1]))
    """
    random = np.random.RandomState(list(seed))
    values = torch.from_numpy(random.random_sample((length, count))).float()
    half, columns = length // 2, torch.arange(count)
    marks = torch.zeros(length, count)
    for low, high in ((0, half), (half, length)):
        marks[torch.from_numpy(random.randint(low, high, size=count, dtype=np.int64)), columns] = 1
    return torch.stack([values, marks], dim=-1), (values * marks).sum(0).unsqueeze(-1)
