"""Nesterov's accelerated gradient as momentum: a coefficient that grows with the step count."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from momentumrnn.rules.base import Learnable, LinearRule, RuleState, Velocity
from momentumrnn.rules.coefficients import PERIOD, POSITIVE, Coefficient

__all__ = ["Nesterov", "NesterovState", "ScheduledRestart"]


class NesterovState(NamedTuple):
    """What Nesterov momentum carries on.

    Attributes:
        velocity: v, (B, C).
        step: k, the steps taken since the state was zero, int64 (B,).
    """

    velocity: Tensor
    step: Tensor


class Nesterov(LinearRule):
    r"""Nesterov momentum, the paper's §2.4.

        v_t = μ_k v_{t-1} + s a_t,      μ_k = k / (k + 3),      d_t = v_t

    where k = 0, 1, 2, … counts the steps since the state was zero; at the t-th step, t from 1, this
    is the paper's (t - 1)/(t + 2).

    Args:
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, as in ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``; ``True``, one learned s; ``"channel"``, one for each channel.

    Raises:
        ValueError: a coefficient outside its range.
        TypeError: a coefficient that is not a number.

    Shape:
        drive and gate input (T, B, C), any floating dtype; state ``NesterovState``.

    Example:
        >>> import torch
        >>> gate_input, state = Nesterov(step_size=1.0)(torch.ones(3, 1, 1))
        >>> gate_input.flatten()
        tensor([1.0000, 1.2500, 1.5000])
        >>> state.step
        tensor([3])
    """

    state_type = NesterovState
    ranges: ClassVar = {"step_size": POSITIVE}
    step_size = Coefficient()

    def __init__(
        self, step_size: float, *, velocity: Velocity = "gate", learnable: Learnable = False
    ) -> None:
        super().__init__({"step_size": step_size}, velocity=velocity, learnable=learnable)

    def schedule(self, step: Tensor) -> Tensor:
        """Return μ for the given step counts k."""
        return step / (step + 3)

    def decay(self, steps: int, state: RuleState, device: torch.device) -> float | Tensor:
        # Step counts are far below 2^24, so float32 holds them exactly where float64 is missing.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        count = torch.arange(steps, device=device, dtype=dtype)
        if state is not None:
            count = count.unsqueeze(1) + state.step.to(dtype)
        return self.schedule(count)

    def next_state(self, velocity: Tensor, state: RuleState, steps: int | Tensor) -> RuleState:
        device = velocity.device
        before = (
            torch.zeros(velocity.shape[:1], dtype=torch.int64, device=device) if state is None else state.step
        )
        # A number may be one that only a graph knows: a symbol, or in a trace by torch.jit a tensor.
        return NesterovState(velocity, before + (steps.to(device) if isinstance(steps, Tensor) else steps))


class ScheduledRestart(Nesterov):
    r"""Nesterov momentum started afresh every ``restart`` steps, the paper's §2.4.

        v_t = μ_k v_{t-1} + s a_t,      μ_k = (k mod F) / ((k mod F) + 3),      d_t = v_t

    Args:
        restart: F, an integer of at least 1.
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, as in ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``; ``True``, one learned s; ``"channel"``, one for each channel.

    Raises:
        ValueError: a coefficient outside its range, or ``restart`` below 1.
        TypeError: a coefficient that is not a number, or a ``restart`` that is not an integer.

    Shape:
        drive and gate input (T, B, C), any floating dtype; state ``NesterovState``.

    Example:
        >>> import torch
        >>> gate_input, _ = ScheduledRestart(restart=2, step_size=1.0)(torch.ones(4, 1, 1))
        >>> gate_input.flatten()
        tensor([1.0000, 1.2500, 1.0000, 1.2500])
    """

    ranges: ClassVar = {"restart": PERIOD, "step_size": POSITIVE}
    restart = Coefficient()

    def __init__(
        self, restart: int, step_size: float, *, velocity: Velocity = "gate", learnable: Learnable = False
    ) -> None:
        # Not Nesterov's own, which takes a step size alone.
        LinearRule.__init__(
            self, {"restart": restart, "step_size": step_size}, velocity=velocity, learnable=learnable
        )

    def schedule(self, step: Tensor) -> Tensor:
        """Return μ for the given step counts k."""
        return super().schedule(step % self.restart)
