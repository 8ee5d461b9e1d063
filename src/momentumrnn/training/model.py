"""From a recipe to a model."""

import torch
from torch import nn

from momentumrnn.tasks.initialisation import initialise_as_paper
from momentumrnn.training.recipe import Recipe


def build_model(recipe: Recipe, device: str | None = None) -> nn.Module:
    """The untrained model of a recipe, without its seed.

    Args:
        recipe: What it is built from.
        device: Where; ``"meta"`` makes no weights.
    """
    task, section = recipe.task(), recipe.model
    with torch.device(device or "cpu"):
        layer = task.build_layer(recipe.layer_choice())
        model = task.build_model(layer, section.hidden_size)
    if section.init == "paper":
        initialise_as_paper(layer, 1.0 if section.forget_bias is None else section.forget_bias)
    return model
