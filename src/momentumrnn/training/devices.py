"""Where a run is carried out."""

import torch

from momentumrnn.errors import BackendError


def choose_device(device: str) -> str:
    """The device that a run is on.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for the GPU where there is one.

    Raises:
        BackendError: There is no such device.
    """
    available = torch.cuda.is_available()
    if device == "auto":
        return "cuda" if available else "cpu"
    if device == "cuda" and not available:
        raise BackendError("--device cuda: torch finds no CUDA device here; use cpu or auto")
    if device not in ("cpu", "cuda"):
        raise BackendError(f"expected the device cpu, cuda or auto, got {device!r}")
    return device
