"""A recurrence in C++ as a torch operator: one node in a graph for a whole layer, differentiable once.

The operators are registered when this module is imported, whether or not the kernels were built; so a program
that was exported with them can be loaded, and says what it lacks when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from momentumrnn.errors import BackendError
from momentumrnn.kernels import reference
from momentumrnn.kernels.derivatives import (
    gradients_again,
    holds_many,
    in_graph,
    may_be_asked_again,
    one_by_one,
    refuse_second_derivative,
    wants_gradient,
)
from momentumrnn.kernels.extension import extension, missing
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.kernels.plan import Plan, plan

__all__ = [
    "LIBRARY",
    "address",
    "compiled",
    "empty",
    "plain",
    "recurrence",
]

_CELLS = ("rnn_tanh", "rnn_relu", "rnn_modrelu", "gru", "lstm", "lstm_without_forget_gate")
# Slots of gate values that the forward pass leaves for the backward pass.
_SAVED = {"gru": 4, "lstm": 4, "lstm_without_forget_gate": 3}
_POOLED_BYTES = 1 << 20

LIBRARY = torch.library.Library("momentumrnn", "DEF")
_INPUTS = (
    "str cell, Tensor features, Tensor? weight_ih, Tensor? bias_ih, Tensor weight_hh, Tensor? bias_hh, "
    "Tensor? modrelu_bias, Tensor h_0, Tensor? c_0, Tensor? batch_sizes"
)
LIBRARY.define(f"recurrence({_INPUTS}, bool train) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
LIBRARY.define(
    f"recurrence_backward({_INPUTS}, Tensor output, Tensor gates, Tensor cells, Tensor grad_output, "
    "Tensor? grad_h_n, Tensor? grad_c_n, bool[] wanted) -> Tensor[]"
)


def recurrence(
    cell: str,
    features: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    modrelu_bias: Tensor | None,
    h_0: Tensor,
    c_0: Tensor | None,
    batch_sizes: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a cell over a sequence.

    Args:
        cell: a ``momentumrnn.kernels.problem.Cell``.
        features: (T, B, D), or the rows (N, D) of a packed batch. D = G·h where ``weight_ih`` is ``None``.
        weight_ih: (G·h, D), or ``None`` where the features are the gate inputs themselves.
        bias_ih: (G·h,) or ``None``.
        weight_hh: (G·h, h).
        bias_hh: (G·h,) or ``None``.
        modrelu_bias: (h,) for modrelu.
        h_0: (B, h).
        c_0: (B, h) for an LSTM.
        batch_sizes: int64 (T,) on the CPU for a packed batch.

    Returns:
        All h_t, the last h, and the last c (empty but for an LSTM).
    """
    tensors = (features, weight_ih, bias_ih, weight_hh, bias_hh, modrelu_bias, h_0, c_0)
    train = wants_gradient(tensors)
    inputs = (cell, *tensors, batch_sizes, train)
    if in_graph(features):
        output, h_n, c_n, _, _ = torch.ops.momentumrnn.recurrence(*inputs)
    else:
        run: Any = _Recurrence.apply if train else _recurrence
        output, h_n, c_n, _, _ = run(*inputs)
    return output, h_n, c_n


def compiled() -> Any:
    """Return the compiled kernels.

    Raises:
        BackendError: they were not built.
    """
    module = extension()
    if module is None:
        raise BackendError(f"expected momentumrnn's C++ kernels, found none: {missing()}")
    return module


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return an uninitialised tensor of ``like``'s dtype, on pooled memory if it is large."""
    count = 1
    for size in shape:
        count *= size
    if count * like.element_size() < _POOLED_BYTES:
        return like.new_empty(shape)
    tensor: Tensor = compiled().empty(list(shape), like.dtype is torch.float64)
    return tensor


def address(tensor: Tensor | None) -> int | None:
    """Return where a tensor's data begins, ``None`` for an absent or empty one."""
    return None if tensor is None or tensor.numel() == 0 else tensor.data_ptr()


def plain(tensor: Tensor) -> Tensor:
    """Return the tensor with its numbers in memory as they are, one behind the other."""
    return tensor.resolve_neg().contiguous()


