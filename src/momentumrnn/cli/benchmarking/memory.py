"""Peak memory of a training step, each contestant in a process of its own."""

import json
import os
import subprocess
import sys
from typing import Any

from momentumrnn.cli.benchmarking.contestants import Contestant
from momentumrnn.cli.benchmarking.precision import Precision
from momentumrnn.cli.benchmarking.shapes import Shape

STEPS = 3
# Left to itself, glibc raises this as it runs, and fragments then move the peak by a tenth from run to run.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "131072"}


class UnmeasuredError(Exception):
    """There is no number, and why."""


def peak_memory(
    contestant: Contestant,
    shape: Shape,
    *,
    device: str,
    threads: int | None = None,
    isa: str | None = None,
    precision: Precision = "float32",
) -> int:
    """By how much a few training steps raise the peak of a fresh process's memory.

    Layer, input, gradients and all that is kept for backward count; what importing torch and a tiny training
    step of the same contestant take does not.

    Args:
        contestant: Who.
        shape: Of what sizes.
        device: Where; on ``cuda`` it is the memory that torch has allocated there.
        threads: How many CPU threads torch uses; its own choice where absent.
        isa: The instruction set that the kernels are held to.
        precision: In what.

    Returns:
        Bytes.

    Raises:
        UnmeasuredError: The platform tells no process its peak, or the process has failed.
    """
    job = {
        "name": contestant.name,
        "shape": shape,
        "device": device,
        "threads": threads,
        "isa": isa,
        "precision": precision,
    }
    module = "momentumrnn.cli.benchmarking.memory_worker"
    return peak_told_by(module, job, f"{contestant.name} at {shape}")


def peak_told_by(module: str, job: dict[str, Any], what: str) -> int:
    """What a process that measures its own peak says.

    Args:
        module: What it runs; it prints a number as JSON, or null.
        job: Its only argument, as JSON.
        what: What is measured, for the error message.

    Returns:
        Bytes.

    Raises:
        UnmeasuredError: The platform tells no process its peak, or the process has failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(job)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ALLOCATOR},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if done.returncode < 0:
            last = f"killed by signal {-done.returncode}, perhaps for want of memory"
        raise UnmeasuredError(f"{what}: {last}")
    peak: int | None = json.loads(done.stdout)
    if peak is None:
        raise UnmeasuredError("this platform does not tell a process its peak of memory")
    return peak
