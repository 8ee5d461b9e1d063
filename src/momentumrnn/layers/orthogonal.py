"""The recurrent layer whose recurrent matrix is orthogonal."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from momentumrnn import kernels
from momentumrnn.kernels import GateInput
from momentumrnn.kernels.problem import Cell
from momentumrnn.layers.base import RecurrentLayer
from momentumrnn.parametrizations import Orthogonal
from momentumrnn.parametrizations.initialisation import Start
from momentumrnn.parametrizations.maps import Map
from momentumrnn.rules import Rule

__all__ = ["OrthogonalRNN", "OrthogonalWeights"]


class OrthogonalWeights(nn.Module):
    """Gives ``weight_hh…`` the value of the module ``orthogonal…`` of the same layer and direction."""

    def matrix_for(self, name: str) -> Tensor:
        """Return U for the name ``weight_hh…``."""
        matrix: Any = self._modules[_module_of(name)]
        current: Tensor = matrix()
        return current

    def __getattr__(self, name: str) -> Any:
        if name.startswith("weight_hh") and _module_of(name) in self.__dict__.get("_modules", ()):
            return self.matrix_for(name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        modules = self.__dict__.get("_modules", {}) if name.startswith("weight_hh") else {}
        matrix: Any = modules.get(_module_of(name))
        if matrix is not None:
            matrix.assign(value)
        else:
            super().__setattr__(name, value)


def _module_of(name: str) -> str:
    return "orthogonal" + name.removeprefix("weight_hh")


class OrthogonalRNN(OrthogonalWeights, RecurrentLayer):
    r"""A recurrent layer with an orthogonal recurrent matrix, behind a momentum rule.

    For every step, with heavy-ball momentum (9) of the paper for this cell,

        a_t = W x_t + bias_ih
        d_t = rule(a_0 … a_t)
        h_t = modrelu(U h_{t-1} + bias_hh + d_t),  modrelu(x) = sign(x) · relu(abs(x) + b)
        U = B φ(A - Aᵀ)

    with A strictly upper triangular, φ the matrix exponential (expRNN, DTRIV) or scoRNN's Cayley map, and
    B the base: fixed, or changed by itself as the layer is trained (DTRIV), see
    ``momentumrnn.parametrizations.Orthogonal``. U is computed once a call of the layer.

    Args:
        input_size: d, features of the input.
        hidden_size: h, features of the hidden state.
        num_layers: layers stacked on one another, each with the rule on its own input.
        bias: whether there are ``bias_ih`` and ``bias_hh``; the paper has none.
        batch_first: whether batches are (B, T, d) instead of (T, B, d).
        dropout: dropout on the output of each layer but the last.
        bidirectional: whether a second direction runs over every sequence backwards.
        device: where the parameters are made.
        dtype: what they are made of.
        map: φ: ``"exp"`` or ``"cayley"``.
        rebase_every: ``None`` for a fixed base; K to change it every K steps of the optimizer; ``math.inf``
            to change it once, after the first step.
        init: how A and B start: ``"cayley"``, ``"henaff"``, ``"haar"`` or ``"identity"``.
        rule: one of ``momentumrnn.rules``, or ``None``; every layer and direction gets a copy.
        carry_momentum: whether the rule's state is part of the layer's state.

    Inputs, outputs: those of ``momentumrnn.RNN``.

    Weights:
        - **weight_ih_l[k]**: W, (h, d), or (h, directions · h) above the first layer: Kaiming-normal.
        - **orthogonal_l[k].skew**: A's entries above the diagonal, (h (h - 1) / 2,).
        - **orthogonal_l[k].base**: B, (h, h), a buffer.
        - **modrelu_bias_l[k]**: b, (h,), from U[-0.01, 0.01].
        - **bias_ih_l[k]**, **bias_hh_l[k]**: (h,), zero at first, with ``bias``.
        - **weight_hh_l[k]**: U as it is now, (h, h), computed when it is read. Assigning an orthogonal
          matrix makes it the base.

    For two learning rates see ``momentumrnn.parameter_groups``.

    Raises:
        InputError: an input or state of the wrong shape, dtype or device, or an empty sequence.
        ValueError: arguments outside their range.
        TypeError: arguments of the wrong type.

    Example:
        >>> import torch
        >>> from momentumrnn import OrthogonalRNN, rules
        >>> layer = OrthogonalRNN(10, 20, rebase_every=100, rule=rules.HeavyBall(0.3, 0.3))
        >>> output, h_n = layer(torch.randn(5, 3, 10))
        >>> output.shape, h_n.shape
        (torch.Size([5, 3, 20]), torch.Size([1, 3, 20]))
        >>> torch.testing.assert_close(layer.weight_hh_l0 @ layer.weight_hh_l0.t(), torch.eye(20))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        map: Map = "exp",
        rebase_every: float | None = None,
        init: Start = "cayley",
        rule: Rule | None = None,
        carry_momentum: bool = False,
    ) -> None:
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
        for suffix, _ in self.places():
            matrix = Orthogonal(hidden_size, map, rebase_every, init, device, dtype)
            self.add_module("orthogonal" + suffix, matrix)

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """Run the layer; see the class for shapes."""
        h_0, momentum = self._split_state(hx)
        output, (h_n,), momentum = self._run(input, (h_0,), momentum)
        return output, (h_n, momentum) if self.carry_momentum else h_n

    def reset_parameters(self) -> None:
        """Draw every weight anew, and put the rules to their start."""
        for suffix, _ in self.places():
            nn.init.kaiming_normal_(self._tensor("weight_ih" + suffix), nonlinearity="relu")
            nn.init.uniform_(self._tensor("modrelu_bias" + suffix), -0.01, 0.01)
            for name in ("bias_ih", "bias_hh") if self.bias else ():
                nn.init.zeros_(self._tensor(name + suffix))
            if (rule := self._rule(suffix)) is not None:
                rule.reset_parameters()
        for suffix, _ in self.places():
            matrix: Any = self._modules.get("orthogonal" + suffix)
            # Made after everything else, and drawn in the same order here.
            if matrix is not None:
                matrix.reset_parameters()

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        return shown if self.bias else shown.replace(", bias=False", "")

    def _shapes(self, width: int, rule: Rule | None) -> dict[str, tuple[int, ...]]:
        shapes = super()._shapes(width, rule)
        # It is a module, and no parameter.
        del shapes["weight_hh"]
        return shapes | {"modrelu_bias": (self.hidden_size,)}

    def cell(self) -> Cell:
        return "rnn_modrelu"

    def _recur(
        self, inputs: GateInput, states: tuple[Tensor, ...], weight_hh: Tensor, suffix: str
    ) -> tuple[Tensor, ...]:
        bias_hh = self._tensor_like(weight_hh, "bias_hh" + suffix)
        (h_0,) = states
        return kernels.rnn(
            inputs, h_0, weight_hh, bias_hh, "modrelu", self._tensor_like(weight_hh, "modrelu_bias" + suffix)
        )
