"""The optimizers a recipe can name."""

from typing import Any

import torch
from torch import nn

from momentumrnn import parameter_groups
from momentumrnn.training.sections import OptimizerSection


def build_optimizers(section: OptimizerSection, model: nn.Module) -> list[torch.optim.Optimizer]:
    """Build the optimizer of a recipe, or two: orthogonal matrices may have one of their own.

    Args:
        section: The recipe's section.
        model: What it fits.
    """
    groups = parameter_groups(model, section.lr, section.lr_orthogonal or section.lr)
    apart = section.orthogonal
    if len(groups) == 1:
        # Without groups, as such an optimizer's state has always been.
        return [_build(section.name, section, list(model.parameters()))]
    if apart is None or apart == section.name:
        return [_build(section.name, section, groups)]
    return [_build(section.name, section, groups[:1]), _build(apart, section, groups[1:])]


def _build(name: str, section: OptimizerSection, parameters: Any) -> torch.optim.Optimizer:
    if name == "rmsprop":
        alpha = 0.99 if section.smoothing is None else section.smoothing
        return torch.optim.RMSprop(parameters, lr=section.lr, alpha=alpha)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=section.lr)
    return torch.optim.SGD(parameters, lr=section.lr, momentum=section.momentum or 0.0)
