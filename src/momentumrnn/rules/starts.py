"""Where coefficients begin that differ from channel to channel."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["UNIT", "Angles", "Start", "Timescales", "Unit"]


class Start(ABC):
    """A start for each channel, given in the place of a number.

    It is drawn when a layer binds its rule and at each ``reset_parameters``, from torch's generator: a seed
    fixes it. With ``learnable="channel"`` the coefficient is learned from there; with
    ``learnable=False`` it stays, and is saved as a buffer.
    """

    @abstractmethod
    def draw_(self, values: Tensor, others: dict[str, Any]) -> None:
        """Fill (C,) with a draw.

        Args:
            values: float64, (C,).
            others: the rule's coefficients that come before this one, by name.
        """

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).items()))


class Timescales(Start):
    r"""Momenta exp(-1/τ) whose time scales τ are drawn log-uniformly from [low, high].

    Args:
        low: the shortest time scale, in steps, > 0.
        high: the longest, in steps, >= low.

    Raises:
        TypeError: a bound that is not a number.
        ValueError: bounds outside their range.

    Example:
        >>> import torch
        >>> from momentumrnn import rules
        >>> rule = rules.HeavyBall(rules.Timescales(4, 784), rules.UNIT, learnable="channel").bind(1000)
        >>> tau = -1 / torch.log(rule.momentum)
        >>> bool((tau > 3.99).all()), bool((tau < 785).all())
        (True, True)
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = _bounds(self, low, high)
        if not self.low > 0.0:
            raise ValueError(f"Timescales: expected low in (0, inf), got {low}")

    def draw_(self, values: Tensor, others: dict[str, Any]) -> None:
        nn.init.uniform_(values, math.log(self.low), math.log(self.high))
        limits = torch.finfo(values.dtype)
        # Momenta of zero or one have no finite raw parameter, and UNIT would make a step size of zero.
        values.copy_(torch.exp(-torch.exp(-values)).clamp(limits.tiny, 1.0 - limits.eps))

    def __repr__(self) -> str:
        return f"Timescales({self.low:g}, {self.high:g})"


class Angles(Start):
    """Angles drawn uniformly from [low, high], in radians.

    Args:
        low: the smallest angle.
        high: the largest, >= low.

    Raises:
        TypeError: a bound that is not a number.
        ValueError: bounds that are not finite, or in the wrong order.

    Example:
        >>> import math
        >>> from momentumrnn import rules
        >>> rule = rules.ComplexMomentum(0.9, rules.Angles(0, math.pi), 1.0, learnable="channel").bind(1000)
        >>> bool((rule.angle >= 0).all()), bool((rule.angle <= math.pi).all())
        (True, True)
    """

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = _bounds(self, low, high)

    def draw_(self, values: Tensor, others: dict[str, Any]) -> None:
        nn.init.uniform_(values, self.low, self.high)

    def __repr__(self) -> str:
        return f"Angles({self.low:g}, {self.high:g})"


class Unit(Start):
    """The start of a step size at √(1 - |μ|²), which keeps the variance of white input."""

    def draw_(self, values: Tensor, others: dict[str, Any]) -> None:
        momentum = torch.as_tensor(others["momentum"], dtype=values.dtype, device=values.device)
        values.copy_(torch.sqrt(1.0 - momentum.square()))

    def __repr__(self) -> str:
        return "UNIT"


UNIT = Unit()


def _bounds(start: Start, low: Any, high: Any) -> tuple[float, float]:
    owner = type(start).__name__
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{owner}: {name} should be a number, got {type(value).__name__}")
        if not math.isfinite(value):
            raise ValueError(f"{owner}: expected a finite {name}, got {value}")
    if low > high:
        raise ValueError(f"{owner}: expected low of at most high, got {low} and {high}")
    return float(low), float(high)
