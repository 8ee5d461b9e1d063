"""Quasi-hyperbolic momentum: an average of the drive and of its momentum."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from momentumrnn.rules.base import Learnable, Velocity
from momentumrnn.rules.coefficients import FRACTION, INTERVAL, POSITIVE, Coefficient
from momentumrnn.rules.filters import FilterRule, Number, Pole
from momentumrnn.rules.starts import Start, Timescales

__all__ = ["QHM", "QHMState"]


class QHMState(NamedTuple):
    """What quasi-hyperbolic momentum carries on: ``velocity`` v, (B, C)."""

    velocity: Tensor


class QHM(FilterRule):
    r"""Quasi-hyperbolic momentum of Ma and Yarats (2019).

        v_t = μ v_{t-1} + (1 - μ) a_t,        d_t = s ((1 - ν) a_t + ν v_t)

    With s = 1 a constant input passes unchanged. ν = 0 is the plain layer.

    Args:
        momentum: μ in [0, 1), or ``rules.Timescales``.
        nu: ν in [0, 1].
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, as in ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``; ``True``, one learned μ, ν and s; ``"channel"``, one for each channel.

    Raises:
        ValueError: a coefficient outside its range.
        TypeError: a coefficient that is not a number.

    Shape:
        drive and gate input (T, B, C), any floating dtype; state ``QHMState``.

    Example:
        >>> import torch
        >>> gate_input, _ = QHM(momentum=0.5, nu=0.5, step_size=1.0)(torch.tensor([[[1.0]], [[0.0]]]))
        >>> gate_input.flatten()
        tensor([0.7500, 0.1250])
    """

    state_type = QHMState
    ranges: ClassVar = {"momentum": FRACTION, "nu": INTERVAL, "step_size": POSITIVE}
    starts: ClassVar = {"momentum": Timescales}
    momentum = Coefficient()
    nu = Coefficient()
    step_size = Coefficient()

    def __init__(
        self,
        momentum: float | Start,
        nu: float,
        step_size: float,
        *,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
    ) -> None:
        start: dict[str, Any] = {"momentum": momentum, "nu": nu, "step_size": step_size}
        super().__init__(start, velocity=velocity, learnable=learnable)

    def poles(self) -> list[Pole]:
        mu, nu, s = self.momentum, self.nu, self.step_size
        return [Pole(mu, s * nu * (1.0 - mu), scale=1.0 - mu)]

    def direct(self) -> Number:
        return self.step_size * (1.0 - self.nu)
