"""Linear rules as filters: a few poles with constant coefficients, real or complex."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from momentumrnn.rules.base import LinearRule, Rule, RuleState, last_step
from momentumrnn.rules.scan import linear_scan

__all__ = [
    "FilterRule",
    "Number",
    "Pole",
    "Poles",
    "coefficient_rows",
    "complex_scan",
    "initial_parts",
    "is_filter",
]

Number = Any  # a float, or a tensor of no dimensions or (C,)


class Pole(NamedTuple):
    """One recurrence u_t = r e^{iφ} u_{t-1} + a_t, which adds Re(g e^{iθ} u_t) to the gate input.

    Attributes:
        radius: r.
        gain: g.
        angle: φ, ``None`` for a real pole.
        phase: θ; without effect for a real pole.
        scale: what u is multiplied by in the rule's state.
    """

    radius: Number
    gain: Number
    angle: Number | None = None
    phase: Number = 0.0
    scale: Number = 1.0

    @property
    def parts(self) -> int:
        """How many real numbers u is: 1 or 2."""
        return 1 if self.angle is None else 2

    def rows(self, direct: Number) -> list[Number]:
        """Return the coefficients of a channel filter: μ, c, e, or Re μ, Im μ, Re c, Im c, e."""
        if self.angle is None:
            return [self.radius, self.gain, direct]
        return [*_cartesian(self.radius, self.angle), *_cartesian(self.gain, self.phase), direct]

    def scan(self, drive: Tensor, initial: list[Tensor] | None) -> list[Tensor]:
        """Return u at each step, (T, B, C): its real part, and the imaginary one of a complex pole."""
        if self.angle is None:
            return [linear_scan(_row(self.radius), drive, None if initial is None else initial[0])]
        return complex_scan(_row(self.radius), _row(self.angle), drive, initial)

    def seen(self, u: list[Tensor]) -> Tensor:
        """Return Re(g e^{iθ} u)."""
        if self.angle is None:
            return _times(u[0], self.gain)
        real, imaginary = _cartesian(self.gain, self.phase)
        return _times(u[0], real) - _times(u[1], imaginary)

    def faded(self, u: list[Tensor], steps: Tensor) -> list[Tensor]:
        """Return what is left of u after some steps without a drive.

        Args:
            u: the parts of u, (B, C) each.
            steps: numbers of steps that broadcast against (B, C).
        """
        left = torch.pow(_tensor(self.radius, u[0]), steps)
        if self.angle is None:
            return [u[0] * left.to(u[0].dtype)]
        turn = _tensor(self.angle, u[0]) * steps
        cosine, sine = (left * part(turn) for part in (torch.cos, torch.sin))
        cosine, sine = cosine.to(u[0].dtype), sine.to(u[0].dtype)
        return [u[0] * cosine - u[1] * sine, u[0] * sine + u[1] * cosine]


class Poles(Rule, ABC):
    """What a rule says of itself that is such a filter, d_t = e a_t + Σ_k Re(g_k e^{iθ_k} u_t^(k))."""

    @abstractmethod
    def poles(self) -> list[Pole]:
        """Return the recurrences as they are now."""

    def direct(self) -> Number:
        """Return e."""
        return 0.0

    def split(self, state: RuleState) -> list[list[Tensor]]:
        """Return the tensors of a state, those of each pole together."""
        return [list(state)]

    def join(self, parts: list[list[Tensor]]) -> RuleState:
        """Return the state of these tensors."""
        (only,) = parts
        return self.state_type(*only)


class FilterRule(Poles):
    """A rule that is a filter with constant poles and nothing else.

    Where all channels have the same coefficients it commutes with W, and a layer filters [x_t, 1]; where they
    differ, a layer filters W x_t + b.
    """

    @property
    def commutes(self) -> bool:
        return type(self).run is FilterRule.run and not self.by_channel

    def run(self, drive: Tensor, state: RuleState, lengths: Tensor | None) -> tuple[Tensor, RuleState]:
        a = drive.to(torch.promote_types(drive.dtype, torch.float32))
        poles = self.poles()
        before = initial_parts(self, poles, state, a.dtype)
        total, last = _times(a, self.direct()), []
        for pole, initial in zip(poles, before, strict=True):
            u = pole.scan(a, initial)
            total = total + pole.seen(u)
            last.append([_times(last_step(part, lengths), pole.scale) for part in u])
        return total.to(drive.dtype), self.join(last)


def is_filter(rule: Poles) -> bool:
    """Whether its poles say all of the rule: not of a subclass that runs in a way of its own."""
    return type(rule).run in (FilterRule.run, LinearRule.run)


def coefficient_rows(values: list[Number], channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the coefficients of a channel filter, (how many, C)."""
    if not any(isinstance(value, Tensor) for value in values):
        return torch.tensor(values, dtype=dtype, device=device).unsqueeze(1).expand(-1, channels)
    return torch.stack(
        [torch.as_tensor(value, dtype=dtype, device=device).expand(channels) for value in values]
    )


