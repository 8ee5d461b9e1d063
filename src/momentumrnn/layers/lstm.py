"""Long short-term memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from momentumrnn import kernels
from momentumrnn.kernels import GateInput
from momentumrnn.kernels.problem import Cell
from momentumrnn.layers import checks
from momentumrnn.layers.base import RecurrentLayer
from momentumrnn.rules import Rule

__all__ = ["LSTM"]


class LSTM(RecurrentLayer):
    r"""Long short-term memory, stacked and in both directions if wanted, behind a momentum rule.

    For every step, with a_t = W x_t + bias_ih and d_t = rule(a_0 … a_t) in the place of a_t (9),

        i_t = sigmoid(d_t^i + U_i h_{t-1} + b_i)        f_t = sigmoid(d_t^f + U_f h_{t-1} + b_f)
        g_t = tanh(d_t^g + U_g h_{t-1} + b_g)           o_t = sigmoid(d_t^o + U_o h_{t-1} + b_o)
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t                 h_t = o_t ⊙ tanh(c_t)

    where b is ``bias_hh``. A drop-in for ``torch.nn.LSTM``: positional arguments, shapes,
    parameter names and, with ``rule=None``, results are its own; ``load_state_dict`` takes its
    weights.

    Args:
        input_size: d, features of the input.
        hidden_size: h, features of the hidden state.
        num_layers: layers stacked on one another, each with the rule on its own input.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        batch_first: whether batches are (B, T, d) instead of (T, B, d).
        dropout: dropout on the output of each layer but the last.
        bidirectional: whether a second direction runs over every sequence backwards.
        proj_size: where above 0, h_t is projected to this many features, as in ``torch.nn.LSTM``.
        device: where the parameters are made.
        dtype: what they are made of.
        rule: one of ``momentumrnn.rules``, or ``None``; every layer and direction gets a copy.
        carry_momentum: whether the rule's state is part of the layer's state.
        forget_gate: ``False`` for the original LSTM (2): gates i, g, o and c_t = c_{t-1} + i_t ⊙ g_t.
        weight_dropout: DropConnect on U: in training each call drops every entry with this
            probability, one mask for all its steps, and scales the rest by 1/(1 - probability).

    **Inputs**: input, hx

    - **input**: (T, B, d), (B, T, d) with ``batch_first``, (T, d) unbatched, or a
      ``PackedSequence``; T >= 1; of the weights' dtype and device.
    - **hx**: ``None`` for zeros, or (h_0, c_0): (layers · directions, B, proj_size or h) and
      (layers · directions, B, h), without B if unbatched. With ``carry_momentum``,
      (h_0, c_0, m_0); m_0 may be ``None``.

    **Outputs**: output, (h_n, c_n)

    - **output**: (T, B, directions · (proj_size or h)), or in the input's layout.
    - **h_n, c_n**: as h_0, c_0. With ``carry_momentum``, (h_n, c_n, m_n): m_n is the rule's
      NamedTuple, each tensor stacked over layers and directions like h_n. Given back with the
      next chunk of a sequence it makes the chunks equal the whole.

    Weights:
        - **weight_ih_l[k]**: W, (G·h, d), above the first layer (G·h, directions · (proj_size or h)).
          G = 4, gates in the order i, f, g, o; or 3 without forget gate, i, g, o. In hidden velocity
          the first size is proj_size or h.
        - **weight_hh_l[k]**: U, (G·h, proj_size or h).
        - **bias_ih_l[k]**: of W's first size; the rule acts on it.
        - **bias_hh_l[k]**: (G·h,); the rule does not act on it.
        - **weight_hr_l[k]**: (proj_size, h), with a projection.
        - those of a second direction end in ``_reverse``.

    Raises:
        InputError: an input or state of the wrong shape, dtype or device, or an empty sequence.
        ValueError: arguments outside their range.
        TypeError: arguments of the wrong type, or a state that is no such tuple.

    Example:
        >>> import torch
        >>> from momentumrnn import LSTM, rules
        >>> layer = LSTM(64, 256, rule=rules.Adam(momentum=0.6, step_size=1.0, beta=0.01))
        >>> output, (h_n, c_n) = layer(torch.randn(5, 3, 64))
        >>> output.shape, h_n.shape, c_n.shape
        (torch.Size([5, 3, 256]), torch.Size([1, 3, 256]), torch.Size([1, 3, 256]))
    """

    state_names = ("h_0", "c_0")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rule: Rule | None = None,
        carry_momentum: bool = False,
        forget_gate: bool = True,
        weight_dropout: float = 0.0,
    ) -> None:
        checks.check_probability(type(self).__name__, "weight_dropout", weight_dropout)
        checks.check_flags(type(self).__name__, forget_gate=forget_gate)
        super().__init__(
            4 if forget_gate else 3,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            rule=rule,
            carry_momentum=carry_momentum,
        )
        self.forget_gate = forget_gate
        self.weight_dropout = float(weight_dropout)

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """Run the layer; see the class for shapes."""
        h_0, c_0, momentum = self._split_state(hx)
        output, (h_n, c_n), momentum = self._run(input, (h_0, c_0), momentum)
        return output, (h_n, c_n, momentum) if self.carry_momentum else (h_n, c_n)

    def get_expected_cell_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """Return the shape of c_0 for a batch, or for the rows of a packed one, as ``torch.nn`` does."""
        layers, batch, _ = self.get_expected_hidden_size(input, batch_sizes)
        return layers, batch, self.hidden_size

    def extra_repr(self) -> str:
        parts = [super().extra_repr()]
        parts += [] if self.forget_gate else ["forget_gate=False"]
        parts += [f"weight_dropout={self.weight_dropout}"] if self.weight_dropout else []
        return ", ".join(parts)

    def _split_state(self, hx: Any) -> tuple[Any, ...]:
        names = "(h_0, c_0, m_0), m_0 None for the start" if self.carry_momentum else "(h_0, c_0)"
        size = 3 if self.carry_momentum else 2
        if hx is None:
            return None, None, None
        if not self.carry_momentum:
            checks.refuse_momentum(type(self).__name__, hx, names)
        if not isinstance(hx, tuple | list) or len(hx) != size:
            raise TypeError(
                f"{type(self).__name__}: expected the state to be a tuple {names}, got {checks.describe(hx)}"
            )
        return (*hx, None)[:3]

    def cell(self) -> Cell:
        return "lstm" if self.forget_gate else "lstm_without_forget_gate"

    def _weight_hh(self, suffix: str) -> Tensor:
        weight_hh = super()._weight_hh(suffix)
        return F.dropout(weight_hh, self.weight_dropout, self.training) if self.weight_dropout else weight_hh

    def _recur(
        self, inputs: GateInput, states: tuple[Tensor, ...], weight_hh: Tensor, suffix: str
    ) -> tuple[Tensor, ...]:
        h_0, c_0 = states
        return kernels.lstm(
            inputs,
            h_0,
            c_0,
            weight_hh,
            self._tensor_like(weight_hh, "bias_hh" + suffix),
            self._tensor_like(weight_hh, "weight_hr" + suffix) if self.proj_size else None,
            self.forget_gate,
        )
