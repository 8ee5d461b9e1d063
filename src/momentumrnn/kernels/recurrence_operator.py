"""A recurrence in C++ as a torch operator: one node in a graph for a whole layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from momentumrnn.kernels.operands import check_recurrence, check_results
from momentumrnn.kernels.operators import (
    LIBRARY,
    Make,
    addresses,
    compiled,
    empty,
    multiply,
    plain,
    plain_each,
    without_data,
)
from momentumrnn.kernels.plan import Plan, plan
from momentumrnn.kernels.problem import GATES, SAVED

__all__ = ["RecurrenceInputs", "backward", "forward"]

# In the order in which the C++ side counts them.
_CELLS = tuple(GATES)

# What the gates were is kept in rows of whole cache lines, which are written past the cache. Not for few
# units, whose memory would grow; nor for so many that the multiplications, with weights of this many bytes,
# are nearly all.
_LINE = 16
_FEWEST_IN_LINES = 64
_LARGEST_WEIGHTS_IN_LINES = 3 << 19


class RecurrenceInputs(NamedTuple):
    """A cell and all that it runs on: the operator's arguments, in its order.

    Attributes:
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
    """

    cell: str
    features: Tensor
    weight_ih: Tensor | None
    bias_ih: Tensor | None
    weight_hh: Tensor
    bias_hh: Tensor | None
    modrelu_bias: Tensor | None
    h_0: Tensor
    c_0: Tensor | None
    batch_sizes: Tensor | None

    @property
    def differentiable(self) -> tuple[Tensor | None, ...]:
        """Those that may have a gradient."""
        return self[1:-1]

    @property
    def hidden(self) -> int:
        """The number of hidden units, h."""
        return self.weight_hh.shape[1]


_INPUTS = (
    "str cell, Tensor features, Tensor? weight_ih, Tensor? bias_ih, Tensor weight_hh, Tensor? bias_hh, "
    "Tensor? modrelu_bias, Tensor h_0, Tensor? c_0, Tensor? batch_sizes"
)
LIBRARY.define(f"recurrence({_INPUTS}, bool train) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
LIBRARY.define(
    f"recurrence_backward({_INPUTS}, Tensor output, Tensor gates, Tensor cells, Tensor grad_output, "
    "Tensor? grad_h_n, Tensor? grad_c_n, bool[] wanted) -> Tensor[]"
)


class _Call:
    """One call's sizes, its plan, and what the C++ side is told of both passes alike."""

    def __init__(self, inputs: RecurrenceInputs, steps: int, batch: int) -> None:
        cell, features, weight_ih, bias_ih, weight_hh, bias_hh, modrelu_bias, h_0, c_0, sizes = inputs
        *rows, width = features.shape
        wide, hidden = weight_hh.shape
        chosen: Plan = plan(steps, batch, width, hidden, GATES[cell], weight_hh.element_size())
        self.wide = (*rows, wide)
        self.pitch = _pitch(weight_hh)
        self.separate = weight_ih is not None and not chosen.fused
        self.inside = weight_ih is not None and chosen.fused
        # Ready gate inputs are as large as all gates, and backward asks for no more than their shape.
        self.features = features if weight_ih is None else plain(features)
        # Kept until the call is over: the C++ side has nothing but their addresses.
        self.weight_ih, *others = plain_each(
            (weight_ih, bias_ih, weight_hh, bias_hh, modrelu_bias, h_0, c_0, sizes)
        )
        names = ("bias_ih", "weight_hh", "bias_hh", "modrelu_bias", "h_0", "c_0", "sizes")
        self._inputs: dict[str, Tensor | None] = dict(zip(names, others, strict=True))
        if self.inside:
            self._inputs["x"], self._inputs["weight_ih"] = self.features, self.weight_ih
        self._sizes = {
            "cell": _CELLS.index(cell),
            "split": 0 if chosen.split == "rows" else 1,
            "threads": chosen.threads,
            "steps": steps,
            "batch": batch,
            "features": width,
            "hidden": hidden,
            "gates_pitch": self.pitch,
        }

    def run(self, kernel: str, **arrays: Tensor | None) -> None:
        """Run the forward or the backward kernel with these arrays beside the inputs."""
        problem = self._sizes | addresses(self._inputs) | addresses(arrays)
        getattr(compiled(), kernel)(problem, self.features.dtype is torch.float64)


@torch.library.impl(LIBRARY, "recurrence", "CPU")
def forward(*arguments: Any) -> tuple[Tensor, ...]:
    """Run a recurrence.

    Args:
        *arguments: those of ``RecurrenceInputs``, and whether to keep what the backward pass needs.

    Returns:
        All h_t, the last h, the last c; and the gates' values and all c_t. Empty is what a cell has not and
        what is not kept.
    """
    inputs, train = RecurrenceInputs(*arguments[:-1]), arguments[-1]
    steps, batch = check_recurrence(inputs)
    output, h_n, c_n, gates, cells = _results(inputs, train, empty)
    if batch == 0:
        return output, h_n, c_n, gates, cells
    call = _Call(inputs, steps, batch)
    ready = plain(call.features) if inputs.weight_ih is None else None
    if call.separate:
        assert call.weight_ih is not None
        # The cell puts its own values where it found these, so that they need no memory of their own.
        if inputs.cell.startswith("rnn"):
            ready = output
        elif train and inputs.cell != "gru" and call.pitch == inputs.hidden:
            ready = gates
        else:
            ready = empty(call.wide, call.features)
        multiply(call.features.flatten(0, -2), call.weight_ih.t(), out=ready.view(-1, call.wide[-1]))
    call.run("forward", output=output, h_n=h_n, c_n=c_n, gates=gates, cells=cells, ready=ready)
    return output, h_n, c_n, gates, cells


