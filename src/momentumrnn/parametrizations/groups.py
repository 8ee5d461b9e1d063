"""Two learning rates: one for orthogonal matrices, one for the rest."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from momentumrnn.parametrizations.orthogonal import Orthogonal

__all__ = ["parameter_groups"]


def parameter_groups(model: nn.Module, lr: float, lr_orthogonal: float) -> list[dict[str, Any]]:
    """Return a model's parameters in groups for an optimizer, orthogonal matrices with a rate of their own.

    Args:
        model: any model with layers such as ``momentumrnn.DTRIV``.
        lr: the learning rate of everything else.
        lr_orthogonal: that of the skew-symmetric matrices behind the orthogonal ones.

    Returns:
        Two groups, first everything else; the second is left out where the model has no orthogonal matrix.

    Raises:
        ValueError: A learning rate is negative, infinite or NaN; optimizers do not check those of groups.

    Example:
        >>> import torch
        >>> from momentumrnn import DTRIV, parameter_groups
        >>> groups = parameter_groups(DTRIV(1, 512), lr=3e-4, lr_orthogonal=7e-5)
        >>> optimizer = torch.optim.RMSprop(groups)
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.0003, 7e-05]
    """
    for name, rate in {"lr": lr, "lr_orthogonal": lr_orthogonal}.items():
        if not 0 <= rate < math.inf:
            raise ValueError(f"parameter_groups: {name} should be a finite number, 0 or more, got {rate}")
    orthogonal = [module.skew for module in model.modules() if isinstance(module, Orthogonal)]
    apart = {id(parameter) for parameter in orthogonal}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    groups: list[dict[str, Any]] = [{"params": rest, "lr": lr}]
    return [*groups, {"params": orthogonal, "lr": lr_orthogonal}] if orthogonal else groups
