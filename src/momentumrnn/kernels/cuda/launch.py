"""What every launch of a Triton kernel is told."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momentumrnn.errors import BackendError
from momentumrnn.kernels.cuda.availability import interpreted
from momentumrnn.kernels.cuda.tiling import Device

__all__ = ["check_places", "first_rows", "on_device", "precision", "widens"]


def widens(dtype: torch.dtype) -> bool:
    """Whether a product's factors are made wide first: the interpreter cannot multiply bfloat16."""
    return interpreted() and dtype is torch.bfloat16


def precision(cell: str, dtype: torch.dtype, device: Device) -> str:
    """Return how a cell's float32 is multiplied: as torch has cuDNN's recurrences do it.

    But not of modrelu, whose U is orthogonal nearly always. Triton cuts factors off to TF32 and does not
    round them: of a norm that U keeps, 0.58 was left after 784 steps, and by three products 0.9998.
    """
    if dtype is not torch.float32:
        return "ieee"
    # Not allow_tf32, which raises where a program has set the other.
    switch: Any = torch.backends.cudnn.rnn
    if switch.fp32_precision == "tf32" and cell != "rnn_modrelu":
        return "tf32"
    # Three products in TF32 make one in float32, all but its last bits, where there are tensor cores for it.
    return "tf32x3" if device.capability >= (8, 0) else "ieee"


def first_rows(steps: int, batch: int, batch_sizes: Tensor | None, device: torch.device) -> Tensor:
    """Return the first row of every step, and twice the number of rows behind: (T + 2,)."""
    if batch_sizes is None:
        return torch.arange(steps + 2, device=device).clamp_(max=steps).mul_(batch)
    ends = batch_sizes.cumsum(0)
    return torch.cat([ends.new_zeros(1), ends, ends[-1:]]).to(device, non_blocking=True)


def check_places(count: int) -> None:
    """Check how many numbers a state or a matrix has, which the kernels count in 32 bits.

    Raises:
        BackendError: it has more.
    """
    if count >= 1 << 31:
        raise BackendError(
            f'expected fewer than 2^31 numbers in a state or matrix for backend "triton", got {count}; run a '
            'smaller batch, or the layer inside momentumrnn.backend("reference")'
        )


def on_device(tensor: Tensor) -> Any:
    """Return a context in which launches go to the tensor's own device."""
    return torch.cuda.device_of(tensor)
