"""How a recurrence is cut into Triton programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Tiling", "forced", "stays_close", "tiling"]

# Bytes of U that one program reads at every step, from the second level of cache. NOT MEASURED: reckoned from
# 64 bytes a clock, at which so many take as long as a kernel launch.
_CLOSE_WEIGHTS = 256 << 10

_forced: Tiling | None = None


@dataclass(frozen=True)
class Tiling:
    """A way to run a recurrence.

    Attributes:
        persistent: whether one launch runs all steps, each program with some sequences and all units; or
            there is a launch a step, each program with some sequences and some units.
        rows: sequences a program has.
        units: hidden units that it works out at a time.
        depth: how much of a sum over units it multiplies at a time.
        warps: of 32 threads, a program.
    """

    persistent: bool
    rows: int = 16
    units: int = 32
    depth: int = 32
    warps: int = 4


def stays_close(hidden: int, gates: int, itemsize: int) -> bool:
    """Whether U is small enough for every program to read all of it at every step."""
    return gates * hidden * hidden * itemsize <= _CLOSE_WEIGHTS


def tiling(hidden: int, gates: int, itemsize: int) -> Tiling:
    """Choose how to run a recurrence of h units and G gates. NOT MEASURED: only speed hangs on it."""
    if _forced is not None:
        return _forced
    # 16 is the least that a tensor core multiplies. float64 has half the registers.
    units = 16 if hidden <= 16 or itemsize > 4 else 32
    return Tiling(stays_close(hidden, gates, itemsize), 16, units, 16 if itemsize > 4 else 32)


@contextmanager
def forced(wanted: Tiling) -> Iterator[None]:
    """Run every Triton recurrence of the process in one way inside the ``with`` block.

    For tests and measurements: the choice is one for all threads of the program.
    """
    global _forced
    before, _forced = _forced, wanted
    try:
        yield
    finally:
        _forced = before
