"""Labelled sequences in memory, and the three splits of a dataset."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from momentumrnn.errors import DataError


@dataclass(frozen=True)
class LabelledSequences:
    """N sequences of T values each, with one label per sequence.

    Images stay bytes in memory, a quarter of their size as floats, and become floats a batch at a time.

    Attributes:
        values: (N, T), uint8 or floating point.
        labels: (N,), int64, in [0, classes).
        classes: The number of classes.
        scale: What values are divided by, 255 for byte images.
        name: What the values are, for error messages.
    """

    values: Tensor
    labels: Tensor
    classes: int
    scale: float = 1.0
    name: str = "data"

    def __post_init__(self) -> None:
        """Check everything that would otherwise surface as a strange loss much later."""
        if self.values.dim() != 2 or self.values.shape[1] == 0:
            raise DataError(
                f"{self.name}: expected values of shape (N, T) with T > 0, got {tuple(self.values.shape)}"
            )
        if self.labels.shape != self.values.shape[:1]:
            raise DataError(
                f"{self.name}: expected one label per sequence, got {len(self.labels)} labels for "
                f"{len(self.values)} sequences"
            )
        if self.values.is_floating_point():
            finite = torch.isfinite(self.values)
            if not bool(finite.all()):
                row = int((~finite).any(dim=1).nonzero()[0])
                raise DataError(
                    f"{self.name}: expected finite values, got {int((~finite).sum())} that are NaN or "
                    f"infinite, the first in sequence {row}; remove or repair these sequences"
                )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.classes:
            raise DataError(
                f"{self.name}: expected labels from 0 to {self.classes - 1}, got {int(self.labels.min())} "
                f"to {int(self.labels.max())}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def length(self) -> int:
        """T, the number of time steps."""
        return self.values.shape[1]

    def batch(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The chosen sequences as a network reads them.

        Args:
            rows: Which sequences.

        Returns:
            Inputs (T, B, 1), float32, divided by ``scale``; labels (B,).
        """
        chosen = self.values[rows].to(torch.float32) / self.scale
        return chosen.t().contiguous().unsqueeze(-1), self.labels[rows]

    def select(self, rows: Tensor | slice) -> "LabelledSequences":
        """The same kind of data, restricted to the chosen sequences."""
        return replace(self, values=self.values[rows], labels=self.labels[rows])

    def permute_time(self, order: Tensor) -> "LabelledSequences":
        """The same sequences with their time steps in another order."""
        return replace(self, values=self.values[:, order].contiguous())

    def to(self, device: torch.device | str) -> "LabelledSequences":
        """The same data on a device."""
        return replace(self, values=self.values.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Splits:
    """A dataset divided into what is learned from, what is chosen by, and what is reported.

    Attributes:
        train: What the weights are fitted to.
        validation: What choices are made by; ``None`` where nothing is held out.
        test: What is reported.
    """

    train: LabelledSequences
    validation: LabelledSequences | None
    test: LabelledSequences

    def permute_time(self, seed: int) -> "Splits":
        """One random order of the time steps, the same for every sequence of every split.

        Args:
            seed: Which order; the same seed always gives the same one.
        """
        order = torch.from_numpy(np.random.RandomState(seed).permutation(self.train.length))
        return self._map(lambda part: part.permute_time(order))

    def first(self, count: int | None) -> "Splits":
        """The first so many sequences of each split; all of them where absent."""
        return self if count is None else self._map(lambda part: part.select(slice(count)))

    def to(self, device: torch.device | str) -> "Splits":
        """The same splits on a device."""
        return self._map(lambda part: part.to(device))

    def _map(self, change: Callable[[LabelledSequences], LabelledSequences]) -> "Splits":
        held_out = None if self.validation is None else change(self.validation)
        return Splits(change(self.train), held_out, change(self.test))
