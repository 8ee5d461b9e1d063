"""Single-step cells: one call, one step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from momentumrnn import kernels
from momentumrnn.kernels import GateInput
from momentumrnn.layers import checks
from momentumrnn.layers.input_stage import gate_input_of_a_step
from momentumrnn.layers.rnn import Nonlinearity
from momentumrnn.layers.rule_owner import RuleOwner
from momentumrnn.rules import Rule, RuleState

__all__ = ["GRUCell", "LSTMCell", "RNNCell"]


class _RecurrentCell(RuleOwner, ABC):
    """What the three cells share. With a rule the state always carries the momentum."""

    state_names: ClassVar[tuple[str, ...]] = ("h_0",)
    bias_ih: nn.Parameter | None
    bias_hh: nn.Parameter | None

    def __init__(
        self,
        gates: int,
        input_size: int,
        hidden_size: int,
        bias: bool,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
        rule: Rule | None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        input_size, hidden_size = checks.check_sizes(
            owner, smallest=0, input_size=input_size, hidden_size=hidden_size
        )
        checks.check_flags(owner, bias=bias)
        checks.check_rule(owner, rule, False)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self._gates = gates
        channels = self._drive_size(rule)

        def make(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape, device=device, dtype=dtype))

        self.weight_ih = make(channels, input_size)
        self.weight_hh = make(gates * hidden_size, hidden_size)
        self.register_parameter("bias_ih", make(channels) if bias else None)
        self.register_parameter("bias_hh", make(gates * hidden_size) if bias else None)
        self._bind_rule(rule)

    @property
    def rule(self) -> Rule | None:
        """The rule, or ``None``; assign another to exchange it."""
        modules: dict[str, Any] = self._modules
        rule: Rule | None = modules.get("rule")
        return rule

    def _rule_names(self) -> dict[str, str]:
        return {"rule": "weight_ih"}

    def _drive_size(self, rule: Rule | None) -> int:
        hidden = rule is not None and rule.velocity == "hidden"
        return self.hidden_size if hidden else self._gates * self.hidden_size

    def reset_parameters(self) -> None:
        """Draw every weight from U(-1/√h, 1/√h), as ``torch.nn`` does, and put the rule to its start."""
        bound = 1.0 / math.sqrt(max(1, self.hidden_size))
        for weight in self.parameters(recurse=False):
            nn.init.uniform_(weight, -bound, bound)
        if self.rule is not None:
            self.rule.reset_parameters()

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")

    @abstractmethod
    def _recur(self, inputs: GateInput, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run one step; return its output and its last states."""

    def _run(self, x: Tensor, hx: tuple[Any, ...] | None) -> tuple[tuple[Tensor, ...], RuleState]:
        """Check, run one step, and return the new states and the rule's new state."""
        owner = type(self).__name__
        # Once each: a step is so short that looking them up in the module shows.
        weight_ih = self.weight_ih
        rule: Any = self._modules.get("rule")
        checks.check_input(owner, x, self.input_size, weight_ih, (1, 2))
        batched = x.dim() == 2
        rows = x if batched else x.unsqueeze(0)
        expected = len(self.state_names) + (rule is not None)
        if hx is None:
            hx = (None,) * expected
        if not isinstance(hx, tuple | list) or len(hx) != expected:
            names = [*self.state_names, *(["m_0"] if rule is not None else [])]
            raise TypeError(
                f"{owner}: expected the state to be a tuple ({', '.join(names)}), got {checks.describe(hx)}"
            )
        states = []
        shape = (x.shape[0], self.hidden_size) if batched else (self.hidden_size,)
        for name, state in zip(self.state_names, hx, strict=False):
            if state is None:
                states.append(rows.new_zeros(rows.shape[0], self.hidden_size))
                continue
            checks.check_state(owner, name, state, shape, weight_ih)
            states.append(state if batched else state.unsqueeze(0))
        momentum = None if rule is None else hx[-1]
        if momentum is not None and rule is not None:
            lead = (rows.shape[0],) if batched else ()
            momentum = rule.as_state(momentum)
            checks.check_momentum(owner, momentum, rule, lead, weight_ih.shape[0], weight_ih)
            momentum = momentum if batched else type(momentum)(*(m.unsqueeze(0) for m in momentum))
        if rule is None:
            inputs = GateInput(rows.unsqueeze(0), weight_ih, self.bias_ih)
        else:
            inputs, momentum = gate_input_of_a_step(
                rows, weight_ih, self.bias_ih, self.weight_hh, rule, momentum
            )
        last = self._recur(inputs, tuple(states))[1:]
        if not batched:
            last = tuple(state.squeeze(0) for state in last)
            momentum = None if momentum is None else type(momentum)(*(m.squeeze(0) for m in momentum))
        return last, momentum


