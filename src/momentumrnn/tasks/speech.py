"""Predicting the next frame of speech from those before it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from momentumrnn.data.registry import SpeechDataset
from momentumrnn.data.speech import PaddedBatch, SpeechSplits
from momentumrnn.tasks.contract import MSE, AnyPart, Batch, Batches, Part, Sampling, Score, Task
from momentumrnn.tasks.fingerprint import FINGERPRINT_FILE, fingerprint
from momentumrnn.tasks.readouts import EveryStepReadout


def masked_mse(predicted: Tensor, targets: Tensor, mask: Tensor, steps: int) -> Tensor:
    """The mean squared error over the frames that are no padding.

    Every frame counts the same, in a long utterance or a short one.

    Args:
        predicted: (T, B, d).
        targets: (T, B, d).
        mask: (T, B, 1), 1 where a frame counts and 0 where it does not.
        steps: How many count.
    """
    return ((predicted - targets) * mask).square().sum() / (steps * targets.shape[-1])


class SpeechPrediction(Task):
    """Mean squared error, in dB², over frames: the loss and the metric.

    Args:
        dataset: What is predicted.
        folder: The folder of recordings, where the dataset has none of its own.
    """

    metric = MSE
    sequence_dim = 1

    def __init__(self, dataset: SpeechDataset, folder: str | None = None) -> None:
        self.dataset, self.folder = dataset, folder
        self.features = dataset.features

    def build_model(self, layer: nn.Module, hidden_size: int) -> EveryStepReadout:
        return EveryStepReadout(layer, hidden_size, self.features)

    def load(self, folder: Path, sampling: Sampling, device: torch.device | str) -> Batches:
        splits = self.dataset.load(folder, self.folder)
        return SpeechBatches(splits.first(sampling.subset).to(device), sampling)

    def documents(self, batches: Batches) -> Mapping[str, str]:
        assert isinstance(batches, SpeechBatches)
        splits = batches.splits
        parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
        # The files, not the frames, whose last bits other versions may change.
        lengths = {name: part.steps for name, part in parts.items()}
        contents = {f"{name}-contents": part.contents for name, part in parts.items()}
        return {FINGERPRINT_FILE: fingerprint(**lengths, **contents)}

    def score(self, outputs: Tensor, batch: Batch) -> Score:
        assert batch.mask is not None
        loss = masked_mse(outputs, batch.targets, batch.mask, batch.weight)
        return Score(loss, loss.detach().double() * batch.weight)

    def baseline(
        self, part: AnyPart = "training", sampling: Sampling | None = None, epoch: int | None = None
    ) -> None:
        return None


class SpeechBatches:
    """Utterances in memory, every one once an epoch, with others of about its length.

    Args:
        splits: The utterances.
        sampling: How batches are made.
    """

    def __init__(self, splits: SpeechSplits, sampling: Sampling) -> None:
        self.splits, self.sampling = splits, sampling

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; one batch may be smaller."""
        return -(-len(self.splits.train) // self.sampling.batch_size)

    def training(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The rest of an epoch.

        Args:
            epoch: From 1.
            first_step: How many of its steps are done.
        """
        data = self.splits.train
        plan = data.shuffled_batches(self.sampling.batch_size, (self.sampling.seed, epoch))
        return (_batch(data.batch(rows)) for rows in plan[first_step:])

    def evaluation(self, part: Part) -> Iterator[Batch] | None:
        """All of a part.

        Args:
            part: Which.
        """
        data = self.splits.validation if part == "validation" else self.splits.test
        return (_batch(data.batch(rows)) for rows in data.sorted_batches(self.sampling.eval_batch_size))


def _batch(padded: PaddedBatch) -> Batch:
    return Batch(padded.inputs, padded.targets, padded.steps, padded.mask, padded.lengths)
