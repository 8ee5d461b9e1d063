"""The memory that the C++ kernels keep for their next call."""

from __future__ import annotations

from typing import NamedTuple

from momentumrnn.kernels.operators import compiled

__all__ = ["Memory", "empty_cache", "memory", "set_cache_cap"]


class Memory(NamedTuple):
    """Bytes: ``in_use`` by tensors and running kernels, ``idle``, and the ``cap`` on what may lie idle."""

    in_use: int
    idle: int
    cap: int


def memory() -> Memory:
    """Return what the pool of large buffers holds now.

    A training step wants the same few large buffers each time. They are kept, up to the cap (2 GiB to
    begin with), because fresh ones cost a page fault for every 4 KB; but what is idle never makes the
    pool larger than the tensors and kernels themselves once were.

    Raises:
        BackendError: the C++ kernels were not built.
    """
    return Memory(*compiled().pool())


def empty_cache() -> None:
    """Give all idle memory back to the system.

    Raises:
        BackendError: the C++ kernels were not built.
    """
    compiled().empty_pool()


def set_cache_cap(size: int) -> None:
    """Let at most ``size`` bytes lie idle from now on; 0 keeps nothing.

    Raises:
        BackendError: the C++ kernels were not built.
        ValueError: a negative size.
    """
    if size < 0:
        raise ValueError(f"set_cache_cap: expected a number of bytes, 0 or more, got {size}")
    compiled().set_pool_cap(size)
