"""From a layer's input to what enters its gates: the one place where a rule and W meet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.kernels import GateInput
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.rules import LinearRule, Rule, RuleState
from momentumrnn.rules.base import last_step
from momentumrnn.rules.scan import without_autocast

__all__ = ["gate_input"]


def gate_input(
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    rule: Rule | None,
    state: RuleState = None,
    packed: PackedRows | None = None,
) -> tuple[GateInput, RuleState]:
    """Apply a rule to the drive W x + b of a whole sequence.

    A rule that commutes with W is applied to [x, 1] and W is left as a factor; any other is applied
    to W x + b. In hidden velocity what the rule gives passes through U on its way to the gates (10).

    Args:
        x: (T, B, d), or the rows (N, d) of a packed batch.
        weight_ih: W, (G·h, d), or (h, d) in hidden velocity.
        bias_ih: of W's first size, or ``None``.
        weight_hh: U, (G·h, h).
        rule: the rule, or ``None``.
        state: the rule's state, batch first, or ``None``.
        packed: the packed batch's places.

    Returns:
        What enters the gates, and the rule's new state: ``None`` without a rule.
    """
    if rule is None:
        return GateInput(x, weight_ih, bias_ih, packed=packed), None
    if isinstance(rule, LinearRule) and rule.commutes:
        return _filtered_features(x, weight_ih, bias_ih, weight_hh, rule, state, packed)
    lengths = None if packed is None else packed.lengths
    drive = F.linear(x, weight_ih, bias_ih)
    d, state = rule(drive if packed is None else packed.pad(drive), state, lengths)
    d = d if packed is None else packed.pack(d)
    return GateInput(d, weight_hh if rule.velocity == "hidden" else None, packed=packed), state


def _filtered_features(
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    rule: LinearRule,
    state: RuleState,
    packed: PackedRows | None,
) -> tuple[GateInput, RuleState]:
    features, weight = x if packed is None else packed.pad(x), weight_ih
    if bias_ih is not None:
        features = F.pad(features, (0, 1), value=1.0)
        weight = torch.cat([weight_ih, bias_ih.unsqueeze(1)], dim=1)
    p, fade = rule.filter(features, state)

    lengths = None if packed is None else packed.lengths
    initial = None if state is None else state.velocity
    with without_autocast(x.device):
        velocity = F.linear(last_step(p, lengths), weight.to(p.dtype))
        if initial is not None and fade is not None:
            velocity = velocity + last_step(fade.expand(-1, initial.shape[0], -1), lengths) * initial
    new_state = rule.next_state(velocity, state, p.shape[0] if lengths is None else lengths)

    if rule.velocity == "hidden":
        weight = weight_hh @ weight
        initial = None if initial is None else F.linear(initial.to(weight_hh.dtype), weight_hh)
    p = p.to(x.dtype)
    if packed is not None:
        p = packed.pack(p)
        fade = None if fade is None else packed.pack(fade.expand(-1, packed.lengths.shape[0], -1))
    return GateInput(p, weight, None, fade, initial, packed), new_state
