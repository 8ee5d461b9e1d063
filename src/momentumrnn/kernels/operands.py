"""What is checked of tensors before their addresses are handed to the kernels, which trust them."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from momentumrnn.errors import InputError

__all__ = ["check_cell", "check_operands", "check_sizes", "check_sizes_kind", "check_steps"]


def check_cell(cell: str, modrelu_bias: Tensor | None, c_0: Tensor | None) -> None:
    """Check that a cell has what it cannot do without.

    Raises:
        InputError: an LSTM has no c_0, or modrelu no bias.
    """
    if cell.startswith("lstm") and c_0 is None:
        raise InputError("expected c_0 of an LSTM, got None")
    if cell == "rnn_modrelu" and modrelu_bias is None:
        raise InputError("expected the bias of modrelu, got None")


def check_steps(steps: int) -> None:
    """Check that there is something to run.

    Raises:
        InputError: a sequence has no step.
    """
    if steps == 0:
        raise InputError("expected a sequence of one or more steps, got an empty one")


def check_operands(
    like: Tensor, *operands: tuple[str, Tensor | None, tuple[int, ...]], dtype: torch.dtype | None = None
) -> None:
    """Check tensors, each behind its name, against the shapes that others imply.

    Args:
        like: whose dtype and device they have to have.
        *operands: name, tensor and shape; an absent tensor is ``None``.
        dtype: in the place of ``like``'s.

    Raises:
        InputError: one has another shape, dtype or device.
    """
    device = like.device
    if dtype is None:
        dtype = like.dtype
    for name, tensor, shape in operands:
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise InputError(f"expected {name} of shape {shape}, got {tuple(tensor.shape)}")
        if tensor.dtype is not dtype or tensor.device != device:
            raise InputError(
                f"expected {name} of dtype {dtype} on {device}, got {tensor.dtype} on {tensor.device}; "
                "a layer's tensors are of one dtype and on one device"
            )


def check_sizes_kind(batch_sizes: Tensor) -> None:
    """Check what ``batch_sizes`` of a packed batch are, without a look at the numbers.

    Raises:
        InputError: they are no 1D int64 tensor on the CPU.
    """
    if batch_sizes.dim() != 1 or batch_sizes.dtype != torch.int64 or batch_sizes.device.type != "cpu":
        raise InputError(
            "expected batch_sizes of a packed batch as a 1D int64 tensor on the CPU, got "
            f"{batch_sizes.dim()}D {batch_sizes.dtype} on {batch_sizes.device}"
        )


def check_sizes(batch_sizes: Tensor | None, rows: int) -> None:
    """Check how many sequences of a packed batch run at each step.

    Raises:
        InputError: they are not what ``torch.nn.utils.rnn.pack_sequence`` gives for so many rows.
    """
    if batch_sizes is None:
        return
    check_sizes_kind(batch_sizes)
    sizes = batch_sizes.tolist()
    falling = all(one >= other for one, other in pairwise(sizes))
    if not sizes or sizes[-1] < 1 or not falling or sum(sizes) != rows:
        raise InputError(
            "expected batch_sizes of a packed batch that never rise, end at 1 or more and add up to its "
            f"{rows} rows, got {sizes[:8]}{' …' if len(sizes) > 8 else ''}; make one by "
            "torch.nn.utils.rnn.pack_sequence"
        )
