"""The optimizers a recipe can name."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from momentumrnn import parameter_groups
from momentumrnn.training.sections import OptimizerSection

# What each keeps of a parameter whose gradient it has seen.
STATES: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.RMSprop: ("step", "square_avg"),
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.SGD: (),
}


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


@contextmanager
def scaled_lr(optimizers: Sequence[torch.optim.Optimizer], scale: float) -> Iterator[None]:
    """Multiply all learning rates, and put them back to the very numbers that they were.

    Args:
        optimizers: Whose.
        scale: By what.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    before = [group["lr"] for group in groups]
    for group, lr in zip(groups, before, strict=True):
        group["lr"] = lr * scale
    try:
        yield
    finally:
        for group, lr in zip(groups, before, strict=True):
            group["lr"] = lr


def restore_optimizer(optimizer: torch.optim.Optimizer, stored: dict[str, Any]) -> None:
    """Load a stored state after comparing it with the optimizer, which ``load_state_dict`` does in part.

    Args:
        optimizer: What resumes.
        stored: Its ``state_dict``.

    Raises:
        ValueError: The state belongs to another optimizer, or to parameters of other shapes.
        KeyError: Something is missing.
    """
    for group, other in zip(optimizer.param_groups, stored["param_groups"], strict=True):
        for key in ("lr", "weight_decay"):
            if group[key] != other[key]:
                raise ValueError(f"{key} is {other[key]} there, {group[key]} here")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, entries in stored["state"].items():
        for name in STATES[type(optimizer)]:
            expected = () if name == "step" else parameters[number].shape
            if entries[name].shape != expected:
                raise ValueError(
                    f"{name} of parameter {number} has the shape {tuple(entries[name].shape)} there, "
                    f"{tuple(expected)} here"
                )
    optimizer.load_state_dict(stored)


def _build(name: str, section: OptimizerSection, parameters: Any) -> torch.optim.Optimizer:
    lr, decay = section.lr, section.weight_decay or 0.0
    if name == "rmsprop":
        alpha = 0.99 if section.smoothing is None else section.smoothing
        return torch.optim.RMSprop(parameters, lr=lr, alpha=alpha, weight_decay=decay)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=lr, momentum=section.momentum or 0.0, weight_decay=decay)
