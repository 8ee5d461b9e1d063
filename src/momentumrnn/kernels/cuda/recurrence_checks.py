"""What is checked before a recurrence in Triton trusts its operands."""

from __future__ import annotations

from torch import Tensor

from momentumrnn.kernels.cuda.launch import check_places, total_dtype
from momentumrnn.kernels.operands import check_cell, check_operands, check_sizes, check_steps
from momentumrnn.kernels.problem import GATES, SAVED

__all__ = ["check_kept", "check_recurrence"]


def check_recurrence(
    cell: str,
    d: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    modrelu_bias: Tensor | None,
    h_0: Tensor,
    c_0: Tensor | None,
    batch_sizes: Tensor | None,
) -> tuple[int, int]:
    """Check the operands, those of ``momentumrnn.kernels.cuda.recurrence``, and return T and B.

    Raises:
        InputError: one has another shape, dtype or device than the others imply, or there is no step.
        BackendError: there are more than the kernels can count.
    """
    check_sizes(batch_sizes, d.shape[0])
    steps, batch = d.shape[:2] if batch_sizes is None else (batch_sizes.shape[0], int(batch_sizes[0]))
    check_steps(steps)
    check_cell(cell, modrelu_bias, c_0)
    hidden = weight_hh.shape[1]
    wide = GATES[cell] * hidden
    check_operands(
        weight_hh,
        ("gate inputs", d, (*d.shape[:-1], wide)),
        ("weight_hh", weight_hh, (wide, hidden)),
        ("bias_hh", bias_hh, (wide,)),
        ("modrelu_bias", modrelu_bias, (hidden,)),
        ("h_0", h_0, (batch, hidden)),
    )
    check_operands(weight_hh, ("c_0", c_0, (batch, hidden)), dtype=total_dtype(d.dtype))
    check_places(max(batch * hidden, wide * hidden))
    return steps, batch


def check_kept(
    cell: str,
    d: Tensor,
    weight_hh: Tensor,
    h_0: Tensor,
    kept: tuple[Tensor, Tensor, Tensor],
    incoming: tuple[Tensor, Tensor | None, Tensor | None],
) -> None:
    """Check what the forward pass kept, and the gradients of its three results.

    Raises:
        InputError: one has another shape, dtype or device than the forward pass gave.
    """
    output, gates, cells = kept
    grad_output, grad_h_n, grad_c_n = incoming
    rows, hidden, has_c = d.shape[:-1], weight_hh.shape[1], cell.startswith("lstm")
    saved = SAVED.get(cell, 0) * hidden
    check_operands(
        weight_hh,
        ("output", output, (*rows, hidden)),
        ("gates", gates, (*rows, saved) if saved else (0,)),
        ("grad_output", grad_output, (*rows, hidden)),
        ("grad_h_n", grad_h_n, tuple(h_0.shape)),
    )
    check_operands(
        weight_hh,
        ("cells", cells, (*rows, hidden) if has_c else (0,)),
        ("grad_c_n", grad_c_n if has_c else None, tuple(h_0.shape)),
        dtype=total_dtype(d.dtype),
    )
