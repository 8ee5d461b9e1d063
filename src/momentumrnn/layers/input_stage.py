"""From a layer's input to what enters its gates: the one place where a rule and W meet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn import kernels
from momentumrnn.kernels import GateInput
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.kernels.problem import autocasts
from momentumrnn.kernels.tracing import recorded
from momentumrnn.rules import LinearRule, Rule, RuleState
from momentumrnn.rules.adam import has_kernels
from momentumrnn.rules.base import last_step
from momentumrnn.rules.filters import FilterRule, Poles, coefficient_rows, initial_parts, is_filter
from momentumrnn.rules.scan import cumulative_decay, without_autocast

__all__ = ["gate_input", "gate_input_of_a_step"]


def gate_input(
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    rule: Rule | None,
    state: RuleState = None,
    packed: PackedRows | None = None,
    carry: bool = True,
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
        carry: whether the rule's new state is wanted.

    Returns:
        What enters the gates, and the rule's new state: ``None`` without a rule or where not wanted.
    """
    if rule is None:
        return GateInput(x, weight_ih, bias_ih, packed=packed), None
    if rule.is_hooked():
        return _by_call(x, weight_ih, bias_ih, weight_hh, rule, state, packed)
    if not rule.all_fixed:
        rule.check_device(weight_ih.device)
    # A linear rule of fixed numbers has a filter of its own, which keeps its state in float64.
    own = rule.all_fixed and isinstance(rule, LinearRule)
    if not own and isinstance(rule, Poles) and is_filter(rule):
        # A graph would hold how many blocks of steps the kernel keeps, and serve no other number.
        in_cpp = not recorded() and kernels.runs_rules(weight_ih)
        if rule.commutes and (in_cpp or isinstance(rule, FilterRule)):
            return _filtered_by_poles(x, weight_ih, bias_ih, weight_hh, rule, state, packed, carry, in_cpp)
        if in_cpp:
            return _filtered_channels(x, weight_ih, bias_ih, weight_hh, rule, state, packed)
    if isinstance(rule, LinearRule) and rule.commutes:
        return _filtered_features(x, weight_ih, bias_ih, weight_hh, rule, state, packed, carry)
    if has_kernels(rule) and (runner := kernels.rule_backend(weight_ih)) is not None:
        inputs, state = kernels.adaptive_rule(runner, x, weight_ih, bias_ih, rule, state, packed)
        if rule.velocity == "hidden":
            inputs = GateInput(inputs.features, weight_hh, packed=packed)
        return inputs, state
    return _by_call(x, weight_ih, bias_ih, weight_hh, rule, state, packed)


def _by_call(
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    rule: Rule,
    state: RuleState,
    packed: PackedRows | None,
) -> tuple[GateInput, RuleState]:
    """Call the rule's module on the drive W x + b: any rule runs that way, and so do its hooks."""
    lengths = None if packed is None else packed.lengths
    drive = _drive(x, weight_ih, bias_ih, rule)
    d, state = rule(drive if packed is None else packed.pad(drive), state, lengths)
    d = d if packed is None else packed.pack(d)
    if autocasts(weight_ih):
        d = d.to(torch.get_autocast_dtype(x.device.type))
    return GateInput(d, weight_hh if rule.velocity == "hidden" else None, packed=packed), state


def _drive(x: Tensor, weight: Tensor, bias: Tensor | None, rule: Rule) -> Tensor:
    if isinstance(rule, LinearRule | FilterRule):
        return F.linear(x, weight, bias)
    # Of a drive that is all but zero Adam and RMSProp make a step of full size, in a direction that hangs on
    # how W and x were rounded.
    with without_autocast(x.device):
        return F.linear(x.to(weight.dtype), weight, bias)


