"""What a run changes in its process, and gives back."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def surroundings_kept(device: torch.device) -> Iterator[None]:
    """Give back, at the end of the block, torch's random numbers, threads and treatment of denormals.

    Args:
        device: That on which random numbers are drawn inside, beside the CPU.
    """
    threads, flushes = torch.get_num_threads(), _flushes_denormals()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushes)


def _flushes_denormals() -> bool:
    # Torch can be told, and not be asked.
    return (torch.tensor(1e-310, dtype=torch.float64) * 1.0).item() == 0.0
