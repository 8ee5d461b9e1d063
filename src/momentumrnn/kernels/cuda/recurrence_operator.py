"""A recurrence in Triton as torch operators: one node in a graph for a whole layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels.cuda.availability import check_device, interpreted
from momentumrnn.kernels.cuda.launch import check_places, first_rows, on_device, precision, widens
from momentumrnn.kernels.cuda.tiling import Tiling, device_of, tiling
from momentumrnn.kernels.operands import FLOATING, check_recurrence, check_results, wide_dtype
from momentumrnn.kernels.operators import LIBRARY
from momentumrnn.kernels.problem import GATES, SAVED

__all__ = ["BACKWARD", "FORWARD", "backward", "backward_over_gates", "forward", "forward_over_d"]

# Their names, for who adds the derivatives.
FORWARD, BACKWARD = "momentumrnn::triton_recurrence", "momentumrnn::triton_recurrence_backward"

_INPUTS = (
    "str cell, Tensor d, Tensor weight_hh, Tensor? bias_hh, Tensor? modrelu_bias, Tensor h_0, Tensor? c_0, "
    "Tensor? batch_sizes"
)
LIBRARY.define(f"triton_recurrence({_INPUTS}, bool train) -> (Tensor, Tensor, Tensor, Tensor, Tensor)")
LIBRARY.define(
    f"triton_recurrence_backward({_INPUTS}, Tensor output, Tensor gates, Tensor cells, Tensor grad_output, "
    "Tensor? grad_h_n, Tensor? grad_c_n) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


class _Call:
    """One call's sizes, and what both passes tell the kernels alike."""

    def __init__(
        self,
        cell: str,
        d: Tensor,
        weight_hh: Tensor,
        batch_sizes: Tensor | None,
        steps: int,
        batch: int,
    ) -> None:
        check_device(d)
        # Here and not above: without CUDA nobody has Triton.
        import triton.language as tl

        self.steps, self.batch = steps, batch
        self.hidden, self.gates = weight_hh.shape[1], GATES[cell]
        check_places(max(batch, self.gates * self.hidden) * self.hidden)
        self.starts = first_rows(self.steps, self.batch, batch_sizes, d.device)
        device = device_of(d.device.index)
        multiplied = precision(cell, d.dtype, device)
        split = multiplied == "tf32x3"
        way: Tiling = tiling(self.hidden, self.gates, d.element_size(), self.batch, device, split)
        self._programs = way.programs(self.hidden)
        self._launches = way.launches(self.hidden, self.batch, device)
        # The interpreter runs one program after another: they could wait for ever.
        self._waits = way.resident and not interpreted()
        self._like = d
        self._constants = {
            "CELL": cell,
            "GATES": self.gates,
            "ROWS": way.rows,
            "UNITS": way.units,
            "PARTS": way.parts,
            "DEPTH": way.depth,
            "RESIDENT": way.resident,
            "WAIT": self._waits,
            "TOTAL": tl.float64 if d.dtype is torch.float64 else tl.float32,
            "PRECISION": multiplied,
            "WIDEN": widens(d.dtype),
            "num_warps": way.warps,
            # Loads made a step ahead would read what is not written yet.
            "num_stages": 1 if way.resident else 3,
            "launch_cooperative_grid": self._waits,
        }

    def run(self, kernel: Any, arrays: Sequence[Tensor | None], backwards: bool, **constants: Any) -> None:
        """Launch a kernel once for all steps, or once for each, in time's direction or against it."""
        from momentumrnn.kernels.cuda.meeting import STRIDE

        spans = [(0, self.steps)]
        if not self._waits:
            order = range(self.steps)
            spans = [(t, t + 1) for t in (reversed(order) if backwards else order)]
        arrivals = self.starts.new_zeros(self._launches[-1].stop * STRIDE.value, dtype=torch.int32)
        with on_device(self._like):
            for groups in self._launches:
                for first, last in spans:
                    kernel[(self._programs, len(groups))](
                        *arrays,
                        self.starts,
                        arrivals,
                        self.hidden,
                        groups.start,
                        first,
                        last,
                        **self._constants,
                        **constants,
                    )


def _check(inputs: tuple[Any, ...], fake: bool = False) -> tuple[int, int]:
    """Check the operands and return T and B; ``check_device`` refuses devices before a launch."""
    cell, d, *rest = inputs
    return check_recurrence((cell, d, None, None, *rest), FLOATING, None, fake)


