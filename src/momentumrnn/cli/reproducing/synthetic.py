"""Random batches of a task's shape, for where numbers matter and their values do not."""

import torch

from momentumrnn.cli.reproducing.errors import ReproduceError
from momentumrnn.data import data_folder, find_dataset
from momentumrnn.data.registry import ClassifiedDataset, DrawnDataset, SpeechDataset
from momentumrnn.tasks import Batch
from momentumrnn.training.recipe import Recipe

# The mean utterance of TIMIT has three seconds.
FRAMES_OF_SPEECH = 190


def synthetic_batch(recipe: Recipe, device: str) -> Batch:
    """A batch of the shape that a recipe learns from; no data are read for it.

    Args:
        recipe: Of what.
        device: Where.

    Raises:
        ReproduceError: There is none for this kind of data.
    """
    dataset, size = find_dataset(recipe.data.name), recipe.training.batch_size
    # Drawn on the CPU, so that every device sees the same numbers.
    random = torch.Generator().manual_seed(0)
    if isinstance(dataset, DrawnDataset):
        return next(recipe.task().load(data_folder(), recipe.sampling(), device).training(1, 0))
    if isinstance(dataset, ClassifiedDataset):
        inputs = torch.rand(dataset.length, size, dataset.features, generator=random)
        labels = torch.randint(dataset.classes, (size,), generator=random)
        return Batch(inputs.to(device), labels.to(device), size)
    if isinstance(dataset, SpeechDataset):
        frames = torch.randn(FRAMES_OF_SPEECH + 1, size, dataset.features, generator=random).to(device)
        mask = torch.ones(FRAMES_OF_SPEECH, size, 1, device=device)
        return Batch(frames[:-1], frames[1:], FRAMES_OF_SPEECH * size, mask)
    raise ReproduceError(f"there are no random batches of the shape of {dataset.name!r}")
