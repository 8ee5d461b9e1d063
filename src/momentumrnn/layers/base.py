"""What RNN, LSTM and GRU share: parameters, states, and the stack of layers and directions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from momentumrnn.errors import InputError, warn
from momentumrnn.kernels import GateInput
from momentumrnn.kernels.problem import Cell, eager
from momentumrnn.layers import checks
from momentumrnn.layers.input_stage import gate_input
from momentumrnn.layers.layout import Layout
from momentumrnn.layers.rule_owner import RuleOwner
from momentumrnn.rules import FilterRule, LinearRule, Rule, RuleState
from momentumrnn.rules.scan import without_autocast

__all__ = ["RecurrentLayer"]

_AS_IT_IS = nullcontext()


class RecurrentLayer(RuleOwner, ABC):
    """A stack of recurrent layers behind a momentum rule, with the contract of ``torch.nn.RNNBase``.

    A subclass says how many gates it has and how one layer runs in one direction.

    Attributes:
        rule: the rule of the first layer, or ``None``; those of the others are ``rule_l1``,
            ``rule_l0_reverse`` and so on, named like the weights. ``layer.rule = rules.HeavyBall(0.9, 0.1)``
            gives every layer and direction a copy, ``None`` takes the rule off, and
            ``layer.rule.momentum = 0.7`` sets a fixed coefficient in all of them.
    """

    state_names: ClassVar[tuple[str, ...]] = ("h_0",)
    # Calls with a state whose momentum is not carried that are still looked at, before no warning is due.
    _unchecked_states: int = 3

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
        input_size, hidden_size, num_layers, proj_size = checks.check_arguments(
            owner,
            input_size,
            hidden_size,
            num_layers,
            dropout,
            proj_size,
            bias=bias,
            batch_first=batch_first,
            bidirectional=bidirectional,
            carry_momentum=carry_momentum,
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
        self._bind_rule(rule)
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
        return [[self._tensor(name) for name in names] for names in self._all_weights]

    @property
    def _all_weights(self) -> list[list[str]]:
        # Code written for torch.nn goes through the weights by these names.
        return [[name + suffix for name in self._shapes(width, self.rule)] for suffix, width in self.places()]

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

    def get_expected_hidden_size(self, input: Tensor, batch_sizes: Tensor | None) -> tuple[int, int, int]:
        """Return the shape of h_0 for a batch, or for the rows of a packed one, as ``torch.nn`` does."""
        if batch_sizes is not None:
            batch = int(batch_sizes[0])
        else:
            batch = input.size(0) if self.batch_first else input.size(1)
        return self.num_layers * self._directions, batch, self._output_size

    def check_hidden_size(
        self,
        hx: Tensor,
        expected_hidden_size: tuple[int, int, int],
        msg: str = "Expected hidden size {}, got {}",
    ) -> None:
        """Raise ``InputError`` unless a state has the shape expected, as ``torch.nn`` does."""
        if tuple(hx.shape) != tuple(expected_hidden_size):
            raise InputError(msg.format(tuple(expected_hidden_size), list(hx.shape)))

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        """Raise ``InputError`` unless the layer can run on a batch with a state, as ``torch.nn`` does.

        Args:
            input: (T, B, d), (B, T, d) with ``batch_first``, or the rows (N, d) of a packed batch.
            hidden: h_0, or the tuple of tensors that the layer's state is.
            batch_sizes: those of a packed batch, or ``None``.
        """
        checks.check_input(
            type(self).__name__,
            input,
            self.input_size,
            self._tensor("weight_ih_l0"),
            (3,) if batch_sizes is None else (2,),
        )
        layers, batch, width = self.get_expected_hidden_size(input, batch_sizes)
        states = hidden if isinstance(hidden, tuple | list) else (hidden,)
        for name, state in zip(self.state_names, states, strict=False):
            size = self.hidden_size if name == "c_0" else width
            self.check_hidden_size(state, (layers, batch, size), f"Expected {name} size {{}}, got {{}}")

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """Return a state, or a tuple of them, with its sequences in another order, as ``torch.nn`` does."""
        if permutation is None:
            return hx
        if isinstance(hx, Tensor):
            return hx.index_select(hx.dim() - 2, permutation)
        permuted = [self.permute_hidden(state, permutation) for state in hx]
        return type(hx)(*permuted) if hasattr(hx, "_fields") else tuple(permuted)

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
        drive = self._drive_size(rule)
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (drive, width),
            "weight_hh": (gates, self._output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (drive,), "bias_hh": (gates,)}
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        return shapes

    def _rule_names(self) -> dict[str, str]:
        return {"rule" + suffix: "weight_ih" + suffix for suffix, _ in self.places()}

    def _drive_size(self, rule: Rule | None) -> int:
        return self._gates * self.hidden_size if rule is None else self.channels(rule)

    def _rule(self, suffix: str) -> Rule | None:
        modules: dict[str, Any] = self._modules
        rule: Rule | None = modules.get("rule" + suffix)
        return rule

    def _tensor(self, name: str) -> Tensor:
        # Not get_parameter: functional_call and torch.nn.utils.parametrize put plain tensors here.
        value: Tensor = getattr(self, name)
        return value

    def _tensor_like(self, weight_hh: Tensor, name: str) -> Tensor | None:
        """Return a tensor of the layer, if it has it; in float32 where the recurrence widened U to that."""
        value: Tensor | None = getattr(self, name, None)
        if value is None or value.dtype is weight_hh.dtype:
            return value
        # One of another dtype than all the others stays, and is refused where it is used.
        widened = value.dtype is self._tensor("weight_ih_l0").dtype
        return value.to(weight_hh.dtype) if widened else value

    @property
    def feeds_adaptive_rules(self) -> bool:
        """Whether one layer's output becomes the drive of a rule that is not linear.

        Adam and RMSProp turn an almost-zero drive into a full-size step whose sign depends on rounding. So
        such a stack runs in float32 at least, and under autocast every layer but the last does.
        """
        linear = self.rule is None or isinstance(self.rule, LinearRule | FilterRule)
        return self.num_layers > 1 and not linear

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
        feeds = self.num_layers > 1 and self.feeds_adaptive_rules
        narrow = data.dtype if feeds and data.dtype in (torch.float16, torch.bfloat16) else None
        data = data if narrow is None else data.float()
        initial = self._initial_states(states, layout, data)
        if self._unchecked_states and states[0] is not None and not self.carry_momentum:
            self._warn_of_lost_momentum(states[0])
        momentum = self._initial_momentum(momentum, layout)

        finals: list[tuple[Tensor, ...]] = []
        momenta: list[RuleState] = []
        modules: Any = self._modules
        directions = self._directions
        for layer in range(self.num_layers):
            outputs = []
            for direction in range(directions):
                k = layer * directions + direction
                suffix = self._suffixes[k]
                weight_hh = self._weight_hh(suffix)
                if weight_hh.device != data.device:
                    raise InputError(
                        f"{type(self).__name__}: expected weight_hh{suffix} on {data.device}, as the input, "
                        f"got {weight_hh.device}; move the layer as a whole with .to(device)"
                    )
                # Not get_parameter: functional_call and parametrizations put plain tensors here.
                weight_ih = getattr(self, "weight_ih" + suffix)
                bias_ih = getattr(self, "bias_ih" + suffix) if self.bias else None
                if narrow is not None:
                    weight_hh, weight_ih = weight_hh.float(), weight_ih.float()
                    bias_ih = None if bias_ih is None else bias_ih.float()
                with without_autocast(data.device) if feeds and layer < self.num_layers - 1 else _AS_IT_IS:
                    inputs, velocity = gate_input(
                        layout.reverse(data) if direction else data,
                        weight_ih,
                        bias_ih,
                        weight_hh,
                        # Not getattr, for which a plain layer would raise and catch an error.
                        modules.get("rule" + suffix),
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

        if feeds:
            data = data if narrow is None else data.to(narrow)
            finals = [tuple(state.to(data.dtype) for state in final) for final in finals]
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
            initial.append(layout.read_state(state).to(data.dtype).unbind())
        return list(zip(*initial, strict=True))

    def _initial_momentum(self, momentum: RuleState, layout: Layout) -> RuleState:
        if momentum is None or self.rule is None:
            return None
        depth = self.num_layers * self._directions
        momentum = self.rule.as_state(momentum)
        lead = (depth,) if layout.unbatched else (depth, layout.batch)
        weight = self._tensor("weight_ih_l0")
        checks.check_momentum(
            type(self).__name__, momentum, self.rule, lead, self.channels(self.rule), weight
        )
        return type(momentum)(*(layout.read_state(tensor) for tensor in momentum))

    def _warn_of_lost_momentum(self, h_0: Tensor) -> None:
        """Warn once where a state that is not zero is given to a layer that starts its momentum anew."""
        # What is being traced, compiled or transformed has no number to look at.
        if self.rule is None or type(h_0) not in (Tensor, nn.Parameter) or h_0.is_meta or not eager():
            return
        self._unchecked_states -= 1
        if bool((h_0 != 0).any()):
            self._unchecked_states = 0
            warn(
                f"{type(self).__name__}: got an initial hidden state, but the momentum starts at zero. If "
                "the state continues a sequence, make the layer with carry_momentum=True. Its state then "
                "holds the momentum too, and chunks of a sequence equal the whole. Otherwise ignore this "
                "warning, which each layer gives once."
            )

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
