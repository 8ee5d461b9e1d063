"""For backends that run every cell by one recurrence: ``rnn``, ``gru`` and ``lstm``, in terms of it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from momentumrnn.kernels.gate_input import GateInput

__all__ = ["AnyCell", "Recurrences"]


class AnyCell(Protocol):
    """A recurrence of any cell: the output, h_n and c_n; cells without c have none to read in the last."""

    def __call__(
        self,
        cell: str,
        inputs: GateInput,
        weight_hh: Tensor,
        bias_hh: Tensor | None,
        modrelu_bias: Tensor | None,
        h_0: Tensor,
        c_0: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run it."""


class Recurrences:
    """What a backend offers the layers.

    Args:
        run: Its recurrence.
    """

    def __init__(self, run: AnyCell) -> None:
        self._run = run

    def rnn(
        self,
        inputs: GateInput,
        h_0: Tensor,
        weight_hh: Tensor,
        bias_hh: Tensor | None,
        nonlinearity: str,
        modrelu_bias: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Run the RNN; arguments and result as in ``momentumrnn.kernels.reference.rnn``."""
        cell = f"rnn_{nonlinearity}"
        output, h_n, _ = self._run(cell, inputs, weight_hh, bias_hh, modrelu_bias, h_0, None)
        return output, h_n

    def gru(
        self, inputs: GateInput, h_0: Tensor, weight_hh: Tensor, bias_hh: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run the GRU; arguments and result as in ``momentumrnn.kernels.reference.gru``."""
        output, h_n, _ = self._run("gru", inputs, weight_hh, bias_hh, None, h_0, None)
        return output, h_n

    def lstm(
        self,
        inputs: GateInput,
        h_0: Tensor,
        c_0: Tensor,
        weight_hh: Tensor,
        bias_hh: Tensor | None,
        weight_hr: Tensor | None,
        forget_gate: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the LSTM; arguments and result as in ``momentumrnn.kernels.reference.lstm``."""
        cell = "lstm" if forget_gate else "lstm_without_forget_gate"
        return self._run(cell, inputs, weight_hh, bias_hh, None, h_0, c_0)
