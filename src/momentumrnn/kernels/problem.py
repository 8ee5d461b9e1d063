"""A recurrence to run, described by all that decides who can run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Cell", "Problem", "transforms"]

Cell = Literal["rnn_tanh", "rnn_relu", "rnn_modrelu", "gru", "lstm", "lstm_without_forget_gate"]


@dataclass(frozen=True)
class Problem:
    """What a backend looks at before it accepts a recurrence.

    Attributes:
        cell: which recurrence.
        factored: whether the gate inputs come as features and a weight matrix (linear rules) or
            ready made (adaptive rules).
        device: where the tensors are.
        dtype: of the tensors.
        autocast: whether ``torch.autocast`` is on for the device.
        projected: whether the hidden state is projected after each step (``proj_size``).
        transformed: whether the call runs inside ``torch.func.vmap``, a forward-mode derivative or
            several transforms, for which fused recurrences have no rule.
    """

    cell: Cell
    factored: bool
    device: torch.device
    dtype: torch.dtype
    autocast: bool = False
    projected: bool = False
    transformed: bool = False

    @classmethod
    def of(cls, cell: Cell, factored: bool, weight_hh: Tensor, projected: bool = False) -> Problem:
        """Describe the recurrence that is about to run."""
        device = weight_hh.device
        kind = device.type
        autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        return cls(cell, factored, device, weight_hh.dtype, autocast, projected, _inside_transform())


def transforms() -> list[object]:
    """Return the transforms of ``torch.func`` that the call runs inside, outermost first."""
    # torch has no public question for this; nothing but the choice of a backend hangs on it.
    if torch.compiler.is_compiling():
        return []
    return [level.key() for level in torch._C._functorch.get_interpreter_stack() or ()]


def _inside_transform() -> bool:
    # One derivative a fused recurrence has, of which a second would have to be taken inside another.
    inside = transforms()
    return len(inside) > 1 or any(key != torch._C._functorch.TransformType.Grad for key in inside)
