"""How a recurrence is cut into Triton programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import torch

from momentumrnn.kernels.cuda.availability import interpreted

__all__ = ["Device", "Tiling", "device_of", "forced", "lots", "stays_close", "tiling", "ways"]

# Fitted to an H200: every way for an LSTM, a GRU and an RNN of 128, 256 and 512 units, of 16, 128 and 512
# sequences, in float32; what is chosen by them took at most 2 % longer than the fastest. A processor's bytes
# a clock from the second level of cache and from shared memory, its products, and its numbers of the parts of
# a sum; the clocks in which programs meet and see what the others have written, those that each one more
# takes, those of one alone, and those of a launch from Python, which is the least well known.
_FROM_CACHE, _FROM_SHARED_MEMORY, _PRODUCTS, _PARTS = 48, 140, 130, 64
_MEETING, _EACH, _ALONE, _LAUNCH = 2500, 50, 500, 75_000
# With less than eight warps somewhat more of the work is waited for.
_FEW_WARPS = 1.014
# Numbers of a product for each warp: with more, Triton's compiler spills registers into memory.
_SUMS = 256
# CUDA's limit in a grid's second dimension.
_MOST_GROUPS = 65_535

_forced: Tiling | None = None


@dataclass(frozen=True)
class Device:
    """What of a GPU decides how to cut.

    Attributes:
        processors: streaming multiprocessors. As many programs can wait for one another.
        shared_memory: bytes that one program can have of it.
        capability: the compute capability, (0, 0) where it is none of NVIDIA's.
    """

    processors: int
    shared_memory: int
    capability: tuple[int, int] = (9, 0)


@dataclass(frozen=True)
class Tiling:
    """A way to run a recurrence.

    Attributes:
        resident: whether one launch runs all steps, each program with its rows of U in shared memory, and
            those of the same sequences wait for one another at every step; or there is a launch a step, which
            reads U again.
        rows: sequences a program has.
        units: hidden units a program has.
        parts: if resident, how many parts a sum over units is cut into, one for each warp.
        depth: how much of a sum over units is multiplied at a time, by each warp if resident.
        warps: of 32 threads, a program.
    """

    resident: bool
    rows: int = 16
    units: int = 32
    parts: int = 1
    depth: int = 32
    warps: int = 4

    @property
    def padded(self) -> int:
        """How many units a resident program takes h for."""
        return self.parts * self.depth

    def programs(self, hidden: int) -> int:
        """Return how many programs share the units of the same sequences."""
        return -(-hidden // self.units)

    def launches(self, hidden: int, batch: int, device: Device) -> list[range]:
        """Return the groups of sequences of each launch: all at once, unless more would wait than can run."""
        groups = -(-batch // self.rows)
        at_once = max(1, device.processors // self.programs(hidden)) if self.resident else _MOST_GROUPS
        return [range(first, min(first + at_once, groups)) for first in range(0, groups, at_once)]

    def shared_memory(self, gates: int, itemsize: int, split: bool = False) -> int:
        """Return the most bytes of shared memory that a resident program needs.

        Args:
            gates: G.
            itemsize: the bytes of a number.
            split: whether a product's factors are kept in two parts, as for three products in TF32.
        """
        columns = self.units * _slots(gates)
        factor = 2 * itemsize if split else itemsize
        weights = self.padded * columns * factor
        hidden_states = self.rows * self.padded * factor
        sums = self.parts * self.rows * columns * max(4, itemsize)
        # h is multiplied before the warps' sums are added up. The rest is for the compiler's own.
        return weights + max(hidden_states, sums) + 2048


def device_of(index: int | None) -> Device:
    """Return what is known of a CUDA device, the present one for ``None``; of an H100 where there is none."""
    if interpreted() or not torch.cuda.is_available():
        return Device(132, 227 << 10)
    index = torch.cuda.current_device() if index is None else index
    properties: Any = torch.cuda.get_device_properties(index)
    if torch.version.hip:
        return Device(properties.multi_processor_count, properties.shared_memory_per_block, (0, 0))
    return Device(
        properties.multi_processor_count,
        properties.shared_memory_per_block_optin,
        torch.cuda.get_device_capability(index),
    )


@cache
def stays_close(hidden: int, gates: int, itemsize: int, device: Device, split: bool = False) -> bool:
    """Whether U fits into the shared memory of a quarter of the GPU, beside what else is wanted there.

    A whole one then runs four programs for each part of U, of 64 or 128 sequences, at once.
    """
    return any(
        4 * way.programs(hidden) <= device.processors
        for way in _resident(hidden, gates, itemsize, device, split)
    )


@cache
def lots(hidden: int, gates: int, itemsize: int, batch: int, device: Device, split: bool = False) -> int:
    """Return how many lots of the sequences run one after the other, each through all steps."""
    return len(ways(hidden, gates, itemsize, batch, device, split)[0].launches(hidden, batch, device))


def tiling(hidden: int, gates: int, itemsize: int, batch: int, device: Device, split: bool = False) -> Tiling:
    """Choose how to run a recurrence of h units and G gates: only speed hangs on it."""
    return _forced or ways(hidden, gates, itemsize, batch, device, split)[0]


@cache
def ways(
    hidden: int, gates: int, itemsize: int, batch: int, device: Device, split: bool = False
) -> tuple[Tiling, ...]:
    """Return every way to run it, the one reckoned fastest first."""
    # 16 is the least that a tensor core multiplies. float64 has half the registers.
    a_launch_a_step = Tiling(False, 16, 16, 1, 16) if itemsize > 4 else Tiling(False)
    found = [*_resident(hidden, gates, itemsize, device, split), a_launch_a_step]
    return tuple(sorted(found, key=lambda way: _clocks(way, hidden, gates, itemsize, batch, device, split)))


def _resident(hidden: int, gates: int, itemsize: int, device: Device, split: bool) -> list[Tiling]:
    """Return the ways to keep U in shared memory that the GPU has the room for."""
    if device.capability < (8, 0):
        # Triton multiplies there by no tensor core, and makes float16 float32 in shared memory before.
        return []
    padded = max(16, 1 << (hidden - 1).bit_length())
    found = []
    for rows, units, warps in product((16, 32), (8, 16, 32, 64, 128), (4, 8)):
        parts = min(warps, padded // 16)
        way = Tiling(True, rows, units, parts, padded // parts, warps)
        if (
            rows * units * _slots(gates) <= _SUMS * warps
            and way.shared_memory(gates, itemsize, split) <= device.shared_memory
            and way.programs(hidden) <= device.processors
        ):
            found.append(way)
    return found


def _slots(gates: int) -> int:
    """Return how many columns of a product a unit takes, forwards."""
    return 1 if gates == 1 else 4


def _clocks(
    way: Tiling, hidden: int, gates: int, itemsize: int, batch: int, device: Device, split: bool
) -> float:
    """Reckon the clocks that a step of all sequences takes, forwards."""
    if not way.resident:
        return _LAUNCH
    columns = way.units * _slots(gates)
    moved = way.rows * way.padded * itemsize / _FROM_CACHE
    read = way.padded * columns * itemsize * (2 if split else 1) / _FROM_SHARED_MEMORY
    products = way.rows * way.padded * columns * itemsize / 4 * (3 if split else 1)
    work = moved + max(read, products / _PRODUCTS)
    added_up = way.rows * way.units * way.warps / _PARTS
    programs = way.programs(hidden)
    meeting = _MEETING + _EACH * programs if programs > 1 else _ALONE
    step = meeting + work * (1 if way.warps >= 8 else _FEW_WARPS) + added_up
    return len(way.launches(hidden, batch, device)) * step


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
