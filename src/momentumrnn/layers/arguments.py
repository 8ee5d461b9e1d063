"""What a named layer passes on to the layer that it is, for type checkers and for ``inspect``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from inspect import Parameter, Signature
from typing import Any, TypedDict, TypeVar

import torch
from torch import nn

from momentumrnn.layers.rnn import Nonlinearity
from momentumrnn.parametrizations.initialisation import Start
from momentumrnn.parametrizations.maps import Map

__all__ = ["GRUArguments", "LSTMArguments", "OrthogonalArguments", "RNNArguments", "passes_on"]

Layer = TypeVar("Layer", bound=type[nn.Module])


class _Arguments(TypedDict, total=False):
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    device: torch.device | str | None
    dtype: torch.dtype | None
    carry_momentum: bool


class RNNArguments(_Arguments, total=False):
    """Those of ``RNN``, but ``rule``."""

    nonlinearity: Nonlinearity


class GRUArguments(_Arguments, total=False):
    """Those of ``GRU``, but ``rule``."""


class LSTMArguments(_Arguments, total=False):
    """Those of ``LSTM``, but ``rule``."""

    proj_size: int
    forget_gate: bool
    weight_dropout: float


class OrthogonalArguments(_Arguments, total=False):
    """Those of ``OrthogonalRNN``, but ``rule`` and ``rebase_every``."""

    map: Map
    init: Start


# Asked once for each base: it is done when the package is imported.
@cache
def _arguments_of(layer: Any) -> Mapping[str, Parameter]:
    return inspect.signature(layer.__init__).parameters


def passes_on(*but: str) -> Callable[[Layer], Layer]:
    """Give a class the signature that it has: its own arguments and those of its base.

    ``inspect``, and with it ``torch.nn.utils.skip_init`` and ``help``, would else see ``*args, **kwargs``.

    Args:
        *but: arguments of the base that it does not take.

    Returns:
        The decorator of a class whose ``__init__`` hands ``*args`` and ``**kwargs`` to the class above.
    """

    def decorate(layer: Layer) -> Layer:
        init: Any = vars(layer)["__init__"]
        own = inspect.signature(init).parameters
        kept = {name: each for name, each in own.items() if each.kind is Parameter.KEYWORD_ONLY}
        for name, each in _arguments_of(layer.__mro__[1]).items():
            if name not in but:
                kept.setdefault(name, each)
        order = sorted(kept.values(), key=lambda each: each.kind)
        init.__signature__ = Signature(order)
        return layer

    return decorate
