"""Where each row of a packed batch belongs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels.tracing import traced

__all__ = ["PackedRows", "first_size"]


class PackedRows:
    """The places of a packed batch's N rows in its T steps and B sequences, longest sequence first.

    A ``PackedSequence`` keeps step after step, and within each the sequences that still run. A scan
    over time wants a (T, B, n) tensor instead, and the backward direction every sequence mirrored
    in itself; these are the index maps between the three.

    Attributes:
        batch_sizes: int64 (T,) on the CPU, the sequences still running at each step.
        lengths: int64 (B,), the length of each sequence.
        sequence: int64 (N,), the sequence that a row belongs to.
    """

    def __init__(self, batch_sizes: Tensor, device: torch.device) -> None:
        steps = batch_sizes.shape[0]
        batch = first_size(batch_sizes)
        starts = batch_sizes.cumsum(0) - batch_sizes
        # Where the sizes are, whatever torch's default device is.
        here = batch_sizes.device
        step = torch.repeat_interleave(torch.arange(steps, device=here), batch_sizes)
        sequence = torch.arange(step.shape[0], device=here) - starts[step]
        lengths = (batch_sizes.unsqueeze(1) > torch.arange(batch, device=here)).sum(0)
        self.batch_sizes = batch_sizes.contiguous()
        self.lengths = lengths.to(device)
        self.sequence = sequence.to(device)
        self._shape = (steps, batch)
        self._place = (step * batch + sequence).to(device)
        self._mirrored = (starts[lengths[sequence] - 1 - step] + sequence).to(device)

    def pad(self, rows: Tensor) -> Tensor:
        """Return (T, B, n) from (N, n), zero behind each sequence's end."""
        steps, batch = self._shape
        padded = rows.new_zeros(steps * batch, rows.shape[1])
        return padded.index_copy(0, self._place, rows).reshape(steps, batch, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """Return (N, n) from (T, B, n), leaving out what lies behind each sequence's end."""
        return padded.flatten(0, 1).index_select(0, self._place)

    def reverse(self, rows: Tensor) -> Tensor:
        """Return the rows (N, n) with every sequence running backwards; its own inverse."""
        return rows.index_select(0, self._mirrored)


def first_size(batch_sizes: Tensor) -> int:
    """Return the number of sequences, which in a trace by torch.jit stays the tensor's and is no constant."""
    first: Any = batch_sizes[0]
    return first if traced() else int(first)
