"""The gated recurrent unit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from momentumrnn import kernels
from momentumrnn.kernels import GateInput
from momentumrnn.kernels.problem import Cell
from momentumrnn.layers import checks
from momentumrnn.layers.base import RecurrentLayer
from momentumrnn.rules import Rule

__all__ = ["GRU"]


class GRU(RecurrentLayer):
    r"""A gated recurrent unit, stacked and in both directions if wanted, behind a momentum rule.

    For every step, with a_t = W x_t + bias_ih and d_t = rule(a_0 … a_t) in the place of a_t (9),

        r_t = sigmoid(d_t^r + U_r h_{t-1} + b_r)
        z_t = sigmoid(d_t^z + U_z h_{t-1} + b_z)
        n_t = tanh(d_t^n + r_t ⊙ (U_n h_{t-1} + b_n))
        h_t = (1 - z_t) ⊙ n_t + z_t ⊙ h_{t-1}

    where b is ``bias_hh``. A drop-in for ``torch.nn.GRU``: positional arguments, shapes,
    parameter names and, with ``rule=None``, results are its own. In hidden velocity (10), U d_t
    stands where W x_t + bias_ih would: outside the product with r_t.

    Args:
        input_size: d, features of the input.
        hidden_size: h, features of the hidden state.
        num_layers: layers stacked on one another, each with the rule on its own input.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches are (B, T, d) instead of (T, B, d).
        dropout: dropout on the output of each layer but the last.
        bidirectional: whether a second direction runs over every sequence backwards.
        device: where the parameters are made.
        dtype: what they are made of.
        rule: one of ``momentumrnn.rules``, or ``None``; every layer and direction gets a copy.
        carry_momentum: whether the rule's state is part of the layer's state.

    Inputs, outputs and errors are those of ``momentumrnn.RNN``.

    Weights:
        - **weight_ih_l[k]**: W, (3h, d), above the first layer (3h, directions · h), gates in the
          order r, z, n. In hidden velocity the first size is h.
        - **weight_hh_l[k]**: U, (3h, h).
        - **bias_ih_l[k]**: of W's first size; the rule acts on it.
        - **bias_hh_l[k]**: (3h,); the rule does not act on it.
        - those of a second direction end in ``_reverse``.

    Example:
        >>> import torch
        >>> from momentumrnn import GRU, rules
        >>> layer = GRU(10, 20, rule=rules.Nesterov(step_size=0.9), bidirectional=True)
        >>> output, h_n = layer(torch.randn(5, 3, 10))
        >>> output.shape, h_n.shape
        (torch.Size([5, 3, 40]), torch.Size([2, 3, 20]))
    """

    @checks.without_projection
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
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
        super().__init__(
            3,
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

    def cell(self) -> Cell:
        return "gru"

    def _recur(
        self, inputs: GateInput, states: tuple[Tensor, ...], weight_hh: Tensor, suffix: str
    ) -> tuple[Tensor, ...]:
        (h_0,) = states
        return kernels.gru(inputs, h_0, weight_hh, self._tensor_like(weight_hh, "bias_hh" + suffix))
