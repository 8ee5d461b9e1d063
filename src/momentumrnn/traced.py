"""Whether a call is recorded by ``torch.jit.trace``, to be replayed on tensors of other sizes."""

from __future__ import annotations

import torch

__all__ = ["traced"]


def traced() -> bool:
    """Whether this call is being recorded: then nothing that is kept may hang on the example's sizes."""
    # torch.jit exports is_tracing without types, to mypy not at all.
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
