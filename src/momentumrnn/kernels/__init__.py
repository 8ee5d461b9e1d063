"""The recurrences, given what enters the gates: one signature each, the same in every backend."""

from momentumrnn.kernels.channel_filter import channel_filter
from momentumrnn.kernels.dispatch import (
    adaptive_rule,
    backend,
    choose,
    gru,
    lstm,
    observed,
    reasons,
    rnn,
    rule_backend,
    runs_rules,
)
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.linear import linear_filter
from momentumrnn.kernels.problem import Problem, transforms

__all__ = [
    "GateInput",
    "Problem",
    "adaptive_rule",
    "backend",
    "channel_filter",
    "choose",
    "gru",
    "linear_filter",
    "lstm",
    "observed",
    "reasons",
    "rnn",
    "rule_backend",
    "runs_rules",
    "transforms",
]
