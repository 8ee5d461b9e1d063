"""Aggregated momentum: several heavy balls at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from momentumrnn.rules.base import Learnable, RuleState, Velocity
from momentumrnn.rules.coefficients import FRACTION, POSITIVE, Coefficient, Range
from momentumrnn.rules.filters import FilterRule, Pole
from momentumrnn.rules.starts import Start, Timescales

__all__ = ["AggMo", "AggMoState"]


class AggMoState(NamedTuple):
    """What aggregated momentum carries on: ``velocities`` v⁽¹⁾ … v⁽ᴷ⁾, (B, K, C)."""

    velocities: Tensor


class AggMo(FilterRule):
    r"""Aggregated momentum of Lucas, Sun, Zemel and Grosse (2019).

        v⁽ⁱ⁾_t = μ_i v⁽ⁱ⁾_{t-1} + a_t, i = 1 … K,        d_t = (s / K) Σ_i v⁽ⁱ⁾_t

    Args:
        momenta: μ_1 … μ_K, each in [0, 1), or ``rules.Timescales``.
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, as in ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``; ``True``, one learned μ_1 … μ_K and s; ``"channel"``, one for each channel.

    Raises:
        ValueError: a coefficient outside its range, or no momentum at all.
        TypeError: a coefficient that is not a number.

    Shape:
        drive and gate input (T, B, C), any floating dtype; state ``AggMoState``.

    Example:
        >>> import torch
        >>> gate_input, _ = AggMo(momenta=(0.0, 0.5), step_size=1.0)(torch.tensor([[[1.0]], [[0.0]]]))
        >>> gate_input.flatten()
        tensor([1.0000, 0.2500])
    """

    state_type = AggMoState
    step_size = Coefficient()
    _names: tuple[str, ...]

    def __init__(
        self,
        momenta: Sequence[float | Start],
        step_size: float,
        *,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
    ) -> None:
        if not isinstance(momenta, tuple | list):
            raise TypeError(f"AggMo: momenta should be a sequence of numbers, got {momenta!r}")
        if not momenta:
            raise ValueError("AggMo: expected at least one of momenta, got none")
        start: dict[str, Any] = {f"momentum_{i + 1}": momentum for i, momentum in enumerate(momenta)}
        # Before the module is set up, which checks the numbers by their ranges.
        vars(self)["_names"] = tuple(start)
        super().__init__({**start, "step_size": step_size}, velocity=velocity, learnable=learnable)

    # Properties, since a rule has as many momenta as it was given.
    @property
    def ranges(self) -> dict[str, Range]:  # type: ignore[override]
        return {**dict.fromkeys(self._names, FRACTION), "step_size": POSITIVE}

    @property
    def starts(self) -> dict[str, type[Start]]:  # type: ignore[override]
        return dict.fromkeys(self._names, Timescales)

    @property
    def momenta(self) -> tuple[float | Tensor, ...]:
        """μ_1 … μ_K as they are now; to set fixed ones give as many numbers."""
        return tuple(self.coefficient(name) for name in self._names)

    @momenta.setter
    def momenta(self, values: Sequence[float]) -> None:
        names = self._names
        if len(values) != len(names):
            raise ValueError(f"AggMo: expected {len(names)} momenta, got {len(values)}")
        for name, value in zip(names, values, strict=True):
            self.set_coefficient(name, value)

    def arguments(self) -> dict[str, Any]:
        return {
            "momenta": tuple(self._start[name] for name in self._names),
            "step_size": self._start["step_size"],
        }

    def description(self) -> str:
        if self.all_fixed:
            return super().description()
        fixed = {name: value for name, value in self._start.items() if not self._is_tensor(name)}
        return f"AggMo({self._written({'K': len(self._names), **fixed})})"

    def poles(self) -> list[Pole]:
        momenta = self.momenta
        gain = self.step_size / len(momenta)
        return [Pole(momentum, gain) for momentum in momenta]

    def split(self, state: RuleState) -> list[list[Tensor]]:
        return [[velocity] for velocity in state.velocities.unbind(-2)]

    def join(self, parts: list[list[Tensor]]) -> RuleState:
        return AggMoState(torch.stack([velocity for (velocity,) in parts], dim=-2))

    def state_shapes(self, channels: int) -> dict[str, tuple[int, ...]]:
        return {"velocities": (len(self._names), channels)}