def _plain(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else plain(tensor)


class _Call:
    """One call's sizes, its plan, and what the C++ side is told of both passes alike."""

    def __init__(
        self,
        cell: str,
        features: Tensor,
        weight_ih: Tensor | None,
        bias_ih: Tensor | None,
        weight_hh: Tensor,
        bias_hh: Tensor | None,
        modrelu_bias: Tensor | None,
        h_0: Tensor,
        c_0: Tensor | None,
        batch_sizes: Tensor | None,
    ) -> None:
        self.cell = cell
        self.features = plain(features)
        self.weight_ih = _plain(weight_ih)
        self.rows = tuple(features.shape[:-1])
        self.hidden = weight_hh.shape[1]
        self.gates = weight_hh.shape[0] // self.hidden
        steps = features.shape[0] if batch_sizes is None else batch_sizes.shape[0]
        width = features.shape[-1]
        self.plan: Plan = plan(steps, h_0.shape[0], width, self.hidden, self.gates, weight_hh.element_size())
        self.separate = self.weight_ih is not None and not self.plan.fused
        # Kept until the call is over: the C++ side has nothing but their addresses.
        self._inputs: dict[str, Tensor | None] = {
            "bias_ih": _plain(bias_ih),
            "weight_hh": plain(weight_hh),
            "bias_hh": _plain(bias_hh),
            "modrelu_bias": _plain(modrelu_bias),
            "h_0": plain(h_0),
            "c_0": _plain(c_0),
            "sizes": _plain(batch_sizes),
        }
        if self.weight_ih is not None and not self.separate:
            self._inputs |= {"x": self.features, "weight_ih": self.weight_ih}
        self._sizes = {
            "cell": _CELLS.index(cell),
            "split": 0 if self.plan.split == "rows" else 1,
            "threads": self.plan.threads,
            "steps": steps,
            "batch": h_0.shape[0],
            "features": width,
            "hidden": self.hidden,
        }

    def run(self, kernel: str, arrays: Mapping[str, Tensor | None]) -> None:
        """Run the forward or the backward kernel with these arrays beside the inputs."""
        addresses = {name: address(tensor) for name, tensor in {**self._inputs, **arrays}.items()}
        getattr(compiled(), kernel)(self._sizes | addresses, self.features.dtype is torch.float64)


@torch.library.impl(LIBRARY, "recurrence", "CPU")
def _recurrence(
    cell: str,
    features: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    modrelu_bias: Tensor | None,
    h_0: Tensor,
    c_0: Tensor | None,
    batch_sizes: Tensor | None,
    train: bool,
) -> tuple[Tensor, ...]:
    call = _Call(cell, features, weight_ih, bias_ih, weight_hh, bias_hh, modrelu_bias, h_0, c_0, batch_sizes)
    output, h_n, c_n, gates, cells = _results(call, h_0, empty, train)
    if h_0.shape[0] == 0:
        return output, h_n, c_n, gates, cells
    ready = call.features if weight_ih is None else None
    if call.separate:
        # The cell puts its own values where it found these, so that they need no memory of their own.
        wide = (*call.rows, call.gates * call.hidden)
        reused = output if cell.startswith("rnn") else gates if train and cell != "gru" else None
        ready = empty(wide, features) if reused is None else reused
        assert call.weight_ih is not None
        torch.mm(call.features.flatten(0, -2), call.weight_ih.t(), out=ready.view(-1, wide[-1]))
    results = {"output": output, "h_n": h_n, "c_n": c_n, "gates": gates, "cells": cells, "ready": ready}
    call.run("forward", results)
    return output, h_n, c_n, gates, cells


def _results(call: Any, h_0: Tensor, make: Any, train: bool) -> tuple[Tensor, ...]:
    """Make the tensors that the forward pass fills; ``make(shape, like)`` returns one."""
    saved, has_c = _SAVED.get(call.cell, 0), call.cell.startswith("lstm")
    nothing = (0,)
    return (
        make((*call.rows, call.hidden), h_0),
        make(tuple(h_0.shape), h_0),
        make(tuple(h_0.shape) if has_c else nothing, h_0),
        make((*call.rows, saved * call.hidden) if saved and train else nothing, h_0),
        make((*call.rows, call.hidden) if has_c and train else nothing, h_0),
    )


@torch.library.impl(LIBRARY, "recurrence_backward", "CPU")
def _recurrence_backward(
    cell: str,
    features: Tensor,
    weight_ih: Tensor | None,
    bias_ih: Tensor | None,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    modrelu_bias: Tensor | None,
    h_0: Tensor,
    c_0: Tensor | None,
    batch_sizes: Tensor | None,
    output: Tensor,
    gates: Tensor,
    cells: Tensor,
    grad_output: Tensor,
    grad_h_n: Tensor | None,
    grad_c_n: Tensor | None,
    wanted: list[bool],
) -> list[Tensor]:
    inputs = (cell, features, weight_ih, bias_ih, weight_hh, bias_hh, modrelu_bias, h_0, c_0, batch_sizes)
    if cell in _SAVED and gates.numel() == 0 and h_0.shape[0] > 0:
        # The forward pass was told that nobody would ask.
        output, _, _, gates, cells = _recurrence(*inputs, True)
    if h_0.shape[0] == 0:
        return [grad.zero_() for grad in _gradients(inputs, wanted, empty)]
    call = _Call(*inputs)
    grads = _gradients(inputs, wanted, empty)
    grad_features, grad_weight_ih, grad_bias_ih, grad_weight_hh, grad_bias_hh, grad_modrelu, *initial = grads
    ready = None
    if weight_ih is None:
        ready = grad_features
    elif call.separate:
        ready = empty((*call.rows, call.gates * call.hidden), features)
    inside = weight_ih is not None and not call.separate
    call.run(
        "backward",
        {
            "output": output,
            "gates": gates,
            "cells": cells,
            "grad_output": plain(grad_output),
            "grad_h_n": _plain(grad_h_n),
            "grad_c_n": _plain(grad_c_n) if cell.startswith("lstm") else None,
            "grad_x": grad_features if inside else None,
            "grad_ready": ready,
            "grad_weight_ih": grad_weight_ih if inside else None,
            "grad_bias_ih": grad_bias_ih,
            "grad_weight_hh": grad_weight_hh,
            "grad_bias_hh": grad_bias_hh,
            "grad_modrelu_bias": grad_modrelu,
            "grad_h_0": initial[0],
            "grad_c_0": initial[1],
        },
    )
    if call.separate and ready is not None and call.weight_ih is not None:
        flat = ready.view(-1, ready.shape[-1])
        if grad_weight_ih.numel():
            torch.mm(flat.t(), call.features.flatten(0, -2), out=grad_weight_ih)
        if grad_features.numel():
            torch.mm(flat, call.weight_ih, out=grad_features.view(-1, features.shape[-1]))
    return grads


def _gradients(inputs: tuple[Any, ...], wanted: list[bool], make: Any) -> list[Tensor]:
    """Make a tensor for the gradient of each input tensor, an empty one for those that nobody wants."""
    tensors = inputs[1:]
    grads = []
    for name, tensor, want in zip(_DIFFERENTIABLE, tensors, wanted, strict=False):
        # The kernel always leaves those of the initial states.
        needed = tensor is not None and (want or name in ("h_0", "c_0"))
        grads.append(make(tuple(tensor.shape) if needed else (0,), tensors[0]))
    return grads


_DIFFERENTIABLE = (
    "features",
    "weight_ih",
    "bias_ih",
    "weight_hh",
    "bias_hh",
    "modrelu_bias",
    "h_0",
    "c_0",
)


class _Sizes:
    """What ``_results`` asks of a call, for tensors without data."""

    def __init__(self, cell: str, features: Tensor, weight_hh: Tensor) -> None:
        self.cell = cell
        self.rows = tuple(features.shape[:-1])
        self.hidden = weight_hh.shape[1]


def _without_data(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return like.new_empty(shape)


def _recurrence_fake(*args: Any) -> tuple[Tensor, ...]:
    cell, features, weight_hh, h_0, train = args[0], args[1], args[4], args[7], args[-1]
    return _results(_Sizes(cell, features, weight_hh), h_0, _without_data, train)


def _recurrence_backward_fake(*args: Any) -> list[Tensor]:
    return _gradients(args[:9], args[-1], _without_data)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cell, *tensors, _ = inputs
    out, _, _, gates, cells = output
    ctx.cell = cell
    ctx.save_for_backward(*tensors, out, gates, cells)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_output: Tensor | None, grad_h_n: Tensor | None, grad_c_n: Any, *_: Any) -> Any:
    *tensors, output, gates, cells = ctx.saved_tensors
    if grad_output is None:
        grad_output = torch.zeros_like(output)
    wanted = list(ctx.needs_input_grad[1:9])
    incoming = (grad_output, grad_h_n, grad_c_n)
    through: Any = _recurrence_backward
    if in_graph(grad_output):
        through = torch.ops.momentumrnn.recurrence_backward
    elif holds_many(*incoming):
        return None, *_gradients_by_reference(ctx.cell, tensors, incoming, wanted), None, None
    elif may_be_asked_again():
        through = _RecurrenceBackward.apply
    grads = through(ctx.cell, *tensors, output, gates, cells, *incoming, wanted)
    return (
        None,
        *(grad if want else None for grad, want in zip(grads, wanted, strict=True)),
        None,
        None,
    )


def _gradients_by_reference(
    cell: str, tensors: Sequence[Any], incoming: Sequence[Tensor | None], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Compute the gradients by way of the reference loop, which can be differentiated again."""
    *tensors, batch_sizes = tensors

    def run(
        features: Any,
        weight_ih: Any,
        bias_ih: Any,
        weight_hh: Any,
        bias_hh: Any,
        modrelu_bias: Any,
        h_0: Any,
        c_0: Any,
    ) -> tuple[Tensor, ...]:
        packed = None if batch_sizes is None else PackedRows(batch_sizes, features.device)
        inputs = GateInput(features, weight_ih, bias_ih, packed=packed)
        if cell == "gru":
            return reference.gru(inputs, h_0, weight_hh, bias_hh)
        if cell.startswith("lstm"):
            return reference.lstm(inputs, h_0, c_0, weight_hh, bias_hh, None, cell == "lstm")
        return reference.rnn(inputs, h_0, weight_hh, bias_hh, cell.removeprefix("rnn_"), modrelu_bias)

    return gradients_again(run, tensors, incoming, wanted)


class _Recurrence(torch.autograd.Function):
    """The same derivative for calls that need no operator."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return _recurrence(*inputs)

    setup_context = staticmethod(_setup)
    backward = staticmethod(_backward)


class _RecurrenceBackward(torch.autograd.Function):
    """The backward pass where its own derivative may be asked for, which is the reference's."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(_recurrence_backward(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.cell, *tensors, _, _, _, grad_output, grad_h_n, grad_c_n, ctx.wanted = inputs
        ctx.save_for_backward(*tensors, grad_output, grad_h_n, grad_c_n)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        *tensors, batch_sizes, grad_output, grad_h_n, grad_c_n = ctx.saved_tensors

        def first(*given: Any) -> list[Tensor | None]:
            return _gradients_by_reference(ctx.cell, (*given[:8], batch_sizes), given[8:], ctx.wanted)

        needs = ctx.needs_input_grad
        given = (*tensors, grad_output, grad_h_n, grad_c_n)
        found = gradients_again(first, given, grads, (*needs[1:9], *needs[13:16]))
        # Nothing for what the forward pass left: it hangs on the inputs, by which it was computed again.
        return None, *found[:8], None, None, None, None, *found[8:], None


one_by_one(_Recurrence)
one_by_one(_RecurrenceBackward)

torch.library.register_fake("momentumrnn::recurrence", _recurrence_fake, lib=LIBRARY)
torch.library.register_fake("momentumrnn::recurrence_backward", _recurrence_backward_fake, lib=LIBRARY)
torch.library.register_autograd("momentumrnn::recurrence", _backward, setup_context=_setup, lib=LIBRARY)
torch.library.register_autograd("momentumrnn::recurrence_backward", refuse_second_derivative, lib=LIBRARY)
