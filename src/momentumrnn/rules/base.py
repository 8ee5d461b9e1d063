"""What a momentum rule is: the contract that every layer relies on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from momentumrnn.errors import InputError
from momentumrnn.rules.coefficients import Range
from momentumrnn.rules.scan import cumulative_decay, linear_scan, linear_step
from momentumrnn.rules.starts import Start, Unit

__all__ = ["Learnable", "LinearRule", "Rule", "RuleState", "Velocity"]

Velocity = Literal["gate", "hidden"]
Learnable = Literal[False, True, "channel"]
_BLOCK_BYTES = 24 << 20

RuleState = Any  # a NamedTuple of tensors, of a type that the rule names in `state_type`


class Rule(nn.Module, ABC):
    """Turns the drive a_t = W x_t + b into the gate input d_t, from a_0 … a_t alone.

    A rule never sees the hidden state, so it is applied to a whole sequence before the recurrence
    begins. Called as ``gate_input, state = rule(drive, state)``; ``drive`` is (T, B, C) and so is
    ``gate_input``; ``state`` is what the rule carries from one chunk of a sequence to the next, a
    NamedTuple of tensors with the batch first, ``None`` for the start. A sequence run in chunks
    equals the sequence run whole.

    A rule given to a layer is a template. The layer makes its own copies with ``bind``, one for
    each stacked layer and direction.

    Attributes:
        velocity: where the layer applies the rule: to W x + b in gate space (9), (15), or to a drive
            in hidden space that then passes through U (10).
        learnable: ``False``, ``True`` (one learned value of each coefficient) or ``"channel"`` (one
            for each channel of the drive).
        all_fixed: whether every coefficient is a number, and no tensor.
        by_channel: whether channels have coefficients of their own.
        state_type: the NamedTuple that the rule's state is.
        ranges: the range of each coefficient, by name.
        starts: the kind of start for each channel that a coefficient can be given, by name.
    """

    state_type: ClassVar[type[Any]]
    ranges: ClassVar[dict[str, Range]]
    starts: ClassVar[dict[str, type[Start]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "state_type" in vars(cls):
            # A named tuple of tensors: torch.load(weights_only=True) may make it.
            torch.serialization.add_safe_globals([cls.state_type])
        # A step written for another run than the class's own would compute something else.
        of_run, of_step = (
            next(k for k, base in enumerate(cls.__mro__) if name in vars(base)) for name in ("run", "step")
        )
        if of_run < of_step:
            # mypy takes any method put in another's place for a mistake.
            cls.step = Rule.step  # type: ignore[method-assign]

    def __init__(self, start: dict[str, Any], *, velocity: Velocity, learnable: Learnable) -> None:
        super().__init__()
        owner = type(self).__name__
        if velocity not in ("gate", "hidden"):
            raise ValueError(f'{owner}: expected velocity "gate" or "hidden", got {velocity!r}')
        if not (isinstance(learnable, bool) or learnable == "channel"):
            raise ValueError(f'{owner}: expected learnable False, True or "channel", got {learnable!r}')
        self.velocity: Velocity = velocity
        self.learnable: Learnable = learnable
        # The numbers and starts given: what is fixed is read from here.
        self._start: dict[str, Any] = {}
        for name, value in start.items():
            self._start[name] = self._checked(name, value)
        self._has_spread = any(self._is_spread(name) for name in self._start)
        self.all_fixed = not learnable and not self._has_spread
        self.by_channel = learnable == "channel" or self._has_spread
        # Of each coefficient that is a tensor: where its map is exact, and the raw tensor there.
        self._anchors: dict[str, tuple[float, float]] = {}
        if learnable is True:
            self._make_learned(1)

    def __setattr__(self, name: str, value: Any) -> None:
        # A bound rule's parameters and its layer's weights have the shapes that these two ask for.
        if name in ("velocity", "learnable") and name in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}: {name} cannot be changed; make a new rule and give it to the layer: "
                "layer.rule = …"
            )
        super().__setattr__(name, value)

    @property
    def commutes(self) -> bool:
        """Whether the rule may be applied to [x, 1] instead of W x + b: linear, and alike in all channels.

        A ``LinearRule`` that runs in a way of its own is taken at its word, and not filtered instead.
        """
        as_linear = isinstance(self, LinearRule) and type(self).run is LinearRule.run
        return as_linear and not self.by_channel

    def bind(
        self, channels: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Return a copy of its own, with fresh learned coefficients for ``channels`` channels."""
        copy = type(self)(**self.arguments(), velocity=self.velocity, learnable=self.learnable)
        if self.learnable or self._has_spread:
            copy._make_learned(channels if self.by_channel else 1, device, dtype)
        return copy

    def share_coefficients(self, other: Rule) -> None:
        """Keep fixed coefficients in common with another rule of the same class: to set one sets both."""
        self._start = other._start

    def reset_parameters(self) -> None:
        """Put every learned coefficient back to the number it was given, and draw spread ones anew."""
        if not self._anchors:
            return
        self._anchor_at({name: self._number(name) for name in self._anchors})
        for name, (_, raw) in self._anchors.items():
            tensor = getattr(self, f"raw_{name}")
            if self._is_spread(name):
                self._draw_(name, tensor)
            else:
                nn.init.constant_(tensor, raw)

    def arguments(self) -> dict[str, Any]:
        """Return the rule's own arguments, as its constructor takes them."""
        return dict(self._start)

    def description(self) -> str:
        """Return what a checkpoint's tensors do not hold of the rule, written as a call of its class."""
        fixed = {name: value for name, value in self.arguments().items() if not self._is_tensor(name)}
        return f"{type(self).__name__}({self._written(fixed)})"

    def is_hooked(self) -> bool:
        """Whether something waits for the module's call, so that no kernel may stand in for it.

        Forward and backward hooks do, and tools that replace ``forward``, such as those that load a module's
        parameters just before it runs. A layer calls such a rule on the drive W x + b, and any other rule it
        may run by a kernel, which reads the coefficients and does not call the module. Hooks registered for
        all modules at once are not seen.
        """
        own = self.__dict__
        return bool(
            own["_forward_hooks"]
            or own["_forward_pre_hooks"]
            or own["_backward_hooks"]
            or own["_backward_pre_hooks"]
            or "forward" in own
        )

    def check_device(self, device: torch.device) -> None:
        """Raise ``InputError`` unless the learned coefficients are on ``device``.

        torch multiplies a tensor of one element on another device without an error, in part with memory that
        was never written.
        """
        for name, tensor in (*self._parameters.items(), *self._buffers.items()):
            if tensor is not None and tensor.device != device:
                raise InputError(
                    f"{type(self).__name__}: expected {name} on {device}, as the weights and the input, got "
                    f"{tensor.device}; move the layer as a whole with .to(device)"
                )

    @abstractmethod
    def run(self, drive: Tensor, state: RuleState, lengths: Tensor | None) -> tuple[Tensor, RuleState]:
        """Apply the rule to a drive and state that were checked; see ``forward``."""

    def forward(
        self, drive: Tensor, state: RuleState = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, RuleState]:
        """Apply the rule.

        Args:
            drive: (T, B, C), T >= 1.
            state: the rule's ``state_type`` with the batch first, or ``None``.
            lengths: (B,) integers from 1 to T; the returned state is the one after each one's own length.

        Returns:
            The gate input (T, B, C) in the drive's dtype, and the new state, float32 at least.

        Raises:
            InputError: a drive without steps, not (T, B, C) or of no floating dtype, or a state of another
                type or size.
        """
        self._check(drive, state)
        size = _sequences_at_a_time(drive)
        if size >= drive.shape[1]:
            return self.run(drive, state, lengths)
        parts = drive.split(size, dim=1)
        states = [None] * len(parts)
        if state is not None:
            states = [
                self.state_type(*fields) for fields in zip(*(s.split(size) for s in state), strict=True)
            ]
        spans = [None] * len(parts) if lengths is None else lengths.split(size)
        blocks = [self.run(*block) for block in zip(parts, states, spans, strict=True)]
        outputs, last = zip(*blocks, strict=True)
        merged = (torch.cat(fields) for fields in zip(*last, strict=True))
        return torch.cat(outputs, dim=1), self.state_type(*merged)

    def state_shapes(self, channels: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of the state behind its batch."""
        return {name: () if name == "step" else (channels,) for name in self.state_type._fields}

    def as_state(self, state: Any) -> Any:
        """Return a plain tuple or list of as many tensors as the rule's ``state_type``; others as they are.

        Code that detaches a state by going through its tuples hands it back that way.
        """
        plain = type(state) in (tuple, list) and len(state) == len(self.state_type._fields)
        return self.state_type(*state) if plain else state

    def step(self, drive: Tensor, state: RuleState = None) -> tuple[Tensor, RuleState]:
        """Apply the rule to one step, as a single-step cell does.

        Args:
            drive: (B, C), in float32 or float64.
            state: the rule's ``state_type`` in that dtype, or ``None``.

        Returns:
            The gate input (B, C), and the new state.
        """
        gate_input, state = self(drive.unsqueeze(0), state)
        return gate_input.squeeze(0), state

    def coefficient(self, name: str) -> float | Tensor:
        """Return a coefficient as it is now: a number, or a tensor, 0-dim or (C,), if learned or spread.

        Raises:
            RuntimeError: there is one for each channel, and the rule was never bound to a channel count.
        """
        if self.all_fixed or not self._is_tensor(name):
            value = self._start[name]
            number: float = self._number(name) if isinstance(value, Start) else value
            return number
        at = self.ranges[name].at
        assert at is not None
        # Not get_parameter: torch.func.functional_call puts plain tensors in the parameters' places.
        raw: Tensor | None = getattr(self, f"raw_{name}", None)
        if raw is None:
            raise RuntimeError(
                f"{type(self).__name__}({self.extra_repr()}) does not know its channels yet; "
                "call rule.bind(channels) first, or give the rule to a layer"
            )
        if raw.dtype in (torch.float16, torch.bfloat16):
            raw = raw.float()
        anchor, raw_anchor = self._anchors[name]
        values = at(anchor, raw_anchor, raw)
        return values if self.by_channel else values.reshape(())

    def set_coefficient(self, name: str, value: float) -> None:
        """Set a fixed coefficient, for every rule that it is shared with.

        Raises:
            AttributeError: the coefficient is learned.
            ValueError: a number outside its range.
            TypeError: no number.
        """
        owner = type(self).__name__
        if self._is_tensor(name):
            kind = "learned" if self.learnable else "spread over channels"
            raise AttributeError(
                f"{owner}: {name} is {kind} and cannot be set to a number; change the tensor raw_{name}, or "
                f"give the layer a new rule: layer.rule = rules.{owner}(…)"
            )
        value = self._checked(name, value)
        if isinstance(value, Start):
            raise TypeError(f"{owner}: {name} should be a number, got {value}; give it to a new rule")
        self._start[name] = value

    def _checked(self, name: str, value: Any) -> Any:
        owner = type(self).__name__
        if not isinstance(value, Start):
            return self.ranges[name].check(owner, name, value)
        if not isinstance(value, self.starts.get(name, ())):
            known = [f"{name}={kind.__name__}" for name, kind in self.starts.items()]
            raise TypeError(
                f"{owner}: {name} cannot start at {value}; what can start in each channel by itself: "
                f"{', '.join(known) or 'nothing'}"
            )
        if self.learnable is True and not isinstance(value, Unit):
            raise ValueError(
                f'{owner}: {name}={value} is a start for each channel; use learnable="channel" to learn it '
                "from there, or learnable=False to keep it"
            )
        return value

    def _number(self, name: str) -> Any:
        """Return the number that a coefficient was given, its range's middle where it has a start."""
        start = self._start[name]
        if not isinstance(start, Start):
            return start
        if self._is_spread(name):
            return self.ranges[name].middle
        return math.sqrt(1.0 - self._start["momentum"] ** 2)

    def _is_learned(self, name: str) -> bool:
        return bool(self.learnable) and self.ranges[name].at is not None

    def _is_spread(self, name: str) -> bool:
        start = self._start[name]
        if isinstance(start, Unit):
            return isinstance(self._start["momentum"], Start)
        return isinstance(start, Start)

    def _is_tensor(self, name: str) -> bool:
        return not self.all_fixed and (self._is_learned(name) or self._is_spread(name))

    @torch.no_grad()
    def _draw_(self, name: str, raw: Tensor) -> None:
        if raw.is_meta:
            return
        before = (
            {other: self.coefficient(other) for other in self._start if other != name}
            if isinstance(self._start[name], Unit)
            else {}
        )
        values = torch.empty(raw.shape, dtype=torch.float64)
        self._start[name].draw_(values, before)
        to_raw = self.ranges[name].raw
        assert to_raw is not None
        raw.copy_(to_raw(values))

    def _anchor_at(self, numbers: dict[str, float]) -> None:
        """Make the map of each learned coefficient exact at its number."""
        for name, value in numbers.items():
            if (raw := self.ranges[name].raw) is not None:
                self._anchors[name] = value, raw(value)

    def _check(self, drive: Tensor, state: RuleState) -> None:
        """Raise ``InputError`` for a drive or state whose shape the rule cannot take."""
        owner = type(self).__name__
        if not drive.is_floating_point():
            raise InputError(f"{owner}: expected a drive of a floating dtype, got {drive.dtype}")
        if state is not None and not isinstance(state, self.state_type):
            raise InputError(
                f"{owner}: expected a state of type {self.state_type.__name__}, as the rule returns, got "
                f"{type(state).__name__}"
            )
        if drive.dim() != 3 or drive.shape[0] == 0:
            raise InputError(
                f"{owner}: expected a drive (T, B, C) with at least one step, got one of shape "
                f"{tuple(drive.shape)}"
            )
        shapes = {} if state is None else self.state_shapes(drive.shape[2])
        for name, shape in shapes.items():
            tensor, expected = getattr(state, name), (drive.shape[1], *shape)
            if tuple(tensor.shape) != expected:
                raise InputError(f"{owner}: Expected {name} size {expected}, got {tuple(tensor.shape)}")
        if self._anchors:
            self.check_device(drive.device)

    def _coefficient_for_scan(self, name: str) -> float | Tensor:
        value = self.coefficient(name)
        return value.reshape(1, 1, -1) if isinstance(value, Tensor) and value.dim() else value

    def _make_learned(
        self, size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        # One value is a vector of one: FSDP does not shard a tensor without dimensions.
        dtype = torch.promote_types(dtype or torch.get_default_dtype(), torch.float32)
        tensors = [name for name in self._start if self._is_tensor(name)]
        self._anchor_at({name: self._number(name) for name in tensors})
        for name in tensors:
            raw = torch.empty(size, device=device, dtype=dtype)
            if self._is_learned(name):
                self.register_parameter(f"raw_{name}", nn.Parameter(raw))
            else:
                self.register_buffer(f"raw_{name}", raw)
        self.reset_parameters()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        # Not a key: the tensors alone give the same values to rounding, and with this to the last bit.
        if self._anchors and hasattr(destination, "_metadata"):
            anchors = {name: anchor for name, (anchor, _) in self._anchors.items()}
            destination._metadata[prefix[:-1]]["anchors"] = anchors

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        anchors = local_metadata.get("anchors", {})
        for name in list(self._anchors):
            self._anchor_at({name: anchors.get(name, self._number(name))})
            # Version 0.1 kept the number it began at in a buffer and learned the distance from there.
            start, offset = f"{prefix}{name}_start", f"{prefix}{name}_offset"
            if start in state_dict and offset in state_dict:
                self._anchor_at({name: float(state_dict.pop(start).flatten()[0])})
                raw = state_dict.pop(offset).reshape(-1) + self._anchors[name][1]
                state_dict[f"{prefix}raw_{name}"] = raw
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # A layer cast to bfloat16 keeps its coefficients in float32: there 0.999 would become 1.
        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            low = moved.is_floating_point() and torch.finfo(moved.dtype).bits < 32
            return tensor.to(moved.device) if low else moved

        nn.Module._apply(self, keep_precision, recurse)
        return self

    def extra_repr(self) -> str:
        return self._written(self.arguments())

    def _written(self, arguments: dict[str, Any]) -> str:
        parts = [f"{name}={value}" for name, value in arguments.items()]
        parts += [f"velocity={self.velocity!r}"] if self.velocity != "gate" else []
        parts += [f"learnable={self.learnable!r}"] if self.learnable else []
        return ", ".join(parts)


class LinearRule(Rule):
    """v_t = μ_t v_{t-1} + s a_t and d_t = v_t, with μ_t from the step count alone.

    Being linear it commutes with W, so a layer may run it over the d + 1 channels of [x_t, 1]
    instead of all gate channels: d_t = [W, b] p_t with p_t = μ_t p_{t-1} + s [x_t, 1].
    """

    @abstractmethod
    def decay(self, steps: int, state: RuleState, device: torch.device) -> float | Tensor:
        """Return μ for the next ``steps`` steps, in a form that ``linear_scan`` takes."""

    @abstractmethod
    def next_state(self, velocity: Tensor, state: RuleState, steps: int | Tensor) -> RuleState:
        """Return the state after ``steps`` more steps, given the velocity (B, C) reached there."""

    def run(self, drive: Tensor, state: RuleState, lengths: Tensor | None) -> tuple[Tensor, RuleState]:
        decay = self.decay(drive.shape[0], state, drive.device)
        gain = self._coefficient_for_scan("step_size")
        velocity = linear_scan(decay, drive, None if state is None else state.velocity, gain)
        steps = drive.shape[0] if lengths is None else lengths
        return velocity.to(drive.dtype), self.next_state(last_step(velocity, lengths), state, steps)

    def step(self, drive: Tensor, state: RuleState = None) -> tuple[Tensor, RuleState]:
        gain = self._coefficient_for_scan("step_size")
        if state is None:
            velocity = linear_step(0.0, drive, None, gain)
        else:
            velocity = linear_step(self.decay(1, state, drive.device), drive, state.velocity, gain)
        return velocity, self.next_state(velocity, state, 1)

    def filter(self, x: Tensor, state: RuleState = None) -> tuple[Tensor, Tensor | None]:
        """Apply the rule to features instead of gate inputs, leaving the state's velocity out.

        Args:
            x: (T, B, n), the input with its constant channel.
            state: the rule's state; only its step count enters here.

        Returns:
            ``p``, (T, B, n), in float32 at least, and what is left of the state's velocity at each
            step, (T, 1 or B, 1): ``None`` where there is no state. The gate input is
            [W, b] p_t + left_t · velocity.
        """
        decay = self.decay(x.shape[0], state, x.device)
        p = linear_scan(decay, x, gain=self._coefficient_for_scan("step_size"))
        return p, None if state is None else cumulative_decay(decay, x.shape[0], x)


def _sequences_at_a_time(drive: Tensor) -> int:
    """Return how many sequences to treat together.

    A rule makes some twenty tensors of the drive's size. On the CPU, ones above 32 MB are mapped
    anew each time, and touching their pages costs more than the arithmetic: in blocks of sequences
    below that, Adam's rule ran three times faster at (784, 128, 512).
    """
    if drive.device.type != "cpu":
        return drive.shape[1]
    sequence = drive.shape[0] * drive.shape[2] * max(4, drive.element_size())
    return max(1, _BLOCK_BYTES // sequence)


def last_step(sequence: Tensor, lengths: Tensor | None) -> Tensor:
    """Return (B, C) from (T, B, C): the last step, or each sequence's own last step."""
    if lengths is None:
        return sequence[-1]
    batch = torch.arange(lengths.shape[0], device=sequence.device)
    return sequence[lengths.to(sequence.device) - 1, batch]
