"""Polyak's heavy ball: the rule of MomentumRNN."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from momentumrnn.rules.base import Learnable, LinearRule, RuleState, Velocity
from momentumrnn.rules.coefficients import FRACTION, POSITIVE, Coefficient
from momentumrnn.rules.filters import Pole, Poles
from momentumrnn.rules.starts import Start, Timescales, Unit

__all__ = ["HeavyBall", "HeavyBallState"]


class HeavyBallState(NamedTuple):
    """What heavy-ball momentum carries on: ``velocity`` v, (B, C)."""

    velocity: Tensor


class HeavyBall(Poles, LinearRule):
    r"""Heavy-ball momentum with a constant coefficient, (9) of the paper.

        v_t = μ v_{t-1} + s a_t,        d_t = v_t

    Args:
        momentum: μ in [0, 1), or ``rules.Timescales``.
        step_size: s > 0, or ``rules.UNIT``.
        velocity: ``"gate"``: the rule acts on W x + b, (9); ``"hidden"``: on a drive in hidden
            space that then passes through U, (10).
        learnable: ``False``; ``True``, one learned μ and s; ``"channel"``, one for each channel.

    Raises:
        ValueError: a coefficient outside its range.
        TypeError: a coefficient that is not a number.

    Shape:
        drive and gate input (T, B, C), any floating dtype; state ``HeavyBallState``.

    Example:
        >>> import torch
        >>> rule = HeavyBall(momentum=0.5, step_size=1.0)
        >>> gate_input, state = rule(torch.ones(3, 1, 1))
        >>> gate_input.flatten()
        tensor([1.0000, 1.5000, 1.7500])
    """

    state_type = HeavyBallState
    ranges: ClassVar = {"momentum": FRACTION, "step_size": POSITIVE}
    starts: ClassVar = {"momentum": Timescales, "step_size": Unit}
    momentum = Coefficient()
    step_size = Coefficient()

    def __init__(
        self,
        momentum: float | Start,
        step_size: float | Start,
        *,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
    ) -> None:
        super().__init__(
            {"momentum": momentum, "step_size": step_size}, velocity=velocity, learnable=learnable
        )

    def poles(self) -> list[Pole]:
        s = self.step_size
        return [Pole(self.momentum, s, scale=s)]

    def decay(self, steps: int, state: RuleState, device: torch.device) -> float | Tensor:
        return self._coefficient_for_scan("momentum")

    def next_state(self, velocity: Tensor, state: RuleState, steps: int | Tensor) -> RuleState:
        return HeavyBallState(velocity)
