"""The recurrences, given what enters the gates: one signature each, the same in every backend."""

from momentumrnn.kernels.dispatch import backend, choose, gru, lstm, reasons, rnn
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.problem import Problem

__all__ = ["GateInput", "Problem", "backend", "choose", "gru", "lstm", "reasons", "rnn"]
