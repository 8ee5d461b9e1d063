"""What is checked of tensors before their addresses are handed to the kernels, which trust them.

Every registered operator of ``momentumrnn`` checks its operands here, and so does its fake, which must not
look at sizes: they may be symbols.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momentumrnn.errors import InputError
from momentumrnn.kernels.problem import GATES, SAVED

__all__ = [
    "COMPUTED_IN_CPP",
    "CPU",
    "FLOATING",
    "Operand",
    "cast",
    "check_batch_sizes",
    "check_kind",
    "check_operands",
    "check_recurrence",
    "check_results",
    "check_rows",
    "layout_of",
    "wide_dtype",
]

COMPUTED_IN_CPP = (torch.float32, torch.float64)
CPU = torch.device("cpu")
FLOATING = (torch.float16, torch.bfloat16, *COMPUTED_IN_CPP)

_DENSE = torch.strided

Operand = tuple[str, Tensor | None, tuple[int, ...], torch.dtype, bool]
"""A name, the tensor, the shape and dtype that it has to have, and whether it has to be there."""


def layout_of(tensor: Tensor) -> str:
    """Name the layout of a tensor that is not dense, for an error message."""
    return "a nested tensor" if tensor.is_nested else f"one of layout {tensor.layout}"


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return float32, or float64 for float64: the dtype of sums over steps."""
    return dtype if dtype.itemsize > 2 else torch.float32


