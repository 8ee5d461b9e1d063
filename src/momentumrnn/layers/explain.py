"""Which kernel would run a layer, and why not a faster one."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from momentumrnn import kernels
from momentumrnn.kernels.problem import Problem
from momentumrnn.layers.base import RecurrentLayer
from momentumrnn.rules import Rule
from momentumrnn.rules.adam import has_kernels
from momentumrnn.rules.scan import without_autocast

__all__ = ["explain"]


def explain(layer: RecurrentLayer, x: Tensor | PackedSequence) -> str:
    """Say which backend would run each layer and direction on ``x``, and why not another.

    Nothing is computed.

    Args:
        layer: an RNN, LSTM or GRU of this package.
        x: an input for it.

    Returns:
        A few lines of text.

    Raises:
        TypeError: ``layer`` is none of this package's layers.
        InputError: ``x`` does not fit the layer.
        BackendError: the backend asked for cannot run the layer.

    Example:
        >>> import torch
        >>> import momentumrnn
        >>> print(momentumrnn.explain(momentumrnn.MomentumLSTM(1, 128), torch.randn(784, 32, 1)))
        MomentumLSTM(1, 128) with HeavyBall(momentum=0.6, step_size=1.0), torch.float32 on cpu
          l0: ..., over [x, 1] filtered by the rule (2 channels)
            not ...
            not reference: a Python loop over time steps
    """
    if not isinstance(layer, RecurrentLayer):
        raise TypeError(f"explain: expected an RNN, LSTM or GRU of momentumrnn, got {type(layer).__name__}")
    layer.check_input(x)
    rule = layer.rule
    weight = given = layer.all_weights[0][0]
    if layer.feeds_adaptive_rules and weight.dtype in (torch.float16, torch.bfloat16):
        weight = weight.float()
    behind = "" if rule is None else f" with {rule}"
    one_step = isinstance(x, Tensor) and x.shape[1 if x.dim() == 3 and layer.batch_first else 0] == 1
    batch = _batch(layer, x)
    lines = [f"{type(layer).__name__}({layer.extra_repr()}){behind}, {given.dtype!s} on {given.device}"]
    for suffix, width in layer.places():
        if not type(layer)._recur.__module__.startswith(__package__):
            own = f"the recurrence of {type(layer).__name__} itself, which no backend replaces"
            lines.append(f"  {suffix[1:]}: {own}, {_what(rule, width, layer, weight)}")
            continue
        widened = layer.feeds_adaptive_rules and not suffix.startswith(f"_l{layer.num_layers - 1}")
        with without_autocast(weight.device) if widened else nullcontext():
            problem = Problem.of(
                layer.cell(),
                factored_by(rule),
                weight,
                bool(layer.proj_size),
                one_step,
                layer.hidden_size,
                batch,
            )
            lines.append(
                f"  {suffix[1:]}: {kernels.choose(problem).name}, {_what(rule, width, layer, weight)}"
            )
            lines += [f"    not {name}: {reason}" for name, reason in kernels.reasons(problem)]
    return "\n".join(lines)


def _batch(layer: RecurrentLayer, x: Tensor | PackedSequence) -> int:
    if isinstance(x, PackedSequence):
        return int(x.batch_sizes[0])
    return 1 if x.dim() == 2 else x.shape[0 if layer.batch_first else 1]


def factored_by(rule: Rule | None) -> bool:
    """Whether a layer with this rule gives a backend features and a matrix, not ready gate inputs."""
    return rule is None or rule.commutes or rule.velocity == "hidden"


def _what(rule: Rule | None, width: int, layer: RecurrentLayer, weight: Tensor) -> str:
    if rule is None:
        return f"over x ({width} channels)"
    if rule.commutes:
        features, channels = ("[x, 1]", width + 1) if layer.bias else ("x", width)
        return f"over {features} filtered by the rule ({channels} channels)"
    runner = kernels.rule_backend(weight) if has_kernels(rule) else None
    by = "" if runner is None else f" by {runner}"
    space = "hidden" if rule.velocity == "hidden" else "gate"
    return f"over the rule's result{by} in {space} space ({layer.channels(rule)} channels)"