def _results(
    cell: str, d: Tensor, weight_hh: Tensor, h_0: Tensor, train: bool, overwrite: bool = False
) -> tuple[Tensor, ...]:
    """Make the tensors that the forward pass fills."""
    hidden, wide = weight_hh.shape[1], wide_dtype(d.dtype)
    saved, has_c = SAVED.get(cell, 0) if train else 0, cell.startswith("lstm")
    rows = d.shape[:-1]
    return (
        d.new_empty((*rows, hidden)),
        d.new_empty(h_0.shape),
        d.new_empty(h_0.shape if has_c else (0,), dtype=wide),
        # A program reads a gate input before it writes the gate, and no other program reads it.
        d.detach()
        if overwrite and saved * hidden == d.shape[-1] and d.is_contiguous()
        else d.new_empty((*rows, saved * hidden) if saved else (0,)),
        d.new_empty((*rows, hidden) if has_c and train else (0,), dtype=wide),
    )


def forward(*arguments: Any) -> tuple[Tensor, ...]:
    """Run the cell; arguments and result as in ``momentumrnn.kernels.cuda.recurrence``.

    Returns:
        Its three results, the gates and every c_t: as far as they are kept.
    """
    return _forward(*arguments, overwrite=False)


def forward_over_d(*arguments: Any) -> tuple[Tensor, ...]:
    """Do as ``forward``, and keep the gates in d's place where there are as many."""
    return _forward(*arguments, overwrite=True)


def _forward(
    cell: str,
    d: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    modrelu_bias: Tensor | None,
    h_0: Tensor,
    c_0: Tensor | None,
    batch_sizes: Tensor | None,
    train: bool,
    *,
    overwrite: bool,
) -> tuple[Tensor, ...]:
    steps, batch = _check((cell, d, weight_hh, bias_hh, modrelu_bias, h_0, c_0, batch_sizes))
    output, h_n, c_n, gates, cells = results = _results(cell, d, weight_hh, h_0, train, overwrite)
    if batch == 0:
        return results
    call = _Call(cell, d, weight_hh, batch_sizes, steps, batch)
    from momentumrnn.kernels.cuda import recurrence_forward

    if c_0 is not None:
        c_n.copy_(c_0)
    inputs = (d, weight_hh, bias_hh, modrelu_bias, h_0)
    arrays = [None if tensor is None else tensor.contiguous() for tensor in inputs]
    call.run(
        recurrence_forward.forward,
        [*arrays, c_n, output, gates, cells],
        False,
        BIAS=bias_hh is not None,
        TRAIN=train,
    )
    h_n.copy_(output[-1] if batch_sizes is None else output[_last_rows(call, batch_sizes)])
    return results


def _last_rows(call: _Call, batch_sizes: Tensor) -> Tensor:
    """Return the row of each sequence's last step."""
    sequence = torch.arange(call.batch, device=batch_sizes.device)
    step = (batch_sizes.unsqueeze(1) > sequence).sum(0) - 1
    starts = batch_sizes.cumsum(0) - batch_sizes
    return (starts[step] + sequence).to(call.starts.device, non_blocking=True)


def backward(*arguments: Any) -> tuple[Tensor, ...]:
    """Return the gradient of each input tensor, of whatever size for those that are absent.

    Args:
        *arguments: the forward pass's but for the last; the output, gates and every c_t that it left; the
            gradients of its three results.
    """
    return _backward(*arguments, overwrite=False)


def backward_over_gates(*arguments: Any) -> tuple[Tensor, ...]:
    """Do as ``backward``, and put d's gradient in the gates' place where there are as many."""
    return _backward(*arguments, overwrite=True)


