"""What ``torch.compile`` should not look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["constant"]

F = TypeVar("F", bound=Callable[..., object])


def constant(function: F) -> F:
    """Have ``torch.compile`` call ``function`` while it traces, and keep the result in the graph.

    ``torch.compiler.assume_constant_result`` does the same, but imports the whole compiler.
    """
    vars(function)["_dynamo_marked_constant"] = True
    return function
