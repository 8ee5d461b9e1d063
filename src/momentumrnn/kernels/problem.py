"""A recurrence to run, described by all that decides who can run it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from momentumrnn.kernels.tracing import constant, recorded, traced

__all__ = ["GATES", "SAVED", "Cell", "Problem", "autocasts", "eager", "transforms"]

Cell = Literal["rnn_tanh", "rnn_relu", "rnn_modrelu", "gru", "lstm", "lstm_without_forget_gate"]

GATES: dict[str, int] = {
    "rnn_tanh": 1,
    "rnn_relu": 1,
    "rnn_modrelu": 1,
    "gru": 3,
    "lstm": 4,
    "lstm_without_forget_gate": 3,
}
# Slots of gate values that the forward pass of a kernel leaves for its backward pass.
SAVED = {"gru": 4, "lstm": 4, "lstm_without_forget_gate": 3}


class Problem(NamedTuple):
    """What a backend looks at before it accepts a recurrence.

    Attributes:
        cell: which recurrence.
        factored: whether the gate inputs come as features and a weight matrix (linear rules) or
            ready made (adaptive rules).
        device: where the tensors are.
        dtype: of the tensors.
        autocast: whether ``torch.autocast`` lowers the precision.
        projected: whether the hidden state is projected after each step (``proj_size``).
        transformed: whether the call runs inside ``torch.func.vmap`` or a forward-mode derivative,
            for which torch's fused recurrences have no rule.
        forward_mode: whether it runs inside a forward-mode derivative, or ``torch.func.functionalize``, for
            which an ``autograd.Function`` has no rule.
        graph_of_gradient: whether it is recorded into a graph inside ``torch.func.grad``, for which operators
            have no rule.
        one_step: whether there is a single step to run, on a dense batch: what a backend does once for all
            steps is then done for that one.
        hidden: h.
        batch: B, or 0 where it is not known: in a graph that is to serve others, too.
    """

    cell: Cell
    factored: bool
    device: torch.device
    dtype: torch.dtype
    autocast: bool = False
    projected: bool = False
    transformed: bool = False
    forward_mode: bool = False
    graph_of_gradient: bool = False
    one_step: bool = False
    hidden: int = 0
    batch: int = 0

    @classmethod
    def of(
        cls,
        cell: Cell,
        factored: bool,
        weight_hh: Tensor,
        projected: bool = False,
        one_step: bool = False,
        hidden: int | None = None,
        batch: int = 0,
    ) -> Problem:
        """Describe the recurrence that is about to run; h is read off ``weight_hh`` where it is not given."""
        autocast = autocasts(weight_hh)
        forward_mode = transformed = torch.autograd.forward_ad._current_level >= 0
        if inside := transforms():
            kinds = torch._C._functorch.TransformType
            forward_mode = forward_mode or any(key not in (kinds.Grad, kinds.Vmap) for key in inside)
            transformed = forward_mode or kinds.Vmap in inside
        return cls(
            cell,
            factored,
            weight_hh.device,
            weight_hh.dtype,
            autocast,
            projected,
            transformed,
            forward_mode,
            recorded() and _inside_grad(),
            one_step,
            weight_hh.shape[-1] if hidden is None else hidden,
            # A number that only a graph knows is asked nothing: it would become a condition of the graph.
            batch if type(batch) is int and batch and not (torch.compiler.is_compiling() or traced()) else 0,
        )


def autocasts(weight: Tensor) -> bool:
    """Whether ``torch.autocast`` lowers the precision of what is computed with a weight."""
    if weight.dtype is torch.float64:
        return False
    kind = weight.device.type
    return (kind == "cpu" or _knows_autocast(kind)) and torch.is_autocast_enabled(kind)


@constant
def _knows_autocast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind)


@constant
def _inside_grad() -> bool:
    inside = torch._C._functorch.get_interpreter_stack() or ()
    return any(level.key() == torch._C._functorch.TransformType.Grad for level in inside)


def transforms() -> list[object]:
    """Return the transforms of ``torch.func`` that the call runs inside, outermost first."""
    # torch has no public question for this; nothing but the choice of a backend hangs on it.
    if torch.compiler.is_compiling():
        return []
    inside = torch._C._functorch.get_interpreter_stack()
    return [level.key() for level in inside] if inside else []


def eager() -> bool:
    """Whether the call just runs, so that numbers may be read: it is not recorded or transformed."""
    return not recorded() and not transforms()
