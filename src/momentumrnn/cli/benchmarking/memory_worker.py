"""A process of its own, ``python -m`` this module with a job, that prints the growth of its peak memory."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from momentumrnn.cli.benchmarking.contestants import find_contestant
from momentumrnn.cli.benchmarking.instruction_sets import held_to
from momentumrnn.cli.benchmarking.memory import STEPS
from momentumrnn.cli.benchmarking.precision import Precision
from momentumrnn.cli.benchmarking.shapes import Shape
from momentumrnn.cli.benchmarking.workload import Workload

TINY = Shape(2, 2, 3, 4)
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def growth_of_peak(work: Callable[[], object], device: str) -> int | None:
    """By how much some work raises the peak of this process's memory.

    Args:
        work: What is done.
        device: ``cpu``, or ``cuda`` for the memory torch has allocated there.

    Returns:
        Bytes; nothing where the platform keeps no peak.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    read = _resettable_peak() or _peak_since_the_start()
    if read is None:
        return None
    level = read()
    work()
    return read() - level


def _resettable_peak() -> Callable[[], int] | None:
    """The peak from now on, where Linux lets a process forget the one before."""
    try:
        # Documented in proc(5): 5 sets the high-water mark to what is resident now.
        CLEAR.write_text("5")
        _high_water_mark()
    except (OSError, LookupError):
        return None
    return _high_water_mark


def _high_water_mark() -> int:
    found = re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(), re.M)
    if found is None:
        raise LookupError("no VmHWM")
    return 1024 * int(found.group(1))


def _peak_since_the_start() -> Callable[[], int] | None:
    """The peak of the whole process; it understates growth by what importing torch took for a while."""
    try:
        resource = importlib.import_module("resource")
    except ModuleNotFoundError:
        return None
    # Bytes on macOS, kilobytes elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return lambda: unit * int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def measure(name: str, shape: Shape, device: str, precision: Precision = "float32") -> int | None:
    """The growth of the peak that some training steps cause.

    Args:
        name: Of a contestant.
        shape: Of what sizes.
        device: Where.
        precision: In what.
    """
    contestant = find_contestant(name)
    Workload(contestant, TINY, device, precision).side("train")()

    def work() -> None:
        step = Workload(contestant, shape, device, precision).side("train")
        for _ in range(STEPS):
            step()

    return growth_of_peak(work, device)


if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    if job["threads"] is not None:
        torch.set_num_threads(job["threads"])
    with held_to(job["isa"]):
        print(json.dumps(measure(job["name"], Shape(*job["shape"]), job["device"], job["precision"])))
