"""What a layer refuses, before any work: each message says what was expected, what came, what to do."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from momentumrnn.errors import InputError, warn
from momentumrnn.kernels.operands import check_batch_sizes, layout_of
from momentumrnn.kernels.problem import autocasts, eager
from momentumrnn.kernels.tracing import recorded
from momentumrnn.rules import Rule

__all__ = [
    "check_arguments",
    "check_flags",
    "check_input",
    "check_momentum",
    "check_rule",
    "check_sizes",
    "check_state",
    "without_projection",
]


def check_sizes(owner: str, smallest: int = 1, **sizes: Any) -> list[int]:
    """Return a layer's sizes as plain integers: anything that stands for one is taken, as NumPy's are.

    Raises:
        TypeError: a size that is no integer.
        ValueError: a size below the smallest.
    """
    numbers = []
    for name, size in sizes.items():
        try:
            number = operator.index(size)
        except (TypeError, RuntimeError):
            number = None
        if number is None or isinstance(size, bool):
            raise TypeError(f"{owner}: {name} should be an int, got {type(size).__name__}")
        if number < smallest:
            least = "greater than zero" if smallest == 1 else f"at least {smallest}"
            raise ValueError(f"{owner}: {name} must be {least}, got {number}")
        numbers.append(number)
    return numbers


def check_flags(owner: str, **flags: Any) -> None:
    """Raise ``TypeError`` for a flag that is not a bool."""
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"{owner}: {name} should be a bool, got {flag!r}")


def check_arguments(
    owner: str,
    input_size: Any,
    hidden_size: Any,
    num_layers: Any,
    dropout: Any,
    proj_size: Any,
    **flags: Any,
) -> tuple[int, int, int, int]:
    """Check a layer's sizes and flags.

    Returns:
        The four sizes as plain integers, in the order of the arguments.

    Raises:
        TypeError: a size that is no integer, or a flag that is not a bool.
        ValueError: a size or dropout outside its range.
    """
    sizes = check_sizes(owner, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
    input_size, hidden_size, num_layers = sizes
    (proj_size,) = check_sizes(owner, smallest=-(2**63), proj_size=proj_size)
    check_flags(owner, **flags)
    if not 0 <= proj_size < hidden_size:
        raise ValueError(
            f"{owner}: expected proj_size between 0 (no projection) and hidden_size - 1 = "
            f"{hidden_size - 1}, got {proj_size}"
        )
    check_probability(owner, "dropout", dropout)
    if dropout > 0 and num_layers == 1:
        warn(
            f"{owner}: dropout acts between stacked layers, so dropout={dropout} does nothing with "
            "num_layers=1; drop the argument or stack more layers"
        )
    return input_size, hidden_size, num_layers, proj_size


def check_probability(owner: str, name: str, value: Any) -> None:
    """Raise ``ValueError`` unless ``value`` is a probability."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{owner}: {name} should be a number in range [0, 1], got {value!r}")


def check_rule(owner: str, rule: Any, carry_momentum: bool) -> None:
    """Check a layer's rule.

    Raises:
        TypeError: it is no rule.
        ValueError: momentum is to be carried and there is none.
    """
    if rule is not None and not isinstance(rule, Rule):
        raise TypeError(
            f"{owner}: rule should be one of momentumrnn.rules, for instance rules.HeavyBall(0.6, 0.6), "
            f"or None; got {rule!r}"
        )
    if carry_momentum and rule is None:
        raise ValueError(f"{owner}: carry_momentum=True needs a rule to carry; got rule=None")


def check_input(
    owner: str, x: Tensor | PackedSequence, size: int, weight: Tensor, dims: tuple[int, ...]
) -> None:
    """Check an input against the weight it will meet.

    Raises:
        InputError: wrong number of dimensions or features, an empty sequence, another dtype or device.
        TypeError: something that is no tensor.
    """
    packed = isinstance(x, PackedSequence)
    data = x.data if isinstance(x, PackedSequence) else x
    if not isinstance(data, Tensor):
        raise TypeError(f"{owner}: expected a tensor or a PackedSequence, got {type(x).__name__}")
    if data.layout is not torch.strided or data.is_nested:
        raise _not_dense(owner, "the input", data)
    wanted = (2,) if packed else dims
    if data.dim() not in wanted:
        words = " or ".join(f"{n}D" for n in wanted)
        raise InputError(
            f"{owner}: Expected input to be {words}, got {data.dim()}D of shape {tuple(data.shape)}"
        )
    if data.shape[-1] != size:
        raise InputError(
            f"{owner}: input.size(-1) must be equal to input_size. Expected {size}, got {data.shape[-1]} "
            f"in an input of shape {tuple(data.shape)}"
        )
    if data.device != weight.device:
        raise InputError(
            f"{owner}: expected the input on {weight.device}, where the weights are, got {data.device}; "
            "move one of them with .to(device)"
        )
    if data.dtype != weight.dtype and not (data.is_floating_point() and autocasts(weight)):
        raise InputError(
            f"{owner}: expected an input of dtype {weight.dtype}, that of the weights, got {data.dtype}; "
            "convert one of them with .to(dtype)"
        )
    if isinstance(x, PackedSequence):
        # In a graph the numbers are not known yet; the kernels look at them when it runs.
        check_batch_sizes(x.batch_sizes, None if recorded() else data.shape[0])


