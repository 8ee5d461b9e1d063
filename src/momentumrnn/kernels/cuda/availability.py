"""Whether Triton is here, and whether it compiles kernels or interprets them."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

from torch import Tensor

from momentumrnn.errors import BackendError

__all__ = ["check_device", "interpreted", "missing"]


@cache
def missing() -> str | None:
    """Return why there are no Triton kernels, ``None`` where they can run."""
    # Found, not imported: that takes half a second.
    if find_spec("triton") is None:
        return "Triton is not installed; it comes with torch for CUDA on Linux"
    return None


@cache
def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter, on the CPU and step by step: what tests use.

    Triton asks the environment when a kernel is made, so it is asked once here too.
    """
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def check_device(tensor: Tensor) -> None:
    """Raise ``BackendError`` unless a Triton kernel can run on the tensor."""
    if reason := missing():
        raise BackendError(f'backend "triton" cannot run: {reason}')
    if not (tensor.is_cuda or (interpreted() and tensor.device.type == "cpu")):
        raise BackendError(
            f'backend "triton": expected tensors on CUDA, got {tensor.device}; move the layer there, or set '
            "TRITON_INTERPRET=1 before Python starts to run the kernels in Triton's interpreter, slowly"
        )
