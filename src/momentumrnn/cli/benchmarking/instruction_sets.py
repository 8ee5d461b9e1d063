"""Which instruction set the C++ kernels run on, and holding them to one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from momentumrnn.cli.benchmarking.errors import BenchmarkError
from momentumrnn.errors import BackendError
from momentumrnn.kernels import extension


@contextmanager
def held_to(name: str | None) -> Iterator[None]:
    """Have the kernels use one instruction set while the context lasts.

    Args:
        name: Such as ``avx2``; the best that the processor has where absent.

    Raises:
        BenchmarkError: There are no such kernels here, or not for that instruction set.
    """
    with ExitStack() as stack:
        if name is not None:
            try:
                stack.enter_context(extension.forced_isa(name))
            except BackendError as error:
                raise BenchmarkError(f"--isa {name}: {error}") from error
        yield


def describe_instruction_sets() -> str:
    """Which instruction sets torch, and these kernels where there are any, use now."""
    kernels = extension.extension()
    ours = "no C++ kernels" if kernels is None else kernels.isa()
    return f"torch {torch.backends.cpu.get_cpu_capability()}, momentumrnn {ours}"
