"""Adam and RMSProp: momentum over a drive that is scaled by its running root mean square."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeGuard

import torch
from torch import Tensor

from momentumrnn.rules.base import Learnable, Rule, RuleState, Velocity, last_step
from momentumrnn.rules.coefficients import EPSILON, FRACTION, POSITIVE, Coefficient
from momentumrnn.rules.scan import linear_scan, linear_step

__all__ = ["Adam", "AdamState", "RMSProp", "RMSPropState", "has_kernels"]


class AdamState(NamedTuple):
    """What Adam carries on: ``velocity`` v and ``second_moment`` m, each (B, C)."""

    velocity: Tensor
    second_moment: Tensor


class RMSPropState(NamedTuple):
    """What RMSProp carries on: ``second_moment`` m, (B, C)."""

    second_moment: Tensor


class _RootMeanSquare(Rule):
    """The denominator that both rules share."""

    step_size = Coefficient()
    beta = Coefficient()
    eps = Coefficient()

    def _second_moment(
        self, recurrence: Callable[..., Tensor], drive: Tensor, initial: Tensor | None
    ) -> Tensor:
        beta = self._coefficient_for_scan("beta")
        return recurrence(beta, drive * drive, initial, 1.0 - beta)

    def _scale(self, velocity: Tensor, second_moment: Tensor) -> Tensor:
        # √(m + ε²) is the paper's √m + ε up to rounding, and has a derivative at m = 0. Not rsqrt, and
        # a product for the square: their derivatives go through pow, at several times the cost.
        return velocity / torch.sqrt(second_moment + self.eps**2)


class Adam(_RootMeanSquare):
    r"""Adam as a momentum rule, (15) of the paper; no bias correction, as there.

        v_t = μ v_{t-1} + s a_t,    m_t = β m_{t-1} + (1 - β) a_t²,    d_t = v_t / √(m_t + ε²)

    Args:
        momentum: μ in [0, 1); in (0, 1) where learned.
        step_size: s > 0.
        beta: β in [0, 1); in (0, 1) where learned.
        eps: ε, 2⁻⁶³ or more.
        velocity: ``"gate"`` or ``"hidden"``, as in ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``; ``True``, one learned μ, s and β; ``"channel"``, one for each channel.

    Raises:
        ValueError: a coefficient outside its range.
        TypeError: a coefficient that is not a number.

    Shape:
        drive and gate input (T, B, C), any floating dtype; state ``AdamState``.

    Example:
        >>> import torch
        >>> gate_input, _ = Adam(momentum=0.0, step_size=1.0, beta=0.0)(torch.tensor([[[3.0]], [[-2.0]]]))
        >>> gate_input.flatten()
        tensor([ 1., -1.])
    """

    state_type = AdamState
    ranges: ClassVar = {"momentum": FRACTION, "step_size": POSITIVE, "beta": FRACTION, "eps": EPSILON}
    momentum = Coefficient()

    def __init__(
        self,
        momentum: float,
        step_size: float,
        beta: float,
        eps: float = 1e-8,
        *,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
    ) -> None:
        super().__init__(
            {"momentum": momentum, "step_size": step_size, "beta": beta, "eps": eps},
            velocity=velocity,
            learnable=learnable,
        )

    def run(self, drive: Tensor, state: RuleState, lengths: Tensor | None) -> tuple[Tensor, RuleState]:
        a = drive.to(torch.promote_types(drive.dtype, torch.float32))
        velocity, second_moment = self._moments(linear_scan, a, state)
        gate_input = self._scale(velocity, second_moment).to(drive.dtype)
        return gate_input, AdamState(last_step(velocity, lengths), last_step(second_moment, lengths))

    def step(self, drive: Tensor, state: RuleState = None) -> tuple[Tensor, RuleState]:
        moments = self._moments(linear_step, drive, state)
        return self._scale(*moments), AdamState(*moments)

    def _moments(
        self, recurrence: Callable[..., Tensor], drive: Tensor, state: RuleState
    ) -> tuple[Tensor, Tensor]:
        v, m = (None, None) if state is None else state
        momentum, step_size = map(self._coefficient_for_scan, ("momentum", "step_size"))
        return recurrence(momentum, drive, v, step_size), self._second_moment(recurrence, drive, m)


class RMSProp(_RootMeanSquare):
    r"""RMSProp as a momentum rule, the paper's §2.4: ``Adam`` with μ = 0.

        m_t = β m_{t-1} + (1 - β) a_t²,        d_t = s a_t / √(m_t + ε²)

    Args:
        step_size: s > 0.
        beta: β in [0, 1); in (0, 1) where learned.
        eps: ε, 2⁻⁶³ or more.
        velocity: ``"gate"`` or ``"hidden"``, as in ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``; ``True``, one learned s and β; ``"channel"``, one for each channel.

    Raises:
        ValueError: a coefficient outside its range.
        TypeError: a coefficient that is not a number.

    Shape:
        drive and gate input (T, B, C), any floating dtype; state ``RMSPropState``.

    Example:
        >>> import torch
        >>> gate_input, _ = RMSProp(step_size=0.5, beta=0.0)(torch.tensor([[[3.0]], [[-2.0]]]))
        >>> gate_input.flatten()
        tensor([ 0.5000, -0.5000])
    """

    state_type = RMSPropState
    ranges: ClassVar = {"step_size": POSITIVE, "beta": FRACTION, "eps": EPSILON}

    def __init__(
        self,
        step_size: float,
        beta: float,
        eps: float = 1e-8,
        *,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
    ) -> None:
        super().__init__(
            {"step_size": step_size, "beta": beta, "eps": eps},
            velocity=velocity,
            learnable=learnable,
        )

    def run(self, drive: Tensor, state: RuleState, lengths: Tensor | None) -> tuple[Tensor, RuleState]:
        a = drive.to(torch.promote_types(drive.dtype, torch.float32))
        second_moment = self._second_moment(linear_scan, a, None if state is None else state.second_moment)
        velocity = self._coefficient_for_scan("step_size") * a
        gate_input = self._scale(velocity, second_moment).to(drive.dtype)
        return gate_input, RMSPropState(last_step(second_moment, lengths))

    def step(self, drive: Tensor, state: RuleState = None) -> tuple[Tensor, RuleState]:
        m = None if state is None else state.second_moment
        second_moment = self._second_moment(linear_step, drive, m)
        velocity = linear_step(0.0, drive, None, self._coefficient_for_scan("step_size"))
        return self._scale(velocity, second_moment), RMSPropState(second_moment)


def has_kernels(rule: Rule | None) -> TypeGuard[Adam | RMSProp]:
    """Whether a kernel may stand in for the rule: not for a subclass that runs in a way of its own."""
    return isinstance(rule, Adam | RMSProp) and type(rule).run in (Adam.run, RMSProp.run)
