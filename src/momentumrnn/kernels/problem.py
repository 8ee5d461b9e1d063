"""A recurrence to run, described by all that decides who can run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Cell", "Problem", "holds_many", "transforms"]

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
        transformed: whether the call runs inside ``torch.func.vmap`` or a forward-mode derivative,
            for which torch's fused recurrences have no rule.
        differentiated: whether it runs inside any transform of ``torch.func``, or forward-mode dual numbers.
    """

    cell: Cell
    factored: bool
    device: torch.device
    dtype: torch.dtype
    autocast: bool = False
    projected: bool = False
    transformed: bool = False
    differentiated: bool = False

    @classmethod
    def of(cls, cell: Cell, factored: bool, weight_hh: Tensor, projected: bool = False) -> Problem:
        """Describe the recurrence that is about to run."""
        device = weight_hh.device
        kind = device.type
        autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        inside = transforms()
        transformed = any(key != torch._C._functorch.TransformType.Grad for key in inside)
        differentiated = bool(inside) or torch.autograd.forward_ad._current_level >= 0
        dtype = weight_hh.dtype
        return cls(cell, factored, device, dtype, autocast, projected, transformed, differentiated)


def transforms() -> list[object]:
    """Return the transforms of ``torch.func`` that the call runs inside, outermost first."""
    # torch has no public question for this; nothing but the choice of a backend hangs on it.
    if torch.compiler.is_compiling():
        return []
    return [level.key() for level in torch._C._functorch.get_interpreter_stack() or ()]


def holds_many(*tensors: Tensor | None) -> bool:
    """Whether a tensor stands for many, as gradients do under ``is_grads_batched`` or ``torch.func.vmap``."""
    many = torch._C._functorch.is_legacy_batchedtensor
    return bool(transforms()) or any(tensor is not None and many(tensor) for tensor in tensors)
