"""What RNN, LSTM and GRU share: parameters, states, and the stack of layers and directions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from momentumrnn.kernels import GateInput
from momentumrnn.kernels.problem import Cell
from momentumrnn.layers import checks
from momentumrnn.layers.input_stage import gate_input
from momentumrnn.layers.layout import Layout
from momentumrnn.rules import Rule, RuleState

__all__ = ["RecurrentLayer"]


class RecurrentLayer(nn.Module, ABC):
    """A stack of recurrent layers behind a momentum rule, with the contract of ``torch.nn.RNNBase``.

    A subclass says how many gates it has and how one layer runs in one direction.

    Attributes:
        rule: the rule of the first layer, or ``None``; those of the others are ``rule_l1``,
            ``rule_l0_reverse`` and so on, named like the weights.
    """

    state_names: ClassVar[tuple[str, ...]] = ("h_0",)

    def __init__(
        self,
        gates: int,
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
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        checks.check_arguments(
            owner, input_size, hidden_size, num_layers, dropout, proj_size, bias=bias, batch_first=batch_first
        )
        checks.check_rule(owner, rule, carry_momentum)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.carry_momentum = carry_momentum
        self._gates = gates
        self._output_size = proj_size or hidden_size
        self._directions = 2 if bidirectional else 1
        self._suffixes = tuple(suffix for suffix, _ in self.places())
        for suffix, width in self.places():
            for name, shape in self._shapes(width, rule).items():
                weight = torch.empty(shape, device=device, dtype=dtype)
                self.register_parameter(name + suffix, nn.Parameter(weight))
        if rule is not None:
            for suffix, _ in self.places():
                self.add_module("rule" + suffix, rule.bind(self.channels(rule), device, dtype))
        self.reset_parameters()

    @property
    def rule(self) -> Rule | None:
        """The rule of the first layer, or ``None``."""
        return self._rule("_l0")

    @property
    def mode(self) -> str:
        """The recurrence's name, as ``torch.nn`` writes it: ``LSTM``, ``GRU``, ``RNN_TANH``."""
        return self.cell().upper()

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """The weights of every layer and direction, in the order of ``torch.nn``."""
        return [
            [self._tensor(name + suffix) for name in self._shapes(width, self.rule)]
            for suffix, width in self.places()
        ]

    def flatten_parameters(self) -> None:
        """Do nothing: no copy of the weights is cached, so there is none to put in order.

        Here for code written for ``torch.nn``.
        """

    def reset_parameters(self) -> None:
        """Draw every weight from U(-1/√h, 1/√h), as ``torch.nn`` does, and put the rules to their start."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weights in self.all_weights:
            for weight in weights:
                nn.init.uniform_(weight, -bound, bound)
        for suffix, _ in self.places():
            if (rule := self._rule(suffix)) is not None:
                rule.reset_parameters()

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        defaults = {
            "proj_size": 0,
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
            "carry_momentum": False,
        }
        parts += [f"{k}={getattr(self, k)}" for k, v in defaults.items() if getattr(self, k) != v]
        return ", ".join(parts)

    def check_input(self, x: Tensor | PackedSequence) -> None:
        """Raise ``InputError`` unless the layer can run on ``x``."""
        weight = self._tensor("weight_ih_l0")
        checks.check_input(type(self).__name__, x, self.input_size, weight, (2, 3))
        if isinstance(x, Tensor):
            checks.check_length(type(self).__name__, x.shape[1 if x.dim() == 3 and self.batch_first else 0])

    def places(self) -> list[tuple[str, int]]:
        """Return the suffix of every layer and direction, in state order, and the width of its input."""
        suffixes = ("", "_reverse")[: self._directions]
        deep = self._output_size * self._directions
        return [
            (f"_l{layer}{suffix}", self.input_size if layer == 0 else deep)
            for layer in range(self.num_layers)
            for suffix in suffixes
        ]

    def channels(self, rule: Rule) -> int:
        """Return how many channels the rule acts on."""
        return self._output_size if rule.velocity == "hidden" else self._gates * self.hidden_size

    def _shapes(self, width: int, rule: Rule | None) -> dict[str, tuple[int, ...]]:
        """The parameters of one layer in one direction, whose input has ``width`` features."""
        gates = self._gates * self.hidden_size
        drive = gates if rule is None else self.channels(rule)
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (drive, width),
            "weight_hh": (gates, self._output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (drive,), "bias_hh": (gates,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return shapes

    def _rule(self, suffix: str) -> Rule | None:
        rule: Rule | None = getattr(self, "rule" + suffix, None)
        return rule

    def _tensor(self, name: str) -> Tensor:
        # Not get_parameter: functional_call and torch.nn.utils.parametrize put plain tensors here.
        value: Tensor = getattr(self, name)
        return value

    def _tensor_if_any(self, name: str) -> Tensor | None:
        value: Tensor | None = getattr(self, name, None)
        return value

    @abstractmethod
    def cell(self) -> Cell:
        """Return the recurrence's name, for the choice of a backend."""

    @abstractmethod
    def _recur(
        self, inputs: GateInput, states: tuple[Tensor, ...], weight_hh: Tensor, suffix: str
    ) -> tuple[Tensor, ...]:
        """Run one layer in one direction; return its output and its last states."""

    def _weight_hh(self, suffix: str) -> Tensor:
        return self._tensor("weight_hh" + suffix)

    def _run(
        self, x: Tensor | PackedSequence, states: tuple[Tensor | None, ...], momentum: RuleState
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, ...], RuleState]:
        """Run the whole stack.

        Args:
            x: the input, in any layout that ``torch.nn`` takes.
            states: the initial states as the user gave them, each may be ``None``.
            momentum: the momentum state as the user gave it, or ``None``.

        Returns:
            The output in the input's layout, the last states, and the last momentum state, stacked.
        """
        self.check_input(x)
        data, layout = Layout.read(x, self.batch_first)
        initial = self._initial_states(states, layout, data)
        momentum = self._initial_momentum(momentum, layout)

        finals: list[tuple[Tensor, ...]] = []
        momenta: list[RuleState] = []
        directions = self._directions
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                k = layer * directions + direction
                suffix = self._suffixes[k]
                weight_hh = self._weight_hh(suffix)
                inputs, velocity = gate_input(
                    layout.reverse(data) if direction else data,
                    self._tensor("weight_ih" + suffix),
                    self._tensor_if_any("bias_ih" + suffix),
                    weight_hh,
                    self._rule(suffix),
                    None if momentum is None else type(momentum)(*(m[k] for m in momentum)),
                    layout.packed,
                    self.carry_momentum,
                )
                output, *final = self._recur(inputs, initial[k], weight_hh, suffix)
                outputs.append(layout.reverse(output) if direction else output)
                finals.append(tuple(final))
                momenta.append(velocity)
            data = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
            if self.dropout and layer < self.num_layers - 1:
                data = F.dropout(data, self.dropout, self.training)

        last = tuple(layout.write_state(torch.stack(state)) for state in zip(*finals, strict=True))
        if self.carry_momentum:
            stacked = (torch.stack(tensors) for tensors in zip(*momenta, strict=True))
            momentum = type(momenta[0])(*(layout.write_state(tensor) for tensor in stacked))
        return layout.write(data), last, momentum

    def _initial_states(
        self, states: tuple[Tensor | None, ...], layout: Layout, data: Tensor
    ) -> list[tuple[Tensor, ...]]:
        """Return the states that each layer and direction starts from."""
        places = self.num_layers * self._directions
        initial: list[tuple[Tensor, ...]] = []
        zeros: Tensor | None = None
        for name, state in zip(self.state_names, states, strict=True):
            width = self.hidden_size if name == "c_0" else self._output_size
            if state is None:
                if zeros is None or zeros.shape[1] != width:
                    zeros = torch.zeros(layout.batch, width, dtype=data.dtype, device=data.device)
                initial.append((zeros,) * places)
                continue
            expected = (places, width) if layout.unbatched else (places, layout.batch, width)
            checks.check_state(type(self).__name__, name, state, expected, self._tensor("weight_ih_l0"))
            initial.append(layout.read_state(state).unbind())
        return list(zip(*initial, strict=True))

    def _initial_momentum(self, momentum: RuleState, layout: Layout) -> RuleState:
        if momentum is None or self.rule is None:
            return None
        depth = self.num_layers * self._directions
        lead = (depth,) if layout.unbatched else (depth, layout.batch)
        weight = self._tensor("weight_ih_l0")
        checks.check_momentum(
            type(self).__name__, momentum, self.rule, lead, self.channels(self.rule), weight
        )
        return type(momentum)(*(layout.read_state(tensor) for tensor in momentum))

    def _split_state(self, hx: Any) -> tuple[Tensor | None, RuleState]:
        """Take a single-tensor state apart: h_0, or (h_0, m_0) where momentum is carried."""
        if not self.carry_momentum or hx is None:
            checks.refuse_momentum(type(self).__name__, hx, "h_0")
            return hx, None
        if not isinstance(hx, tuple) or len(hx) != 2:
            raise TypeError(
                f"{type(self).__name__}: with carry_momentum=True the state is (h_0, m_0), m_0 None for "
                f"the start; got {checks.describe(hx)}"
            )
        return hx
