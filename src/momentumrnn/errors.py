"""The errors this package raises, each a subclass of the built-in one a caller would expect; and warnings."""

import sys
import warnings
from types import FrameType


class InputError(ValueError, RuntimeError):
    """A tensor of the wrong shape, dtype or device.

    ``torch.nn`` raises ``ValueError`` for some of these and ``RuntimeError`` for others; code that
    catches either keeps working.
    """


class BackendError(RuntimeError):
    """A backend that was asked for by name and does not exist or cannot run the layer."""


class RecipeError(ValueError):
    """A recipe that cannot be read: an unknown key, a wrong type, values that contradict each other."""


class DataError(ValueError):
    """A data file that is damaged, or holds values no model can learn from."""


class DataMissingError(FileNotFoundError):
    """A dataset that is not where it was looked for."""


class CheckpointError(RuntimeError):
    """A checkpoint or a run folder that cannot be used."""


class InUseError(CheckpointError):
    """A folder that another process holds."""


class DivergedError(RuntimeError):
    """A training run whose loss is no longer a finite number, or has grown a million times."""


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the first line up the stack that is neither this package's nor torch's.

    A layer is called through ``torch.nn.Module``, so the line to show is behind both.
    """
    level = 1
    frame: FrameType | None = sys._getframe(0)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in {
        "momentumrnn",
        "torch",
    }:
        level += 1
        frame = frame.f_back
    warnings.warn(text, category, stacklevel=level)
