"""Utterances as a network reads them: padded batches of similar length, the padding marked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# A minute. Longer utterances are cut, so that no batch is longer than this, whatever the recordings.
MAX_STEPS = 3_750
# Frames, padding included, of a batch in which nothing is learned: about 60 MB as input and target.
EVALUATION_FRAMES = 2**16
# Bytes of a sha256.
CHECKSUM = 32


@dataclass(frozen=True)
class PaddedBatch:
    """B utterances of up to T + 1 frames: predict each frame from those before it.

    Attributes:
        inputs: (T, B, d), zero after the end of an utterance.
        targets: (T, B, d), the frame after each input, zero likewise.
        mask: (T, B, 1), 1 where there is a target and 0 elsewhere; float32.
        lengths: How many targets each utterance has.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    lengths: tuple[int, ...]

    @property
    def steps(self) -> int:
        """How many targets there are."""
        return sum(self.lengths)


@dataclass(frozen=True)
class Utterances:
    """Utterances as places in one tensor of frames.

    Attributes:
        frames: (all frames, d), shared with the other splits.
        starts: (N,), the first frame of each.
        steps: (N,), how many predictions each asks for: its frames but one.
        contents: (N, 32), the checksum of the recording that each is of.
    """

    frames: Tensor
    starts: NDArray[np.int64]
    steps: NDArray[np.int64]
    contents: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.starts)

    @staticmethod
    def of(
        frames: Tensor, starts: Sequence[int], ends: Sequence[int], contents: Sequence[bytes] | None = None
    ) -> "Utterances":
        """Take utterances out of their frames; one of more than a minute becomes several.

        Where one is cut, the last target before the cut is the first input after it: every frame but the
        recording's first is predicted once, and what a network remembers does not cross the cut.

        Args:
            frames: (all frames, d).
            starts: The first frame of each.
            ends: The frame after the last of each.
            contents: The sha256 of the file of each; zeros where absent.
        """
        pieces = [
            (first, min(MAX_STEPS, end - 1 - first), number)
            for number, (start, end) in enumerate(zip(starts, ends, strict=True))
            for first in range(start, end - 1, MAX_STEPS)
        ]
        table = np.array(pieces, dtype=np.int64).reshape(-1, 3)
        sums = bytes(CHECKSUM * len(starts)) if contents is None else b"".join(contents)
        each = np.frombuffer(sums, np.uint8).reshape(-1, CHECKSUM)
        return Utterances(frames, table[:, 0].copy(), table[:, 1].copy(), each[table[:, 2]])

    def batch(self, rows: NDArray[np.int64]) -> PaddedBatch:
        """The chosen utterances, padded to the longest.

        Args:
            rows: Which.
        """
        steps = self.steps[rows]
        longest, device = int(steps.max()), self.frames.device
        inputs = self.frames.new_zeros(longest, len(rows), self.frames.shape[1])
        targets = torch.zeros_like(inputs)
        for column, (start, count) in enumerate(zip(self.starts[rows].tolist(), steps.tolist(), strict=True)):
            inputs[:count, column] = self.frames[start : start + count]
            targets[:count, column] = self.frames[start + 1 : start + count + 1]
        mask = torch.arange(longest).unsqueeze(1) < torch.from_numpy(steps)
        return PaddedBatch(
            inputs, targets, mask.unsqueeze(-1).to(device, self.frames.dtype), tuple(steps.tolist())
        )

    def shuffled_batches(self, size: int, seed: tuple[int, ...]) -> list[NDArray[np.int64]]:
        """Every utterance once, in batches of similar length and in random order.

        Lengths are disturbed by a tenth before they are sorted by, so that a batch's company changes.

        Args:
            size: Utterances a batch; one may have fewer.
            seed: Which order; the same numbers always give the same one.
        """
        random = np.random.RandomState(list(seed))
        order = np.argsort(self.steps * random.uniform(0.9, 1.1, len(self)), kind="stable")
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        return [batches[number] for number in random.permutation(len(batches))]

    def sorted_batches(self, size: int) -> list[NDArray[np.int64]]:
        """Every utterance once, by length, in batches of at most 65,536 frames, padding included.

        Args:
            size: Utterances a batch, at most.
        """
        batches: list[list[int]] = []
        for row in np.argsort(self.steps, kind="stable").tolist():
            # The last one is the longest.
            fits = batches and (len(batches[-1]) + 1) * self.steps[row] <= EVALUATION_FRAMES
            if fits and len(batches[-1]) < size:
                batches[-1].append(row)
            else:
                batches.append([row])
        return [np.array(batch, dtype=np.int64) for batch in batches]

    def first(self, count: int) -> "Utterances":
        """The first so many utterances."""
        return replace(
            self, starts=self.starts[:count], steps=self.steps[:count], contents=self.contents[:count]
        )

    def to(self, device: torch.device | str) -> "Utterances":
        """The same utterances on a device."""
        return replace(self, frames=self.frames.to(device))


@dataclass(frozen=True)
class SpeechSplits:
    """Utterances to learn from, to choose by, and to report."""

    train: Utterances
    validation: Utterances
    test: Utterances

    def first(self, count: int | None) -> "SpeechSplits":
        """The first so many utterances of each split; all of them where absent."""
        if count is None:
            return self
        return SpeechSplits(*(part.first(count) for part in (self.train, self.validation, self.test)))

    def to(self, device: torch.device | str) -> "SpeechSplits":
        """The same splits on a device."""
        frames = self.train.frames.to(device)
        return SpeechSplits(
            *(replace(part, frames=frames) for part in (self.train, self.validation, self.test))
        )
