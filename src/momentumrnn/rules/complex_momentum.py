"""Complex momentum: a velocity that turns as it fades."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from momentumrnn.rules.base import Learnable, Velocity
from momentumrnn.rules.coefficients import ANGLE, FRACTION, PHASE, POSITIVE, Coefficient
from momentumrnn.rules.filters import FilterRule, Pole
from momentumrnn.rules.starts import Angles, Start, Timescales, Unit

__all__ = ["ComplexMomentum", "ComplexMomentumState"]


class ComplexMomentumState(NamedTuple):
    """What complex momentum carries on: the ``real`` and the ``imaginary`` part of v, (B, C) each."""

    real: Tensor
    imaginary: Tensor


class ComplexMomentum(FilterRule):
    r"""Complex momentum of Lorraine, Acuna, Vicol and Duvenaud (2022).

        v_t = μ v_{t-1} + a_t,  μ = r e^{iφ},        d_t = s Re(e^{iθ} v_t)

    φ = 0 and θ = 0 is heavy ball. With an angle for each channel it is a bank of filters, each of which
    answers to one frequency of its input and remembers it for a time 1 / (1 - r).

    Args:
        momentum: r in [0, 1), or ``rules.Timescales``.
        angle: φ in [0, π], or ``rules.Angles``. A learned one may leave the range; only its cosine and sine
            are used.
        step_size: s > 0, or ``rules.UNIT``.
        phase: θ, any number, or ``rules.Angles``.
        velocity: ``"gate"`` or ``"hidden"``, as in ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``; ``True``, one learned r, φ, s and θ; ``"channel"``, one for each channel.

    Raises:
        ValueError: a coefficient outside its range.
        TypeError: a coefficient that is not a number.

    Shape:
        drive and gate input (T, B, C), any floating dtype; state ``ComplexMomentumState``.

    Example:
        >>> import math, torch
        >>> rule = ComplexMomentum(momentum=0.5, angle=math.pi, step_size=1.0)
        >>> gate_input, _ = rule(torch.tensor([[[1.0]], [[0.0]], [[0.0]]]))
        >>> torch.testing.assert_close(gate_input.flatten(), torch.tensor([1.0, -0.5, 0.25]))
    """

    state_type = ComplexMomentumState
    ranges: ClassVar = {"momentum": FRACTION, "angle": ANGLE, "step_size": POSITIVE, "phase": PHASE}
    starts: ClassVar = {"momentum": Timescales, "angle": Angles, "step_size": Unit, "phase": Angles}
    momentum = Coefficient()
    angle = Coefficient()
    step_size = Coefficient()
    phase = Coefficient()

    def __init__(
        self,
        momentum: float | Start,
        angle: float | Start,
        step_size: float | Start,
        phase: float | Start = 0.0,
        *,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
    ) -> None:
        start: dict[str, Any] = {
            "momentum": momentum,
            "angle": angle,
            "step_size": step_size,
            "phase": phase,
        }
        super().__init__(start, velocity=velocity, learnable=learnable)

    def poles(self) -> list[Pole]:
        return [Pole(self.momentum, self.step_size, self.angle, self.phase)]
