"""The forms a batch of sequences may come in, and the one the layers compute in."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from momentumrnn.kernels.packed import PackedRows, first_size

__all__ = ["Layout"]


class Layout(NamedTuple):
    """How an input was laid out, so that outputs and states can be given back in the same way.

    Inside a layer a batch is (T, B, n), or the rows (N, n) of a packed batch, longest sequence first.

    Attributes:
        batch: B.
        batch_first: whether a dense batch came as (B, T, n).
        unbatched: whether a single sequence came without a batch dimension.
        packed: the places of a packed batch's rows, or ``None``.
        origin: the ``PackedSequence`` itself, or ``None``.
    """

    batch: int
    batch_first: bool = False
    unbatched: bool = False
    packed: PackedRows | None = None
    origin: PackedSequence | None = None

    @classmethod
    def read(cls, x: Tensor | PackedSequence, batch_first: bool) -> tuple[Tensor, Layout]:
        """Return the batch in the layers' own form, and what it came in."""
        if isinstance(x, PackedSequence):
            packed = PackedRows(x.batch_sizes, x.data.device)
            return x.data, cls(first_size(x.batch_sizes), packed=packed, origin=x)
        if x.dim() == 2:
            return x.unsqueeze(1), cls(1, unbatched=True)
        if batch_first:
            return x.transpose(0, 1), cls(x.shape[0], batch_first=True)
        return x, cls(x.shape[1])

    def write(self, output: Tensor) -> Tensor | PackedSequence:
        """Return an output in the form the input had."""
        if self.origin is not None:
            return PackedSequence(output, *self.origin[1:])
        if self.unbatched:
            return output.squeeze(1)
        return output.transpose(0, 1) if self.batch_first else output

    def read_state(self, state: Tensor) -> Tensor:
        """Return (layers, B, …) in the layers' order of sequences from a state as the user keeps it."""
        if self.unbatched:
            return state.unsqueeze(1)
        if self.origin is not None and self.origin.sorted_indices is not None:
            return state.index_select(1, self.origin.sorted_indices)
        return state

    def write_state(self, state: Tensor) -> Tensor:
        """Return (layers, B, …) in the user's order of sequences."""
        if self.unbatched:
            return state.squeeze(1)
        if self.origin is not None and self.origin.unsorted_indices is not None:
            return state.index_select(1, self.origin.unsorted_indices)
        return state

    def reverse(self, x: Tensor) -> Tensor:
        """Return every sequence running backwards."""
        return x.flip(0) if self.packed is None else self.packed.reverse(x)
