"""Recordings of gradients, as they lie beside runs in the folder ``gradients``."""

from pathlib import Path

from momentumrnn.analysis import GradientHistory
from momentumrnn.results.find import GRADIENTS

SUFFIX = ".safetensors"
STEPS, SMOKE_STEPS = 300, 6


def gradient_file(out: Path, row: str) -> Path:
    """Where a row's norms are.

    Args:
        out: Where everything is.
        row: Its name.
    """
    return out / GRADIENTS / f"{row}{SUFFIX}"


def steps_recorded(path: Path) -> int | None:
    """Up to which training step a row's norms are there; ``None`` where nothing is.

    Args:
        path: The file.

    Raises:
        CheckpointError: It holds something else.
    """
    return max(GradientHistory.load(path).iterations, default=0) if path.exists() else None


def is_recorded(path: Path, smoke: bool) -> bool:
    """Whether a row's norms are there up to the last step.

    Args:
        path: The file.
        smoke: Whether fewer steps are enough.

    Raises:
        CheckpointError: It holds something else.
    """
    return (steps_recorded(path) or 0) >= (SMOKE_STEPS if smoke else STEPS)
