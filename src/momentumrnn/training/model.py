"""From a recipe to a model."""

import torch

from momentumrnn.data import find_dataset
from momentumrnn.tasks import SequenceClassifier, build_layer
from momentumrnn.tasks.initialisation import initialise_as_paper
from momentumrnn.training.recipe import Recipe


def build_model(recipe: Recipe, device: str | None = None) -> SequenceClassifier:
    """The untrained model of a recipe, without its seed.

    Args:
        recipe: What it is built from.
        device: Where; ``"meta"`` makes no weights.
    """
    dataset, section = find_dataset(recipe.data.name), recipe.model
    with torch.device(device or "cpu"):
        layer = build_layer(
            section.name,
            dataset.features,
            section.hidden_size,
            section.num_layers,
            section.dropout,
            recipe.rule_values(),
        )
        model = SequenceClassifier(layer, section.hidden_size, dataset.classes)
    if section.init == "paper":
        initialise_as_paper(layer)
    return model
