"""Timing in turns: A, B, C, A, B, C, so that whatever else the machine does falls on all of them alike."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

# A turn much shorter than this would measure the clock and the interpreter's hiccups.
SHORTEST_TURN = 0.02


def _nothing() -> None:
    pass


def time_in_turns(
    sides: Sequence[Callable[[], object]],
    repeats: int,
    *,
    wait: Callable[[], object] = _nothing,
    told: Callable[[], object] = _nothing,
    clock: Callable[[], Any] = time.perf_counter,
) -> list[list[float]]:
    """Time several calls side by side.

    Every side is called before, to warm up; what takes less than ``SHORTEST_TURN`` is called several times
    a turn.

    Args:
        sides: What is called.
        repeats: How many turns each takes.
        wait: Returns when the device has done what it was given.
        told: Called after every turn, the warm-up being one.
        clock: The time, of whom does the work; the difference of two is in seconds.

    Returns:
        For every side its seconds a call, turn by turn: the k-th entries of all are of the same round.
    """

    def turn(side: Callable[[], object], calls: int) -> float:
        wait()
        start = clock()
        for _ in range(calls):
            side()
        end = clock()
        wait()
        seconds: float = end - start
        return seconds / calls

    calls = []
    for side in sides:
        once = turn(side, 1)
        if once < 10 * SHORTEST_TURN:
            # The first call of all also allocates and looks up kernels.
            once = turn(side, 1)
        calls.append(max(1, math.ceil(SHORTEST_TURN / max(once, 1e-9))))
        told()
    seconds: list[list[float]] = [[] for _ in sides]
    gc.collect()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(repeats):
            for side, count, taken in zip(sides, calls, seconds, strict=True):
                taken.append(turn(side, count))
                told()
    finally:
        if collecting:
            gc.enable()
    return seconds


class _Moment:
    """A moment on the GPU: what was asked of it before is done, and nothing behind it."""

    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def __sub__(self, earlier: "_Moment") -> float:
        self.event.synchronize()
        milliseconds: float = earlier.event.elapsed_time(self.event)
        return milliseconds / 1000


def clock_of(device: str) -> Callable[[], Any]:
    """The time, of a device.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    return _Moment if device == "cuda" else time.perf_counter


def wait_for(device: str) -> Callable[[], object]:
    """What returns when a device has done what it was given.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    return torch.cuda.synchronize if device == "cuda" else _nothing
