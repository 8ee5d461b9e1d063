"""What a recorded call holds: ``torch.compile`` constants, ``torch.jit.trace`` no sizes of its example."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

__all__ = ["constant", "recorded", "traced"]

F = TypeVar("F", bound=Callable[..., object])


def constant(function: F) -> F:
    """Have ``torch.compile`` call ``function`` while it traces, and keep the result in the graph.

    ``torch.compiler.assume_constant_result`` does the same, but imports the whole compiler.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function


def traced() -> bool:
    """Whether ``torch.jit.trace`` records this call, to replay it on tensors of other sizes."""
    # torch.jit exports is_tracing without types, to mypy not at all.
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def recorded() -> bool:
    """Whether somebody writes down, or watches, every operator that is called."""
    if torch.compiler.is_compiling() or traced():
        return True
    # torch has no public question for the modes that watch every operator.
    watched: bool = torch._C._len_torch_dispatch_stack() > 0
    return watched