def initial_parts(
    rule: Poles, poles: list[Pole], state: RuleState, dtype: torch.dtype
) -> list[list[Tensor] | None]:
    """Return the parts of each u that a state begins with, ``None`` each where there is no state."""
    if state is None:
        return [None] * len(poles)
    return [
        [_over(part.to(dtype), pole.scale) for part in parts]
        for pole, parts in zip(poles, rule.split(state), strict=True)
    ]


def complex_scan(
    radius: Number, angle: Number, x: Tensor, initial: list[Tensor] | None = None
) -> list[Tensor]:
    r"""Run u_t = r e^{iφ} u_{t-1} + x_t along the first dimension, in real arithmetic.

    In a frame that turns with the pole, w_t = e^{-iφ(t+1)} u_t, it is the real recurrence
    w_t = r w_{t-1} + e^{-iφ(t+1)} x_t, so ``linear_scan`` runs it, twice.

    Args:
        radius: r, as the decay of ``linear_scan``: a number, 0-dim or ``(1, 1, C)``.
        angle: φ, likewise.
        x: ``(T, B, C)``, float32 or float64.
        initial: real and imaginary part, ``(B, C)`` each; zeros where ``None``.

    Returns:
        The real and the imaginary part of u, ``(T, B, C)`` each.

    Example:
        >>> import math, torch
        >>> real, imaginary = complex_scan(0.5, math.pi / 2, torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1))
        >>> torch.testing.assert_close(real.flatten(), torch.tensor([1.0, 0.0, -0.25]))
        >>> torch.testing.assert_close(imaginary.flatten(), torch.tensor([0.0, 0.5, 0.0]))
    """
    # The turn of thousands of steps has to be known to a fraction of a radian.
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    count = torch.arange(1, x.shape[0] + 1, device=x.device, dtype=wide).reshape(-1, 1, 1)
    turn = count * (angle.to(wide) if isinstance(angle, Tensor) else angle)
    cosine, sine = torch.cos(turn).to(x.dtype), torch.sin(turn).to(x.dtype)
    real, imaginary = (None, None) if initial is None else initial
    w_real = linear_scan(radius, x * cosine, real)
    w_imaginary = linear_scan(radius, -x * sine, imaginary)
    return [w_real * cosine - w_imaginary * sine, w_real * sine + w_imaginary * cosine]


def _cartesian(radius: Number, angle: Number) -> list[Number]:
    if isinstance(angle, Tensor):
        return [radius * torch.cos(angle), radius * torch.sin(angle)]
    return [radius * math.cos(angle), radius * math.sin(angle)]


def _row(value: Number) -> Number:
    return value.reshape(1, 1, -1) if isinstance(value, Tensor) and value.dim() else value


def _tensor(value: Number, like: Tensor) -> Tensor:
    wide = torch.float32 if like.device.type == "mps" else torch.float64
    return torch.as_tensor(value, dtype=wide, device=like.device)


def _times(x: Tensor, value: Number) -> Tensor:
    return x * (value.to(x.dtype) if isinstance(value, Tensor) else value)


def _over(x: Tensor, value: Number) -> Tensor:
    return x / (value.to(x.dtype) if isinstance(value, Tensor) else value)
