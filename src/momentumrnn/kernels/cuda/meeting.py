"""How Triton programs that share some sequences wait for one another at every step."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["STRIDE", "arrive", "wait_for"]

# Numbers between two groups' counters, so that no two lie in one line of a cache.
STRIDE = tl.constexpr(32)


@triton.jit
def arrive(arrivals, group):
    """Tell the group's other programs that all that this one has written can be read."""
    # Its own threads first: the counter is raised by one of them, in the name of all.
    tl.debug_barrier()
    if tl.num_programs(0) > 1:
        tl.atomic_add(arrivals + group * STRIDE, 1, sem="release")


@triton.jit
def wait_for(arrivals, group, times):
    """Wait until every program of the group has arrived so many times.

    All of them have to run at once, which a cooperative launch sees to.
    """
    # One alone has nobody to wait for, and its own threads met when they arrived.
    if tl.num_programs(0) > 1:
        expected = times * tl.num_programs(0)
        while tl.atomic_add(arrivals + group * STRIDE, 0, sem="acquire") < expected:
            pass
        tl.debug_barrier()
