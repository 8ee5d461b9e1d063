"""A rule's coefficients: checked when given, and kept in their range where they are learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["FRACTION", "POSITIVE", "Range"]


@dataclass(frozen=True)
class Range:
    """The values a coefficient may take, and the map that keeps a learned one among them.

    Attributes:
        words: the range of a fixed coefficient, for error messages.
        learned_words: the range of a learned one.
        holds: whether a fixed number lies in the range.
        holds_learned: whether a learned coefficient may start at the number.
        at: maps (start, offset) to a value in the range, smoothly, with ``at(start, 0) == start``.
    """

    words: str
    learned_words: str
    holds: Callable[[float], bool]
    holds_learned: Callable[[float], bool]
    at: Callable[[Tensor, Tensor], Tensor]

    def check(self, owner: str, name: str, value: float, learned: bool) -> float:
        """Return ``value`` as a float, or raise saying which numbers are possible.

        Raises:
            TypeError: ``value`` is not a real number.
            ValueError: it is outside the range, or not finite.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{owner}: {name} should be a number, got {type(value).__name__}")
        value = float(value)
        if not (math.isfinite(value) and self.holds(value)):
            raise ValueError(f"{owner}: expected {name} in {self.words}, got {value}")
        if learned and not self.holds_learned(value):
            raise ValueError(
                f"{owner}: a learned {name} stays in {self.learned_words} and cannot start at {value}; "
                "start inside, or use learnable=False"
            )
        return value


def _fraction(start: Tensor, offset: Tensor) -> Tensor:
    # The logistic map with its origin moved to `start`. Written so that offset 0 gives `start` to
    # the last bit: start + (1 - start) rounds to 1 for every start between 0 and 1.
    value = start / (start + (1.0 - start) * _exp(-offset))
    limits = torch.finfo(value.dtype)
    return value.clamp(limits.tiny, 1.0 - limits.eps)


def _positive(start: Tensor, offset: Tensor) -> Tensor:
    return start * _exp(offset)


def _exp(offset: Tensor) -> Tensor:
    # Beyond this, float32 would soon overflow and its slopes become NaN.
    return torch.exp(offset.clamp(-60.0, 60.0))


FRACTION = Range("[0, 1)", "(0, 1)", lambda v: 0.0 <= v < 1.0, lambda v: 0.0 < v < 1.0, _fraction)
POSITIVE = Range("(0, inf)", "(0, inf)", lambda v: v > 0.0, lambda v: v > 0.0, _positive)