def _backward(
    cell: str,
    d: Tensor,
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
    *,
    overwrite: bool,
) -> tuple[Tensor, ...]:
    inputs = (cell, d, weight_hh, bias_hh, modrelu_bias, h_0, c_0, batch_sizes)
    steps, batch = _check(inputs)
    kept, incoming = (output, gates, cells), (grad_output, grad_h_n, grad_c_n)
    check_results(cell, d, h_0, weight_hh.shape[1], kept, incoming)
    output, gates, cells = output.contiguous(), gates.contiguous(), cells.contiguous()
    grads = _gradients(*inputs, grad_d=gates if overwrite and gates.shape == d.shape else None)
    grad_d, grad_weight, grad_bias, grad_modrelu, grad_h_0, grad_c_0 = grads
    if batch == 0:
        for grad in grads:
            grad.zero_()
        return grads
    if cell in SAVED and gates.numel() == 0:
        # The forward pass was told that nobody would ask.
        output, _, _, gates, cells = forward(*inputs, True)
    call = _Call(cell, d, weight_hh, batch_sizes, steps, batch)
    from momentumrnn.kernels.cuda import recurrence_backward

    wide = wide_dtype(d.dtype)
    carried_h = torch.zeros_like(h_0, dtype=wide) if grad_h_n is None else grad_h_n.to(wide, copy=True)
    carried_h = carried_h.contiguous()
    if c_0 is not None:
        grad_c_0.zero_() if grad_c_n is None else grad_c_0.copy_(grad_c_n)
    grad_n = torch.empty_like(output) if cell == "gru" else output.new_empty(0)
    weight, h_0, grad_output = weight_hh.contiguous(), h_0.contiguous(), grad_output.contiguous()
    # The kernel knows a pointer by its type, also one it never reads.
    c = cells if c_0 is None else c_0.contiguous()
    call.run(
        recurrence_backward.backward,
        [weight, h_0, c, output, gates, cells, grad_output, grad_d, grad_n, carried_h, grad_c_0],
        True,
    )
    slopes = grad_d.flatten(0, -2)
    if cell == "gru":
        slopes = torch.cat([slopes[:, : 2 * call.hidden], grad_n.flatten(0, -2)], dim=1)
    _multiply_out(call, batch_sizes, slopes, weight, h_0, output, grad_weight, grad_h_0)
    if cell == "gru":
        grad_h_0 += carried_h
    if bias_hh is not None:
        torch.sum(slopes, 0, out=grad_bias)
    if modrelu_bias is not None:
        torch.sum(slopes * output.flatten(0, -2).sign(), 0, out=grad_modrelu)
    return grads


def _multiply_out(
    call: _Call,
    batch_sizes: Tensor | None,
    slopes: Tensor,
    weight_hh: Tensor,
    h_0: Tensor,
    output: Tensor,
    grad_weight: Tensor,
    grad_h_0: Tensor,
) -> None:
    """Work out what is one product over all steps: U's gradient, and that of h_0."""
    first, later = slopes[: call.batch], slopes[call.batch :]
    torch.mm(first.t(), h_0, out=grad_weight)
    rows = output.flatten(0, -2)
    if batch_sizes is None:
        before = rows[: later.shape[0]]
    else:
        here = batch_sizes.device
        step = torch.repeat_interleave(torch.arange(call.steps, device=here), batch_sizes)[call.batch :]
        row = torch.arange(call.batch, rows.shape[0], device=here)
        before = rows[(row - batch_sizes[step - 1]).to(rows.device)]
    grad_weight.addmm_(later.t(), before)
    torch.mm(first, weight_hh, out=grad_h_0)


def _gradients(
    cell: str,
    d: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    modrelu_bias: Tensor | None,
    h_0: Tensor,
    c_0: Tensor | None,
    batch_sizes: Tensor | None,
    *,
    grad_d: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Make a tensor for the gradient of each input but where there is one, empty for those absent."""
    tensors = (weight_hh, bias_hh, modrelu_bias, h_0, c_0)
    others = (d.new_empty(0) if tensor is None else tensor.new_empty(tensor.shape) for tensor in tensors)
    return d.new_empty(d.shape) if grad_d is None else grad_d, *others


def _recurrence_fake(*args: Any) -> tuple[Tensor, ...]:
    cell, d, weight_hh, h_0, train = args[0], args[1], args[2], args[5], args[-1]
    _check(args[:8], fake=True)
    return _results(cell, d, weight_hh, h_0, train)


def _backward_fake(*args: Any) -> tuple[Tensor, ...]:
    _check(args[:8], fake=True)
    check_results(args[0], args[1], args[5], args[2].shape[1], args[8:11], args[11:14], fake=True)
    return _gradients(*args[:8])


for _key in ("CUDA", "CPU"):
    # On the CPU for the interpreter, which check_device asks for.
    torch.library.impl(LIBRARY, "triton_recurrence", _key)(forward)
    torch.library.impl(LIBRARY, "triton_recurrence_backward", _key)(backward)
torch.library.register_fake(FORWARD, _recurrence_fake, lib=LIBRARY)
torch.library.register_fake(BACKWARD, _backward_fake, lib=LIBRARY)