class RNNCell(_RecurrentCell):
    r"""One step of ``momentumrnn.RNN``: h' = σ(U h + bias_hh + d), d = rule(W x + bias_ih), (9).

    With ``rule=None`` a drop-in for ``torch.nn.RNNCell``.

    Args:
        input_size: d.
        hidden_size: h.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        nonlinearity: ``"tanh"``, ``"relu"`` or ``"modrelu"``.
        device: where the parameters are made.
        dtype: what they are made of.
        rule: one of ``momentumrnn.rules``, or ``None``.

    **Inputs**: input (B, d) or (d,); hx, ``None`` for zeros, or h (B, h) or (h,). With a rule hx is
    (h, m), m the rule's NamedTuple with tensors (B, C), or ``None`` for the start.

    **Outputs**: h'; with a rule (h', m').

    Raises:
        InputError: an input or state of the wrong shape, dtype or device.
        TypeError: a state that is no such tuple.

    Example:
        >>> import torch
        >>> from momentumrnn import RNNCell, rules
        >>> cell, state = RNNCell(10, 20, rule=rules.HeavyBall(0.6, 0.6)), None
        >>> for x_t in torch.randn(6, 3, 10):
        ...     h, m = state = cell(x_t, state)
        >>> h.shape, m.velocity.shape
        (torch.Size([3, 20]), torch.Size([3, 20]))
    """

    modrelu_bias: nn.Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Nonlinearity = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rule: Rule | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu", "modrelu"):
            raise ValueError(
                f'{type(self).__name__}: expected nonlinearity "tanh", "relu" or "modrelu", '
                f"got {nonlinearity!r}"
            )
        super().__init__(1, input_size, hidden_size, bias, device, dtype, rule)
        self.nonlinearity: Nonlinearity = nonlinearity
        modrelu_bias = torch.empty(hidden_size, device=device, dtype=dtype)
        self.register_parameter(
            "modrelu_bias", nn.Parameter(modrelu_bias) if nonlinearity == "modrelu" else None
        )
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Run one step; see the class for shapes."""
        hx = (hx,) if self.rule is None and hx is not None else hx
        (h,), momentum = self._run(input, hx)
        return h if self.rule is None else (h, momentum)

    def reset_parameters(self) -> None:
        """Draw every weight from U(-1/√h, 1/√h), and a modrelu's bias from U(-0.01, 0.01)."""
        super().reset_parameters()
        if self.modrelu_bias is not None:
            nn.init.uniform_(self.modrelu_bias, -0.01, 0.01)

    def extra_repr(self) -> str:
        shown = super().extra_repr()
        return shown if self.nonlinearity == "tanh" else f"{shown}, nonlinearity={self.nonlinearity}"

    def _recur(self, inputs: GateInput, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h_0,) = states
        return kernels.rnn(inputs, h_0, self.weight_hh, self.bias_hh, self.nonlinearity, self.modrelu_bias)


class GRUCell(_RecurrentCell):
    r"""One step of ``momentumrnn.GRU``, with its equations.

    With ``rule=None`` a drop-in for ``torch.nn.GRUCell``.

    Args:
        input_size: d.
        hidden_size: h.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        device: where the parameters are made.
        dtype: what they are made of.
        rule: one of ``momentumrnn.rules``, or ``None``.

    Inputs, outputs and errors are those of ``momentumrnn.RNNCell``.

    Example:
        >>> import torch
        >>> from momentumrnn import GRUCell
        >>> GRUCell(10, 20)(torch.randn(3, 10)).shape
        torch.Size([3, 20])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rule: Rule | None = None,
    ) -> None:
        super().__init__(3, input_size, hidden_size, bias, device, dtype, rule)
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Run one step; see the class for shapes."""
        hx = (hx,) if self.rule is None and hx is not None else hx
        (h,), momentum = self._run(input, hx)
        return h if self.rule is None else (h, momentum)

    def _recur(self, inputs: GateInput, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h_0,) = states
        return kernels.gru(inputs, h_0, self.weight_hh, self.bias_hh)


class LSTMCell(_RecurrentCell):
    r"""One step of ``momentumrnn.LSTM``, with its equations.

    With ``rule=None`` a drop-in for ``torch.nn.LSTMCell``.

    Args:
        input_size: d.
        hidden_size: h.
        bias: whether there are ``bias_ih`` and ``bias_hh``.
        device: where the parameters are made.
        dtype: what they are made of.
        rule: one of ``momentumrnn.rules``, or ``None``.
        forget_gate: ``False`` for the original LSTM (2).

    **Inputs**: input (B, d) or (d,); hx, ``None`` for zeros, or (h, c), each (B, h) or (h,). With a rule
    hx is (h, c, m), m the rule's NamedTuple with tensors (B, C), or ``None`` for the start.

    **Outputs**: (h', c'); with a rule (h', c', m').

    Raises:
        InputError: an input or state of the wrong shape, dtype or device.
        TypeError: a state that is no such tuple.

    Example:
        >>> import torch
        >>> from momentumrnn import LSTMCell, rules
        >>> cell, state = LSTMCell(10, 20, rule=rules.RMSProp(step_size=0.6, beta=0.9)), None
        >>> for x_t in torch.randn(6, 3, 10):
        ...     h, c, m = state = cell(x_t, state)
        >>> h.shape, m.second_moment.shape
        (torch.Size([3, 20]), torch.Size([3, 80]))
    """

    state_names = ("h_0", "c_0")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        rule: Rule | None = None,
        forget_gate: bool = True,
    ) -> None:
        checks.check_flags(type(self).__name__, forget_gate=forget_gate)
        super().__init__(4 if forget_gate else 3, input_size, hidden_size, bias, device, dtype, rule)
        self.forget_gate = forget_gate
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Run one step; see the class for shapes."""
        (h, c), momentum = self._run(input, hx)
        return (h, c) if self.rule is None else (h, c, momentum)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.forget_gate else ", forget_gate=False")

    def _recur(self, inputs: GateInput, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h_0, c_0 = states
        return kernels.lstm(inputs, h_0, c_0, self.weight_hh, self.bias_hh, None, self.forget_gate)
