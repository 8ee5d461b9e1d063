"""The plain recurrent layer."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from momentumrnn import kernels
from momentumrnn.kernels import GateInput
from momentumrnn.kernels.problem import Cell
from momentumrnn.layers import checks
from momentumrnn.layers.base import RecurrentLayer
from momentumrnn.rules import Rule

__all__ = ["RNN"]

Nonlinearity = Literal["tanh", "relu", "modrelu"]


class RNN(RecurrentLayer):
    r"""A recurrent layer, stacked and in both directions if wanted, behind a momentum rule.

    For every step, with the paper's (1) where ``rule=None`` and (9) with heavy-ball momentum,

        a_t = W x_t + bias_ih
        d_t = rule(a_0 … a_t)
        h_t = σ(U h_{t-1} + bias_hh + d_t)

    A drop-in for ``torch.nn.RNN``: positional arguments, shapes, parameter names and, with
    ``rule=None``, results are its own.

    Args:
        input_size: d, features of the input.
        hidden_size: h, features of the hidden state.
        num_layers: layers stacked on one another, each with the rule on its own input.
        nonlinearity: σ: ``"tanh"``, ``"relu"``, or ``"modrelu"``, sign(x) · relu(abs(x) + b) with a
            learned b.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches are (B, T, d) instead of (T, B, d).
        dropout: dropout on the output of each layer but the last.
        bidirectional: whether a second direction runs over every sequence backwards.
        device: where the parameters are made.
        dtype: what they are made of.
        rule: one of ``momentumrnn.rules``, or ``None``; every layer and direction gets a copy.
        carry_momentum: whether the rule's state is part of the layer's state.

    **Inputs**: input, hx

    - **input**: (T, B, d), (B, T, d) with ``batch_first``, (T, d) unbatched, or a
      ``PackedSequence``; T >= 1; of the weights' dtype and device.
    - **hx**: ``None`` for zeros, or h_0, (layers · directions, B, h), without B if unbatched.
      With ``carry_momentum``, (h_0, m_0); m_0 may be ``None``.

    **Outputs**: output, h_n

    - **output**: (T, B, directions · h), or in the input's layout.
    - **h_n**: as h_0. With ``carry_momentum``, (h_n, m_n): m_n is the rule's NamedTuple, each
      tensor stacked over layers and directions like h_n.

    Weights:
        - **weight_ih_l[k]**: W, (h, d), or (h, directions · h) above the first layer.
        - **weight_hh_l[k]**: U, (h, h).
        - **bias_ih_l[k]**, **bias_hh_l[k]**: (h,). The rule acts on ``bias_ih``, not on ``bias_hh``.
        - **modrelu_bias_l[k]**: (h,), with modrelu.

    Raises:
        InputError: an input or state of the wrong shape, dtype or device, or an empty sequence.
        ValueError: arguments outside their range.
        TypeError: arguments of the wrong type.

    Example:
        >>> import torch
        >>> from momentumrnn import RNN, rules
        >>> layer = RNN(10, 20, rule=rules.HeavyBall(momentum=0.6, step_size=0.6))
        >>> output, h_n = layer(torch.randn(5, 3, 10))
        >>> output.shape, h_n.shape
        (torch.Size([5, 3, 20]), torch.Size([1, 3, 20]))
    """

    @checks.without_projection
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rule: Rule | None = None,
        carry_momentum: bool = False,
    ) -> None:
        if nonlinearity not in ("tanh", "relu", "modrelu"):
            raise ValueError(
                f'{type(self).__name__}: expected nonlinearity "tanh", "relu" or "modrelu", '
                f"got {nonlinearity!r}"
            )
        self.nonlinearity: Nonlinearity = nonlinearity
        super().__init__(
            1,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            0,
            device,
            dtype,
            rule=rule,
            carry_momentum=carry_momentum,
        )

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """Run the layer; see the class for shapes."""
        h_0, momentum = self._split_state(hx)
        output, (h_n,), momentum = self._run(input, (h_0,), momentum)
        return output, (h_n, momentum) if self.carry_momentum else h_n

    def reset_parameters(self) -> None:
        """Draw every weight from U(-1/√h, 1/√h), and a modrelu's bias from U(-0.01, 0.01)."""
        super().reset_parameters()
        if self.nonlinearity == "modrelu":
            for suffix, _ in self.places():
                nn.init.uniform_(self._tensor("modrelu_bias" + suffix), -0.01, 0.01)

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        return shown if self.nonlinearity == "tanh" else f"{shown}, nonlinearity={self.nonlinearity!r}"

    def _shapes(self, width: int, rule: Rule | None) -> dict[str, tuple[int, ...]]:
        shapes = super()._shapes(width, rule)
        return shapes | {"modrelu_bias": (self.hidden_size,)} if self.nonlinearity == "modrelu" else shapes

    def cell(self) -> Cell:
        cells: dict[Nonlinearity, Cell] = {"tanh": "rnn_tanh", "relu": "rnn_relu", "modrelu": "rnn_modrelu"}
        return cells[self.nonlinearity]

    def _recur(
        self, inputs: GateInput, states: tuple[Tensor, ...], weight_hh: Tensor, suffix: str
    ) -> tuple[Tensor, ...]:
        bias_hh = self._tensor_like(weight_hh, "bias_hh" + suffix)
        modrelu_bias = self._tensor_like(weight_hh, "modrelu_bias" + suffix)
        (h_0,) = states
        return kernels.rnn(inputs, h_0, weight_hh, bias_hh, self.nonlinearity, modrelu_bias)
