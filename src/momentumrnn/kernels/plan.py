"""How a recurrence is shared out among threads, and where W x is computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch

__all__ = ["Plan", "forced", "plan"]

Split = Literal["rows", "units"]

# Measured on AVX-512 and two cores; only speed hangs on them.
_ROWS_A_THREAD = 12  # a register tile's height: with fewer rows the arithmetic units idle,
_FEW_ROWS_A_THREAD = 4  # which costs less than meeting at every step while U is
_OWN_WEIGHTS = 1 << 20  # so many bytes at most, which each thread's second level of cache holds
_LARGEST_SHARED_WEIGHTS = 8 << 20  # bytes of U that each thread may stream through its own cache
_WORK_OF_A_MEETING = 1 << 16  # multiplications a step that pay for the threads' meeting
_WORK_OF_A_TEAM = 1 << 20  # multiplications in all that pay for waking the threads
_FEW_FEATURES = 16
_CACHED_WEIGHTS = 3 << 19  # bytes of U and W that stay in the second level of cache

_forced: Plan | None = None


class Plan(NamedTuple):
    """A way to run a recurrence.

    Attributes:
        split: ``"rows"``: each thread takes some of the batch through all steps by itself; ``"units"``:
            each takes some of the hidden units, and all meet at every step.
        threads: how many, at most.
        fused: whether W x is multiplied inside the recurrence, step by step, or before it, for all
            steps at once.
    """

    split: Split
    threads: int
    fused: bool


def plan(steps: int, batch: int, features: int, hidden: int, gates: int, itemsize: int) -> Plan:
    """Choose how to run a recurrence of T steps, B sequences, D features, h units and G gates."""
    if _forced is not None:
        return _forced._replace(threads=_forced.threads or torch.get_num_threads())
    threads = torch.get_num_threads()
    weights = gates * hidden * hidden * itemsize
    fused = features <= _FEW_FEATURES or weights + gates * hidden * features * itemsize <= _CACHED_WEIGHTS
    step = batch * gates * hidden * (hidden + features)
    if threads == 1 or step * steps < _WORK_OF_A_TEAM:
        return Plan("rows", 1, fused)
    fewest = _FEW_ROWS_A_THREAD if weights <= _OWN_WEIGHTS else _ROWS_A_THREAD
    if batch >= fewest * threads and weights <= _LARGEST_SHARED_WEIGHTS:
        return Plan("rows", threads, fused)
    if step >= _WORK_OF_A_MEETING:
        return Plan("units", threads, fused)
    return Plan("rows", min(threads, batch), fused)


@contextmanager
def forced(split: Split, fused: bool = True, threads: int = 0) -> Iterator[None]:
    """Run every recurrence of the process in one way inside the ``with`` block; ``threads`` 0 for torch's.

    For tests and measurements: the choice is one for all threads of the program.
    """
    global _forced
    before, _forced = _forced, Plan(split, threads, fused)
    try:
        yield
    finally:
        _forced = before
