"""Momentum rules: what turns a layer's drive a_t = W x_t + b into its gate input d_t."""

from momentumrnn.rules.adam import Adam, AdamState, RMSProp, RMSPropState
from momentumrnn.rules.aggregated import AggMo, AggMoState
from momentumrnn.rules.base import LinearRule, Rule, RuleState
from momentumrnn.rules.complex_momentum import ComplexMomentum, ComplexMomentumState
from momentumrnn.rules.filters import FilterRule
from momentumrnn.rules.heavy_ball import HeavyBall, HeavyBallState
from momentumrnn.rules.nesterov import Nesterov, NesterovState, ScheduledRestart
from momentumrnn.rules.quasi_hyperbolic import QHM, QHMState
from momentumrnn.rules.starts import UNIT, Angles, Start, Timescales

__all__ = [
    "QHM",
    "UNIT",
    "Adam",
    "AdamState",
    "AggMo",
    "AggMoState",
    "Angles",
    "ComplexMomentum",
    "ComplexMomentumState",
    "FilterRule",
    "HeavyBall",
    "HeavyBallState",
    "LinearRule",
    "Nesterov",
    "NesterovState",
    "QHMState",
    "RMSProp",
    "RMSPropState",
    "Rule",
    "RuleState",
    "ScheduledRestart",
    "Start",
    "Timescales",
]
