"""What numbers a benchmark's layers compute in."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, get_args

import torch

from momentumrnn.cli.benchmarking.errors import BenchmarkError

Precision = Literal["float32", "tf32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def check_precisions(asked: tuple[Precision, ...], device: str) -> tuple[Precision, ...]:
    """Which precisions are measured, in the order in which they are shown.

    Args:
        asked: Those asked for; the usual ones of the device where there are none.
        device: Where.

    Raises:
        BenchmarkError: The device has none of that name.
    """
    if device == "cpu" and "tf32" in asked:
        raise BenchmarkError(
            "--precision tf32: expected float32 or bfloat16 with --device cpu, which has no TF32; drop tf32"
        )
    usual = PRECISIONS if device == "cuda" else PRECISIONS[:1]
    return tuple(precision for precision in PRECISIONS if precision in (asked or usual))


@contextmanager
def computing_in(precision: Precision, device: str) -> Iterator[None]:
    """Compute in a precision inside the ``with`` block: bfloat16 by autocast, TF32 by torch's switches.

    Args:
        precision: Which.
        device: Where.
    """
    switches: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    lower = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    try:
        for switch in switches:
            switch.allow_tf32 = precision == "tf32"
        with lower:
            yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed
