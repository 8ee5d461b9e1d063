"""How many runs at once."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from momentumrnn.cli.reproducing.estimates import Estimate

# torch with all that training imports.
BYTES_OF_A_PROCESS = 5e8
# More of a GPU's memory is best left to what fragments.
SHARE_OF_MEMORY = 0.8
# Small kernels leave most of a GPU idle; beyond this the launching of kernels is what they wait for.
RUNS_ON_A_GPU = 4


@dataclass(frozen=True)
class Machine:
    """What there is to be shared.

    Attributes:
        cores: CPU cores this process may use.
        free_bytes: Memory that is free on the device; nothing where it is not known.
        gpu: Whether runs are on a GPU.
    """

    cores: int
    free_bytes: float | None
    gpu: bool


def this_machine(device: str) -> Machine:
    """What there is here.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if device == "cuda":
        return Machine(cores, float(torch.cuda.mem_get_info()[0]), gpu=True)
    return Machine(cores, _free_memory(), gpu=False)


def choose_at_once(
    machine: Machine, threads: int, runs: int, estimates: Collection[Estimate]
) -> tuple[int, str]:
    """How many runs at once, and why.

    Args:
        machine: Where.
        threads: CPU threads of each.
        runs: How many there are to be made.
        estimates: What they take.
    """
    each = f"{threads} thread{'s' if threads > 1 else ''} each"
    cores = f"{machine.cores} core{'s' if machine.cores > 1 else ''}, {each}"
    limits = {max(1, machine.cores // threads): cores}
    limits.setdefault(max(1, runs), f"{runs} left to be made")
    if machine.gpu:
        limits.setdefault(RUNS_ON_A_GPU, "they share the GPU")
    largest = max((estimate.bytes for estimate in estimates), default=0.0)
    if machine.free_bytes is not None and largest:
        a_run = largest + BYTES_OF_A_PROCESS
        fitting = max(1, int(SHARE_OF_MEMORY * machine.free_bytes / a_run))
        told = f"the largest takes {a_run / 1e9:.1f} GB, and {machine.free_bytes / 1e9:.1f} GB are free"
        limits.setdefault(fitting, told)
    least = min(limits)
    return least, limits[least]


def _free_memory() -> float | None:
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024.0 * int(line.split()[1])
    return None
