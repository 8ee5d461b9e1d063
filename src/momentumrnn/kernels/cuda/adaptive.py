"""Adam and RMSProp in Triton as a layer calls them."""

from __future__ import annotations

import torch
from torch import Tensor

from momentumrnn.kernels.adaptive import AdaptiveRule
from momentumrnn.kernels.adaptive_operator import RuleInputs
from momentumrnn.kernels.cuda import adaptive_operator
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.kernels.problem import autocasts
from momentumrnn.rules import Adam, RMSProp, RuleState
from momentumrnn.rules.scan import without_autocast

__all__ = ["adaptive_rule", "once_more"]

_rule = AdaptiveRule("triton_adaptive_rule", adaptive_operator.forward, adaptive_operator.backward)
once_more = _rule.once_more


def adaptive_rule(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rule: Adam | RMSProp,
    state: RuleState,
    packed: PackedRows | None,
) -> tuple[Tensor, RuleState, RuleInputs]:
    """Apply the rule; see ``momentumrnn.kernels.adaptive.AdaptiveRule``. Under autocast d alone is low."""
    if not autocasts(weight):
        return _rule(x, weight, bias, rule, state, packed)
    dtype = torch.get_autocast_dtype(weight.device.type)
    # Not W and x: of a drive that is all but zero the rule makes a step of full size, in a direction that
    # hangs on their rounding.
    with without_autocast(weight.device):
        return _rule(x, weight, bias, rule, state, packed, dtype)
