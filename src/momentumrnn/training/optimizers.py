"""The optimizers a recipe can name."""

from collections.abc import Iterable

import torch
from torch import nn

from momentumrnn.training.recipe import OptimizerSection


def build_optimizer(section: OptimizerSection, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe.

    Args:
        section: The recipe's section.
        parameters: What it fits.
    """
    if section.name == "rmsprop":
        alpha = 0.99 if section.smoothing is None else section.smoothing
        return torch.optim.RMSprop(parameters, lr=section.lr, alpha=alpha)
    if section.name == "adam":
        return torch.optim.Adam(parameters, lr=section.lr)
    return torch.optim.SGD(parameters, lr=section.lr, momentum=section.momentum or 0.0)
