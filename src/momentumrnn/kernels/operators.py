"""What the operators in C++ share: where torch registers them, and how their tensors reach the kernels.

The operators are registered when their modules are imported, whether or not the kernels were built; so a
program that was exported with them can be loaded, and says what it lacks when it runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from momentumrnn.errors import BackendError
from momentumrnn.kernels.extension import extension, forked, missing

__all__ = [
    "LIBRARY",
    "Make",
    "addresses",
    "compiled",
    "empty",
    "multiply",
    "plain",
    "plain_each",
    "without_data",
]

_POOLED_BYTES = 1 << 20

LIBRARY = torch.library.Library("momentumrnn", "DEF")

Make = Callable[[tuple[int, ...], Tensor], Tensor]
"""Makes an uninitialised tensor of a shape, like another."""


def compiled() -> Any:
    """Return the compiled kernels.

    Raises:
        BackendError: they were not built.
    """
    module = extension()
    if module is None:
        raise BackendError(f"expected momentumrnn's C++ kernels, found none: {missing()}")
    return module


def empty(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return an uninitialised tensor of ``like``'s dtype, on pooled memory if it is large."""
    if math.prod(shape) * like.element_size() < _POOLED_BYTES:
        return like.new_empty(shape)
    tensor: Tensor = compiled().empty(list(shape), like.dtype is torch.float64)
    return tensor


def addresses(tensors: Mapping[str, Tensor | None]) -> dict[str, int]:
    """Return where the data of each tensor begins, nothing for an absent one and 0 for an empty one."""
    found = {name: tensor.data_ptr() for name, tensor in tensors.items() if tensor is not None}
    if 0 in found.values():
        for name, place in found.items():
            tensor = tensors[name]
            if place == 0 and tensor is not None and tensor.numel():
                raise BackendError(
                    f"expected a tensor with data in memory as {name}, got a {type(tensor).__name__} without"
                )
    return found


def multiply(one: Tensor, other: Tensor, out: Tensor) -> None:
    """Write the product of two matrices into ``out``, in a forked process on one thread.

    The threads of OpenMP do not exist in a forked process, and torch's own products wait for them forever
    where ``torch.get_num_threads()`` is above 1.
    """
    threads = torch.get_num_threads() if forked() else 1
    if threads > 1:
        torch.set_num_threads(1)
    try:
        torch.mm(one, other, out=out)
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def plain(tensor: Tensor) -> Tensor:
    """Return the tensor with its numbers in memory as they are, one behind the other."""
    return tensor.resolve_neg().contiguous()


def plain_each(tensors: Iterable[Tensor | None]) -> list[Tensor | None]:
    """Return what ``plain`` does of each tensor, ``None`` for an absent one."""
    # Not by a call for each: there are a dozen at every step of training.
    return [None if tensor is None else tensor.resolve_neg().contiguous() for tensor in tensors]


def without_data(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return what ``empty`` does to whoever looks at shapes alone."""
    return like.new_empty(shape)
