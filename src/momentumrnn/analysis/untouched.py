"""Running a model without leaving a trace in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn

__all__ = ["untouched"]


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put the random state and the model's buffers back at the end of the ``with`` block.

    A compiled model runs as it was written inside: its graphs know nothing of whoever looks on.
    """
    tensors = [*model.parameters(), *model.buffers()]
    gpus = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    # Copies to write on: putting the old numbers back would spoil a graph that waits for its backward pass.
    copies = {id(buffer): buffer.clone() for _, _, buffer in buffers}
    # Nothing was compiled where the compiler was never imported, and asking it would import it.
    compiled = "torch._dynamo" in sys.modules
    as_written = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
    try:
        for module, name, buffer in buffers:
            setattr(module, name, copies[id(buffer)])
        with torch.random.fork_rng(gpus), as_written:
            yield
    finally:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
