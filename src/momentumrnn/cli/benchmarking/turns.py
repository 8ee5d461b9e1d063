"""Timing in turns: A, B, C, A, B, C, so that whatever else the machine does falls on all of them alike."""

import gc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

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