def _pitch(weight_hh: Tensor) -> int:
    """Return the distance between the gates of a unit in what is kept of them."""
    wide, hidden = weight_hh.shape
    if hidden < _FEWEST_IN_LINES or wide * hidden * weight_hh.element_size() > _LARGEST_WEIGHTS_IN_LINES:
        return hidden
    return -(-hidden // _LINE) * _LINE


def _shapes(inputs: RecurrenceInputs, train: bool) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of what the forward pass fills."""
    rows, hidden = inputs.features.shape[:-1], inputs.hidden
    saved, has_c = SAVED.get(inputs.cell, 0), inputs.cell.startswith("lstm")
    all_h, last, nothing = (*rows, hidden), inputs.h_0.shape, (0,)
    return (
        all_h,
        last,
        last if has_c else nothing,
        (*rows, saved * _pitch(inputs.weight_hh)) if saved and train else nothing,
        all_h if has_c and train else nothing,
    )


def _results(inputs: RecurrenceInputs, train: bool, make: Make) -> tuple[Tensor, ...]:
    """Make the tensors that the forward pass fills."""
    return tuple(make(shape, inputs.h_0) for shape in _shapes(inputs, train))


@torch.library.impl(LIBRARY, "recurrence_backward", "CPU")
def backward(*arguments: Any) -> list[Tensor]:
    """Run the backward pass of a recurrence.

    Args:
        *arguments: those of ``RecurrenceInputs``; all h_t and what the forward pass kept; the gradients of
            all h_t, of the last h and of the last c; and for each differentiable input whether its own is
            wanted.

    Returns:
        The gradient of each differentiable input, empty where there is none.
    """
    inputs = RecurrenceInputs(*arguments[:10])
    output, gates, cells, grad_output, grad_h_n, grad_c_n, wanted = arguments[10:]
    steps, batch = check_recurrence(inputs)
    if batch == 0:
        return [grad.zero_() for grad in _gradients(inputs, wanted, empty)]
    _check_results(inputs, arguments)
    if inputs.cell in SAVED and gates.numel() == 0:
        # The forward pass was told that nobody would ask.
        output, _, _, gates, cells = forward(*inputs, True)
    call = _Call(inputs, steps, batch)
    grads = _gradients(inputs, wanted, empty)
    grad_features, grad_weight_ih, grad_bias_ih, grad_weight_hh, grad_bias_hh, grad_modrelu, *initial = grads
    ready = None
    if inputs.weight_ih is None:
        ready = grad_features
    elif call.separate:
        ready = empty(call.wide, call.features)
    output, gates, cells, grad_output, grad_h_n, grad_c_n = plain_each(
        (output, gates, cells, grad_output, grad_h_n, grad_c_n)
    )
    call.run(
        "backward",
        output=output,
        gates=gates,
        cells=cells,
        grad_output=grad_output,
        grad_h_n=grad_h_n,
        grad_c_n=grad_c_n if inputs.cell.startswith("lstm") else None,
        grad_x=grad_features if call.inside else None,
        grad_ready=ready,
        grad_weight_ih=grad_weight_ih if call.inside else None,
        grad_bias_ih=grad_bias_ih,
        grad_weight_hh=grad_weight_hh,
        grad_bias_hh=grad_bias_hh,
        grad_modrelu_bias=grad_modrelu,
        grad_h_0=initial[0],
        grad_c_0=initial[1],
    )
    if call.separate and ready is not None and call.weight_ih is not None:
        flat = ready.view(-1, ready.shape[-1])
        if grad_weight_ih.numel():
            multiply(flat.t(), call.features.flatten(0, -2), out=grad_weight_ih)
        if grad_features.numel():
            multiply(flat, call.weight_ih, out=grad_features.view(-1, grad_features.shape[-1]))
    return grads


def _check_results(inputs: RecurrenceInputs, arguments: tuple[Any, ...], fake: bool = False) -> None:
    slot, kept, incoming = _pitch(inputs.weight_hh), arguments[10:13], arguments[13:16]
    check_results(inputs.cell, inputs.features, inputs.h_0, slot, kept, incoming, fake)


def _gradients(inputs: RecurrenceInputs, wanted: list[bool], make: Make) -> list[Tensor]:
    """Make a tensor for the gradient of each input tensor, an empty one for those that nobody wants."""
    grads = []
    for name, tensor, want in zip(inputs._fields[1:-1], inputs.differentiable, wanted, strict=True):
        # The kernel always leaves those of the initial states.
        needed = want or name in ("h_0", "c_0")
        grads.append(make(tuple(tensor.shape) if needed and tensor is not None else (0,), inputs.features))
    return grads


def _fake_forward(*arguments: Any) -> tuple[Tensor, ...]:
    inputs = RecurrenceInputs(*arguments[:-1])
    check_recurrence(inputs, fake=True)
    return _results(inputs, arguments[-1], without_data)


def _fake_backward(*arguments: Any) -> list[Tensor]:
    inputs = RecurrenceInputs(*arguments[:10])
    check_recurrence(inputs, fake=True)
    _check_results(inputs, arguments, fake=True)
    return _gradients(inputs, arguments[-1], without_data)


torch.library.register_fake("momentumrnn::recurrence", _fake_forward, lib=LIBRARY)
torch.library.register_fake("momentumrnn::recurrence_backward", _fake_backward, lib=LIBRARY)
