"""A rule's coefficients: checked when given, and kept in their range where they are learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "ANGLE",
    "EPSILON",
    "FRACTION",
    "INTERVAL",
    "PERIOD",
    "PHASE",
    "POSITIVE",
    "Coefficient",
    "Range",
]


@dataclass(frozen=True)
class Range:
    """The values a coefficient may take, and the map that keeps a learned one among them.

    A learned coefficient is trained through a raw parameter that may be any number. The map from it to the
    coefficient depends on an anchor, at which it is exact to the last bit; elsewhere it is the same to
    rounding, whatever the anchor.

    Attributes:
        words: the range of a fixed coefficient, for error messages.
        holds: whether a fixed number lies in the range.
        raw: maps a number in the range, or a tensor of them, to the raw parameter; ``None``: never learned.
        at: maps (anchor, raw(anchor), raw parameter) to a value in the range, with
            ``at(anchor, raw(anchor), raw(anchor)) == anchor``.
        middle: the anchor where each channel has a start of its own.
        kind: ``float``, or ``int`` for whole numbers.
    """

    words: str
    holds: Callable[[float], bool]
    raw: Callable[[Any], Any] | None = None
    at: Callable[[float, float, Tensor], Tensor] | None = None
    middle: float = 0.0
    kind: type[float] | type[int] = float

    def check(self, owner: str, name: str, value: Any) -> float:
        """Return ``value`` as a number of the range's kind, or raise saying which numbers are possible.

        Raises:
            TypeError: ``value`` is not a number of that kind.
            ValueError: it is outside the range, or not finite.
        """
        expected = (int, float) if self.kind is float else int
        if isinstance(value, bool) or not isinstance(value, expected):
            article = "a number" if self.kind is float else "an int"
            raise TypeError(f"{owner}: {name} should be {article}, got {type(value).__name__}")
        number = self.kind(value)
        if not (math.isfinite(number) and self.holds(number)):
            raise ValueError(f"{owner}: expected {name} {self.words}, got {number}")
        return number


class Coefficient:
    """A coefficient as an attribute of its rule: read as it is now, and set where it is fixed.

    The rules that a layer made from one rule share their fixed coefficients, so that
    ``layer.rule.momentum = 0.7`` changes every stacked layer and direction.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, rule: Any, owner: type | None = None) -> Any:
        return self if rule is None else rule.coefficient(self._name)

    def __set__(self, rule: Any, value: float) -> None:
        rule.set_coefficient(self._name, value)


def _logit(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.logit(value)
    return math.log(value) - math.log1p(-value) if value else 0.0


def _log(value: Any) -> Any:
    return torch.log(value) if isinstance(value, Tensor) else math.log(value)


def _same(value: Any) -> Any:
    return value


def _fraction(anchor: float, raw_anchor: float, raw: Tensor) -> Tensor:
    if anchor == 0.0:
        # The logistic map never gets there. This one does with a slope of 1, and is reflected at zero.
        value, least = torch.where(raw >= 0.0, torch.tanh(raw), torch.tanh(-raw)), 0.0
    else:
        # The logistic map, written so that it gives the anchor to the last bit.
        value = anchor / (1.0 + (1.0 - anchor) * torch.expm1(_bounded(raw_anchor - raw)))
        least = torch.finfo(value.dtype).tiny
    return value.clamp(least, 1.0 - torch.finfo(value.dtype).eps)


def _positive(anchor: float, raw_anchor: float, raw: Tensor) -> Tensor:
    return anchor * torch.exp(_bounded(raw - raw_anchor))


def _interval(anchor: float, raw_anchor: float, raw: Tensor) -> Tensor:
    # There and back again with a slope of 1, so that both ends can be reached and left.
    turn = raw - 2.0 * torch.floor(0.5 * raw)
    return torch.where(turn <= 1.0, turn, 2.0 - turn)


def _angle(anchor: float, raw_anchor: float, raw: Tensor) -> Tensor:
    # A tensor of its own, as the other maps give: what was read does not change when an optimizer steps.
    return raw.clone()


def _bounded(distance: Tensor) -> Tensor:
    # Beyond this, float32 would soon overflow and its slopes become NaN.
    return distance.clamp(-60.0, 60.0)


FRACTION = Range("in [0, 1)", lambda v: 0.0 <= v < 1.0, raw=_logit, at=_fraction, middle=0.5)
INTERVAL = Range("in [0, 1]", lambda v: 0.0 <= v <= 1.0, raw=_same, at=_interval)
POSITIVE = Range("in (0, inf)", lambda v: v > 0.0, raw=_log, at=_positive, middle=1.0)
# Where it is learned it may go anywhere: only its cosine and sine are used.
ANGLE = Range("in [0, π]", lambda v: 0.0 <= v <= math.pi, raw=_same, at=_angle)
PHASE = Range("a finite number", lambda _: True, raw=_same, at=_angle)
# The square of anything smaller is zero in float32.
EPSILON = Range("of 1.1e-19 or more", lambda v: v >= 2.0**-63)
PERIOD = Range("of at least 1", lambda v: v >= 1, kind=int)
