"""Momentum rules: what turns a layer's drive a_t = W x_t + b into its gate input d_t."""

from momentumrnn.rules.adam import Adam, AdamState, RMSProp, RMSPropState
from momentumrnn.rules.base import LinearRule, Rule, RuleState
from momentumrnn.rules.heavy_ball import HeavyBall, HeavyBallState
from momentumrnn.rules.nesterov import Nesterov, NesterovState, ScheduledRestart

__all__ = [
    "Adam",
    "AdamState",
    "HeavyBall",
    "HeavyBallState",
    "LinearRule",
    "Nesterov",
    "NesterovState",
    "RMSProp",
    "RMSPropState",
    "Rule",
    "RuleState",
    "ScheduledRestart",
]
