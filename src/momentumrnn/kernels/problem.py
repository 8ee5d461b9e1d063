"""A recurrence to run, described by all that decides who can run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Cell", "Problem"]

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
        transformed: whether the call runs inside ``torch.func.vmap`` or a forward-mode derivative,
            for which torch's fused recurrences have no rule.
    """

    cell: Cell
    factored: bool
    device: torch.device
    dtype: torch.dtype
    transformed: bool = False

    @classmethod
    def of(cls, cell: Cell, factored: bool, weight_hh: Tensor) -> Problem:
        """Describe the recurrence that is about to run."""
        return cls(cell, factored, weight_hh.device, weight_hh.dtype, _inside_transform())


def _inside_transform() -> bool:
    # torch has no public question for this; nothing but the choice of a backend hangs on it.
    if torch.compiler.is_compiling():
        return False
    stack = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() != torch._C._functorch.TransformType.Grad for level in stack)