def _not_dense(owner: str, name: str, tensor: Tensor) -> InputError:
    """Return the error for a tensor that is sparse or nested, or in oneDNN's layout."""
    return InputError(
        f"{owner}: expected {name} as a dense tensor, got {layout_of(tensor)}; convert a sparse one with "
        ".to_dense(), and pack sequences of several lengths with torch.nn.utils.rnn.pack_sequence"
    )


def check_length(owner: str, steps: int) -> None:
    """Raise ``InputError`` for a sequence of no steps."""
    if steps == 0:
        raise InputError(f"{owner}: expected a sequence of at least one step, got an empty one")


def check_state(owner: str, name: str, state: Any, expected: tuple[int, ...], weight: Tensor) -> None:
    """Check one tensor of a given state.

    Raises:
        InputError: another shape, dtype or device.
        TypeError: something that is no tensor.
    """
    if not isinstance(state, Tensor):
        raise TypeError(f"{owner}: expected {name} to be a tensor, got {type(state).__name__}")
    if state.layout is not torch.strided or state.is_nested:
        raise _not_dense(owner, name, state)
    if tuple(state.shape) != expected:
        raise InputError(f"{owner}: Expected {name} size {expected}, got {tuple(state.shape)}")
    if state.device != weight.device:
        raise InputError(f"{owner}: expected {name} on {weight.device}, got {state.device}")
    if state.dtype != weight.dtype and not (state.is_floating_point() and autocasts(weight)):
        raise InputError(f"{owner}: expected {name} of dtype {weight.dtype}, got {state.dtype}")


def check_momentum(
    owner: str, state: Any, rule: Rule, lead: tuple[int, ...], channels: int, weight: Tensor
) -> None:
    """Check a given momentum state: the rule's own NamedTuple, its tensors of shape (*lead, channels).

    A layer in half precision keeps its momentum in float32.

    Raises:
        InputError: another shape, dtype or device.
        TypeError: not the rule's state.
    """
    kind = rule.state_type
    if not isinstance(state, kind):
        raise TypeError(
            f"{owner}: expected the momentum state of {type(rule).__name__}, a {kind.__name__}, or None "
            f"for the start; got {type(state).__name__}"
        )
    for field, shape in rule.state_shapes(channels).items():
        tensor, expected = getattr(state, field), (*lead, *shape)
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{owner}: expected momentum state {field} to be a tensor, got {type(tensor).__name__}"
            )
        if tensor.layout is not torch.strided or tensor.is_nested:
            raise _not_dense(owner, f"momentum state {field}", tensor)
        if tuple(tensor.shape) != expected:
            raise InputError(
                f"{owner}: Expected momentum state {field} size {expected}, got {tuple(tensor.shape)}"
            )
        if tensor.device != weight.device:
            raise InputError(
                f"{owner}: expected momentum state {field} on {weight.device}, got {tensor.device}"
            )
        dtype = torch.int64 if field == "step" else torch.promote_types(weight.dtype, torch.float32)
        if tensor.dtype != dtype:
            raise InputError(f"{owner}: expected momentum state {field} of dtype {dtype}, got {tensor.dtype}")
        if field == "step" and eager() and type(tensor) is Tensor and not tensor.is_meta:
            least = int(tensor.min()) if tensor.numel() else 0
            if least < 0:
                raise InputError(f"{owner}: expected momentum state step to count from 0, got {least}")


def refuse_momentum(owner: str, state: Any, names: str) -> None:
    """Raise ``TypeError`` for a state with a rule's momentum where the layer carries none."""
    if isinstance(state, tuple | list) and len(state) > 1 and not isinstance(state[-1], Tensor | None):
        raise TypeError(
            f"{owner}: the state is {names} here, got {describe(state)}; for a state with momentum "
            "make the layer with carry_momentum=True"
        )


def describe(value: Any) -> str:
    """Name what came instead of a state, for an error message."""
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def without_projection(init: Callable[..., None]) -> Callable[..., None]:
    """Have a constructor refuse ``proj_size`` with a ``ValueError`` that says why, as ``torch.nn`` does."""

    @wraps(init)
    def checked(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError(f"{type(self).__name__}: only LSTM has proj_size; leave it out, or use an LSTM")
        init(self, *args, **kwargs)

    return checked