def gate_input_of_a_step(
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    rule: Rule,
    state: RuleState,
) -> tuple[GateInput, RuleState]:
    """Apply a rule to the drive W x + b of a single step.

    Arguments and result are those of ``gate_input``, but that x is (B, d).
    """
    if x.dtype not in (torch.float32, torch.float64) or autocasts(weight_ih):
        return gate_input(x.unsqueeze(0), weight_ih, bias_ih, weight_hh, rule, state)
    if rule.is_hooked():
        return _by_call(x.unsqueeze(0), weight_ih, bias_ih, weight_hh, rule, state, None)
    if not rule.all_fixed:
        rule.check_device(weight_ih.device)
    # No filter before W, though the rule commutes: for one step that saves nothing, and the new state
    # wants the product.
    d, state = rule.step(F.linear(x, weight_ih, bias_ih), state)
    if rule.velocity == "hidden":
        return GateInput(d.unsqueeze(0), weight_hh), state
    if d.shape[0] == 1:
        # A factor too, of the feature 1: torch's operators for one step want a weight.
        return GateInput(d.new_ones(1, 1, 1), d.t()), state
    return GateInput(d.unsqueeze(0)), state


def _filtered_features(
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    rule: LinearRule,
    state: RuleState,
    packed: PackedRows | None,
    carry: bool,
) -> tuple[GateInput, RuleState]:
    weight = weight_ih if bias_ih is None else torch.cat([weight_ih, bias_ih.unsqueeze(1)], dim=1)
    numbers = None
    if not rule.learnable and kernels.runs_rules(weight_hh):
        numbers = _numbers(x, rule, state, packed)
    if numbers is not None:
        p, fade, last = _filter_in_cpp(x, bias_ih is not None, *numbers, state, packed)
    else:
        p, fade, last = _filter(x, bias_ih is not None, rule, state, packed)

    lengths = None if packed is None else packed.lengths
    initial = None if state is None else state.velocity
    new_state = None
    if carry:
        with without_autocast(x.device):
            velocity = F.linear(last, weight.to(last.dtype))
            if initial is not None and fade is not None:
                velocity = velocity + last_step(fade.expand(-1, initial.shape[0], -1), lengths) * initial
        steps = lengths if lengths is not None else x.shape[0]
        new_state = rule.next_state(velocity, state, steps)

    if rule.velocity == "hidden":
        weight = weight_hh @ weight
        initial = None if initial is None else F.linear(initial.to(weight_hh.dtype), weight_hh)
    if packed is not None and fade is not None:
        fade = packed.pack(fade.expand(-1, packed.lengths.shape[0], -1))
    return GateInput(p.to(x.dtype), weight, None, fade, initial, packed), new_state


def _filtered_channels(
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    rule: Poles,
    state: RuleState,
    packed: PackedRows | None,
) -> tuple[GateInput, RuleState]:
    """Filter W x + b by the kernel for coefficients that differ from channel to channel."""
    poles = rule.poles()
    wide = torch.promote_types(weight_ih.dtype, torch.float32)
    before = initial_parts(rule, poles, state, wide)
    outputs, last, made_of = [], [], None
    for k, (pole, initial) in enumerate(zip(poles, before, strict=True)):
        rows = coefficient_rows(pole.rows(0.0 if k else rule.direct()), weight_ih.shape[0], wide, x.device)
        u_0 = None if initial is None else torch.stack(initial)
        d, u, made_of = kernels.channel_filter(x.to(weight_ih.dtype), weight_ih, bias_ih, rows, u_0, packed)
        outputs.append(d)
        last.append([part * pole.scale for part in u])
    new_state = rule.join(last)
    hidden = rule.velocity == "hidden"
    total = outputs[0] if len(poles) == 1 else torch.stack(outputs).sum(0)
    made_of = None if hidden or len(poles) > 1 else made_of
    return GateInput(total, weight_hh if hidden else None, packed=packed, made_of=made_of), new_state


