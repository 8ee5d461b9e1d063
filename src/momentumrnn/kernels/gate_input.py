"""What enters the gates beside the hidden state, before anyone has multiplied it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.kernels.packed import PackedRows
from momentumrnn.kernels.tracing import traced

if TYPE_CHECKING:
    from momentumrnn.kernels.adaptive_operator import RuleInputs

__all__ = ["GateInput"]


class GateInput(NamedTuple):
    """The gate inputs d of all steps, d_t = features_t weightᵀ + bias + fade_t · initial.

    A linear rule leaves d as a product of few filtered features with W, an adaptive one has d itself.
    Each backend decides whether it wants the factors or the product.

    Attributes:
        features: (T, B, n), or (N, n) for a packed batch, N the sum of all lengths.
        weight: (G·h, n), or ``None`` where the features already are the gate inputs.
        bias: (G·h,) or ``None``.
        fade: (T, 1 or B, 1 or G·h), or (N, 1 or G·h) packed: what is left at each step of a velocity
            from before this sequence; ``None`` without one.
        initial: (B, G·h), that velocity; given exactly where ``fade`` is.
        packed: where the rows of a packed batch belong; ``None`` for a dense one.
        made_of: what an adaptive rule made the features of, for a backend that would rather make them once
            more than keep them; ``None`` where no one can.
    """

    features: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    fade: Tensor | None = None
    initial: Tensor | None = None
    packed: PackedRows | None = None
    made_of: RuleInputs | None = None

    @property
    def one_step(self) -> bool:
        """Whether these are the gate inputs of a single step of a dense batch."""
        # A trace by torch.jit of one step is to serve more of them.
        return self.packed is None and self.features.shape[0] == 1 and not traced()

    def multiplied(self) -> Tensor:
        """Return d, (T, B, G·h) or (N, G·h)."""
        d = self.features if self.weight is None else F.linear(self.features, self.weight, self.bias)
        if self.initial is None or self.fade is None:
            return d
        initial = self.initial
        if self.packed is not None:
            initial = initial[self.packed.sequence]
        return d + (self.fade * initial).to(d.dtype)

    def factors_if_any(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return features, weight and bias as ``factors`` does, or ready gate inputs and no weight."""
        return (self.multiplied(), None, None) if self._is_product() else self.factors()

    def factors(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return features, weight and bias whose product is d, whatever had to be added to them.

        An initial velocity becomes B more features, one for each sequence: the fade in its own column
        and zero in the others, with the velocities as their weights. Ready gate inputs get an
        identity matrix.
        """
        if self.weight is None or self._is_product():
            d = self.multiplied()
            return d, torch.eye(d.shape[-1], dtype=d.dtype, device=d.device), None
        if self.initial is None or self.fade is None:
            return self.features, self.weight, self.bias
        batch = self.initial.shape[0]
        own = torch.eye(batch, dtype=self.features.dtype, device=self.features.device)
        if self.packed is not None:
            own = own[self.packed.sequence]
        columns = (self.fade * own).to(self.features.dtype)
        features = torch.cat([self.features, columns], dim=-1)
        return features, torch.cat([self.weight, self.initial.t().to(self.weight.dtype)], dim=1), self.bias

    def _is_product(self) -> bool:
        """Whether there is nothing to factor, or the factors would be larger than their product."""
        if self.weight is None:
            return True
        if self.initial is None or self.fade is None:
            return False
        return self.fade.shape[-1] > 1 or self.initial.shape[0] > self.initial.shape[1]