def cast(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a tensor to a dtype.

    Raises:
        InputError: the tensor is complex and the dtype is not.
    """
    if tensor.is_complex() and not dtype.is_complex:
        raise InputError(
            f"expected {name} of real numbers, like the other tensors of a layer, got {tensor.dtype}"
        )
    return tensor.to(dtype)


def check_kind(
    name: str,
    tensor: Tensor | None,
    dims: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device | None,
) -> None:
    """Check everything but the shape of a tensor with which others have to agree.

    Args:
        name: its name in error messages.
        tensor: the tensor.
        dims: the numbers of dimensions that it may have.
        dtypes: the dtypes that it may have.
        device: its device; ``None`` if the caller checks the device.

    Raises:
        InputError: it is missing, sparse or nested, or has another number of dimensions, dtype or device.
    """
    if tensor is None:
        raise InputError(f"expected {name}, got None")
    if tensor.layout is not _DENSE or tensor.is_nested:
        raise InputError(f"expected {name} as a dense tensor, got {layout_of(tensor)}")
    if tensor.dim() not in dims:
        words = " or ".join(f"{dim}D" for dim in dims)
        raise InputError(f"expected {name} as a {words} tensor, got one of shape {tuple(tensor.shape)}")
    if tensor.dtype not in dtypes or (device is not None and tensor.device != device):
        place = "" if device is None else f" on {'the CPU' if device == CPU else device}"
        raise InputError(
            f"expected {name} in {' or '.join(map(str, dtypes))}{place}, got {tensor.dtype} on "
            f"{tensor.device}; a trace keeps the kernels of its example, so convert a layer before it is "
            "traced or exported"
        )


def check_rows(
    name: str,
    rows: Tensor,
    batch_sizes: Tensor | None,
    dtypes: tuple[torch.dtype, ...] = COMPUTED_IN_CPP,
    device: torch.device | None = CPU,
    fake: bool = False,
) -> tuple[int, int]:
    """Check a batch of sequences: (T, B, n), or the rows (N, n) of a packed batch.

    Args:
        name: its name in error messages.
        rows: the batch.
        batch_sizes: int64 (T,) on the CPU for a packed batch.
        dtypes: the dtypes that the kernels compute in.
        device: as in ``check_kind``.
        fake: whether to leave out everything that depends on sizes.

    Returns:
        T and B; B is 0 for the fake of a packed batch, whose number of sequences is data.

    Raises:
        InputError: ``check_kind`` or ``check_batch_sizes`` refuses it, or there is no step.
    """
    if fake:
        # Shapes can be computed on any device.
        device = None
    if batch_sizes is None:
        check_kind(name, rows, (3,), dtypes, device)
        steps, batch = rows.shape[0], rows.shape[1]
    else:
        check_kind(name, rows, (2,), dtypes, device)
        batch = check_batch_sizes(batch_sizes, None if fake else rows.shape[0])
        steps = batch_sizes.shape[0]
    if not fake and steps == 0:
        raise InputError("expected a sequence of one or more steps, got an empty one")
    return steps, batch


def check_operands(device: torch.device, *operands: Operand, fake: bool = False) -> None:
    """Check tensors against the shapes and dtypes that others imply.

    Args:
        device: the device that all of them have to be on.
        *operands: what is expected of each.
        fake: whether to look at the number of dimensions alone and not at the sizes.

    Raises:
        InputError: one is missing, sparse, or has another shape, dtype or device.
    """
    for name, tensor, shape, dtype, needed in operands:
        if tensor is None:
            if needed:
                raise InputError(f"expected {name} of shape {shape}, got None")
            continue
        if tensor.layout is not _DENSE:
            raise InputError(f"expected {name} as a dense tensor, got {layout_of(tensor)}")
        if (tensor.dim() != len(shape)) if fake else tensor.shape != shape:
            raise InputError(f"expected {name} of shape {shape}, got {tuple(tensor.shape)}")
        if tensor.dtype is not dtype or tensor.device != device:
            raise InputError(
                f"expected {name} of dtype {dtype} on {device}, got {tensor.dtype} on {tensor.device}; "
                "a layer's tensors are of one dtype and on one device; convert a layer before it is traced "
                "or exported"
            )


def check_recurrence(
    inputs: tuple[Any, ...],
    dtypes: tuple[torch.dtype, ...] = COMPUTED_IN_CPP,
    device: torch.device | None = CPU,
    fake: bool = False,
) -> tuple[int, int]:
    """Check the operands of a recurrence.

    Args:
        inputs: the fields of ``momentumrnn.kernels.recurrence_operator.RecurrenceInputs``; c_0 is in float32
            at least.
        dtypes: as in ``check_rows``.
        device: as in ``check_rows``.
        fake: as in ``check_rows``.

    Returns:
        T and B, as ``check_rows`` does.

    Raises:
        InputError: there is no such cell, or ``check_rows`` or ``check_operands`` refuses one.
    """
    cell, features, weight_ih, bias_ih, weight_hh, bias_hh, modrelu_bias, h_0, c_0, batch_sizes = inputs
    gates = GATES.get(cell)
    if gates is None:
        raise InputError(f"expected a cell among {', '.join(GATES)}, got {cell!r}")
    steps, batch = check_rows("the features of a recurrence", features, batch_sizes, dtypes, device, fake)
    if weight_hh is None or weight_hh.dim() != 2:
        check_kind("weight_hh", weight_hh, (2,), dtypes, device)
    hidden, dtype, device = weight_hh.shape[1], weight_hh.dtype, weight_hh.device
    wide, state = gates * hidden, (batch, hidden)
    width = features.shape[-1]
    misfits = weight_ih is None and not fake and width != wide
    if misfits or features.dtype is not dtype or features.device != device:
        shape = (*features.shape[:-1], wide if weight_ih is None else width)
        check_operands(device, ("features", features, shape, dtype, True), fake=fake)
    check_operands(
        device,
        ("weight_ih", weight_ih, (wide, width), dtype, False),
        ("bias_ih", bias_ih, (wide,), dtype, False),
        ("weight_hh", weight_hh, (wide, hidden), dtype, True),
        ("bias_hh", bias_hh, (wide,), dtype, False),
        ("the bias of modrelu", modrelu_bias, (hidden,), dtype, cell == "rnn_modrelu"),
        ("h_0", h_0, state, dtype, True),
        ("c_0", c_0, state, wide_dtype(dtype), cell.startswith("lstm")),
        fake=fake,
    )
    return steps, batch


def check_results(
    cell: str,
    features: Tensor,
    h_0: Tensor,
    slot: int,
    kept: tuple[Tensor, Tensor, Tensor],
    incoming: tuple[Tensor, Tensor | None, Tensor | None],
    fake: bool = False,
) -> None:
    """Check what a recurrence's forward pass kept, which hooks may change, and the gradients of its results.

    Args:
        cell: the cell.
        features: the features, or the gate inputs.
        h_0: the initial state.
        slot: the numbers for each gate in a row of what is kept of the gates.
        kept: the output, the gates and every c_t.
        incoming: the gradients of the output, of h_n and of c_n.
        fake: as in ``check_operands``.

    Raises:
        InputError: one has another shape, dtype or device than the forward pass gave.
    """
    output, gates, cells = kept
    grad_output, grad_h_n, grad_c_n = incoming
    rows, last, dtype = features.shape[:-1], h_0.shape, h_0.dtype
    all_h, wide, has_c = (*rows, last[1]), wide_dtype(dtype), cell.startswith("lstm")
    # One dimension means that the forward pass was not asked to keep anything.
    saved = cell in SAVED and (gates is None or gates.dim() > 1)
    check_operands(
        features.device,
        ("output", output, all_h, dtype, True),
        ("gates", gates, (*rows, SAVED[cell] * slot) if saved else (0,), dtype, True),
        ("cells", cells, all_h if has_c and saved else (0,), wide, True),
        ("grad_output", grad_output, all_h, dtype, True),
        ("grad_h_n", grad_h_n, last, dtype, False),
        ("grad_c_n", grad_c_n if has_c else None, last, wide, False),
        fake=fake,
    )


def check_batch_sizes(batch_sizes: Tensor, rows: int | None) -> int:
    """Check how many sequences of a packed batch run at each step.

    Args:
        batch_sizes: the sizes.
        rows: the number of rows of the batch; ``None`` to leave out the numbers, which a graph does not know.

    Returns:
        The number of sequences, B; 0 where ``rows`` is ``None``.

    Raises:
        InputError: they are not what ``torch.nn.utils.rnn.pack_sequence`` gives for so many rows.
    """
    if not (
        batch_sizes.dim() == 1
        and batch_sizes.dtype is torch.int64
        and batch_sizes.device == CPU
        and batch_sizes.layout is _DENSE
    ):
        raise InputError(
            "expected batch_sizes of a packed batch as a 1D int64 tensor on the CPU, got "
            f"{batch_sizes.dim()}D {batch_sizes.dtype} on {batch_sizes.device}"
        )
    if rows is None:
        return 0
    sizes = batch_sizes.tolist()
    if not sizes or sizes[-1] < 1 or sizes != sorted(sizes, reverse=True) or sum(sizes) != rows:
        raise InputError(
            "expected batch_sizes of a packed batch that never rise, end at 1 or more and add up to its "
            f"{rows} rows, got {sizes[:8]}{' …' if len(sizes) > 8 else ''}; make one by "
            "torch.nn.utils.rnn.pack_sequence"
        )
    first: int = sizes[0]
    return first