def _filtered_by_poles(
    x: Tensor,
    weight_ih: Tensor,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    rule: Poles,
    state: RuleState,
    packed: PackedRows | None,
    carry: bool,
    in_cpp: bool,
) -> tuple[GateInput, RuleState]:
    """Filter [x, 1] instead of W x + b; a state from before adds what is left of it in the gates' space."""
    weight = weight_ih if bias_ih is None else torch.cat([weight_ih, bias_ih.unsqueeze(1)], dim=1)
    wide = torch.promote_types(x.dtype, torch.float32)
    rows = x.to(wide) if bias_ih is None else F.pad(x.to(wide), (0, 1), value=1.0)
    lengths = None if packed is None else packed.lengths
    poles = rule.poles()
    before = initial_parts(rule, poles, state, torch.promote_types(weight.dtype, torch.float32))
    outputs: list[Tensor] = []
    left: list[Tensor] = []
    last: list[list[Tensor]] = []
    with without_autocast(x.device):
        for k, (pole, initial) in enumerate(zip(poles, before, strict=True)):
            direct = 0.0 if k else rule.direct()
            if in_cpp:
                numbers = coefficient_rows(pole.rows(direct), rows.shape[-1], wide, x.device)
                filtered, ends, _ = kernels.channel_filter(rows, None, None, numbers, None, packed)
                parts = list(ends)
            else:
                features = rows if packed is None else packed.pad(rows)
                u = pole.scan(features, None)
                seen = pole.seen(u) if k else pole.seen(u) + features * direct
                filtered = seen if packed is None else packed.pack(seen)
                parts = [last_step(part, lengths) for part in u]
            outputs.append(filtered)
            steps = x.shape[0] if packed is None else packed.batch_sizes.shape[0]
            count = torch.arange(1, steps + 1, device=x.device).reshape(-1, 1, 1)
            if initial is not None:
                left.append(pole.seen(pole.faded(initial, count)))
            if carry:
                parts = [F.linear(part, weight.to(part.dtype)) for part in parts]
                if initial is not None:
                    # The count's last entry: as a number of its own, a graph would fix it.
                    rest = pole.faded(initial, count[-1] if lengths is None else lengths.unsqueeze(1))
                    parts = [part + old for part, old in zip(parts, rest, strict=True)]
                last.append([part * pole.scale for part in parts])
    new_state = rule.join(last) if carry else None
    total = (outputs[0] if len(outputs) == 1 else torch.stack(outputs).sum(0)).to(x.dtype)
    if not left:
        return GateInput(total, _in_gates(rule, weight, weight_hh), packed=packed), new_state
    d = F.linear(total, weight.to(total.dtype))
    fading = torch.stack(left).sum(0)
    d = d + (fading if packed is None else packed.pack(fading)).to(d.dtype)
    return GateInput(d, weight_hh if rule.velocity == "hidden" else None, packed=packed), new_state


def _in_gates(rule: Poles, weight: Tensor, weight_hh: Tensor) -> Tensor:
    """Return the matrix from filtered features to the gates; in hidden velocity U stands before it."""
    return weight_hh @ weight if rule.velocity == "hidden" else weight


def _filter(
    x: Tensor, ones: bool, rule: LinearRule, state: RuleState, packed: PackedRows | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return the filtered rows, what is left of the state's velocity at each step, and the last p."""
    features = x if packed is None else packed.pad(x)
    p, fade = rule.filter(F.pad(features, (0, 1), value=1.0) if ones else features, state)
    last = last_step(p, None if packed is None else packed.lengths)
    return (p if packed is None else packed.pack(p)), fade, last


def _numbers(
    x: Tensor, rule: LinearRule, state: RuleState, packed: PackedRows | None
) -> tuple[float | Tensor, float] | None:
    """Return μ and s as the C++ filter takes them, ``None`` where a rule of the user's own has others."""
    steps = x.shape[0] if packed is None else packed.batch_sizes.shape[0]
    decay, gain = rule.decay(steps, state, x.device), rule.coefficient("step_size")
    plain = not isinstance(decay, Tensor) or (decay.dim() in (1, 2) and not decay.requires_grad)
    return (decay, gain) if plain and not isinstance(gain, Tensor) else None


def _filter_in_cpp(
    x: Tensor,
    ones: bool,
    decay: float | Tensor,
    gain: float,
    state: RuleState,
    packed: PackedRows | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    p, last = kernels.linear_filter(x, ones, decay, gain, packed)
    steps = x.shape[0] if packed is None else packed.batch_sizes.shape[0]
    return p, None if state is None else cumulative_decay(decay, steps, x), last
