"""What every launch of a Triton kernel is told."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels.cuda.availability import interpreted

__all__ = ["first_rows", "on_device", "precision", "total_dtype", "widens"]


def total_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return what sums over steps and units are kept in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


def widens(dtype: torch.dtype) -> bool:
    """Whether a product's factors are made wide first: the interpreter cannot multiply bfloat16."""
    return interpreted() and dtype is torch.bfloat16


def precision(dtype: torch.dtype) -> str:
    """Return how float32 is multiplied: as torch has cuDNN's recurrences do it."""
    # Not allow_tf32, which raises where a program has set the other.
    switch: Any = torch.backends.cudnn.rnn
    return "tf32" if dtype is torch.float32 and switch.fp32_precision == "tf32" else "ieee"


def first_rows(steps: int, batch: int, batch_sizes: Tensor | None, device: torch.device) -> Tensor:
    """Return the first row of every step, and twice the number of rows behind: (T + 2,)."""
    if batch_sizes is None:
        return torch.arange(steps + 2, device=device).clamp_(max=steps).mul_(batch)
    ends = batch_sizes.cumsum(0)
    return torch.cat([ends.new_zeros(1), ends, ends[-1:]]).to(device, non_blocking=True)


def on_device(tensor: Tensor) -> Any:
    """Return a context in which launches go to the tensor's own device."""
    return torch.cuda.device_of(tensor)
