"""What numbers a benchmark's layers compute in."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args

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
    tf32, matmul = precision == "tf32", torch.backends.cuda.matmul
    before = matmul.allow_tf32
    lower = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    try:
        matmul.allow_tf32 = tf32
        with lower, _cudnn_with(tf32):
            yield
    finally:
        matmul.allow_tf32 = before


def _cudnn_with(tf32: bool) -> AbstractContextManager[None]:
    # Not by its attribute: torch.testing forbids that to the whole process.
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=tf32,
    )
