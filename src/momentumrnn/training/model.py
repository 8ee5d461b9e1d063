"""From a recipe to a model."""

import torch
from torch import nn

from momentumrnn.training.recipe import Recipe


def build_model(recipe: Recipe, device: str | None = None) -> nn.Module:
    """The untrained model of a recipe, without its seed.

    Args:
        recipe: What it is built from.
        device: Where; ``"meta"`` makes no weights.
    """
    task = recipe.task()
    with torch.device(device or "cpu"):
        layer = task.build_layer(recipe.layer_choice())
        model = task.build_model(layer, recipe.model.hidden_size)
    recipe.initialise(layer)
    return model
