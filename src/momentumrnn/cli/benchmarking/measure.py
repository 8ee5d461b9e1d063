"""Some contestants side by side, the first of them the baseline: time, memory, single steps."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from momentumrnn.cli.benchmarking.contestants import Contestant
from momentumrnn.cli.benchmarking.measurement import (
    NOT_MEASURED,
    Measurement,
    Quantity,
    ratio_with_quartiles,
)
from momentumrnn.cli.benchmarking.memory import STEPS, UnmeasuredError, peak_memory
from momentumrnn.cli.benchmarking.precision import Precision
from momentumrnn.cli.benchmarking.shapes import Shape
from momentumrnn.cli.benchmarking.turns import clock_of, time_in_turns, wait_for
from momentumrnn.cli.benchmarking.workload import CELL_SHAPE, CELLS, Workload, single_step

# Called after every turn.
Told = Callable[[], object]


def time_layers(
    quantity: Literal["train", "inference"],
    shape: Shape,
    contestants: Sequence[Contestant],
    repeats: int,
    told: Told,
    *,
    device: str,
    precision: Precision = "float32",
    along: str = "",
) -> list[Measurement]:
    """Time whole layers.

    Args:
        quantity: Forward and backward, or forward alone.
        shape: At what sizes.
        contestants: Who, the baseline first.
        repeats: How many turns each takes.
        told: Called after every turn.
        device: Where.
        precision: In what.
        along: In a sweep, the size that is varied.
    """
    works = [Workload(contestant, shape, device, precision) for contestant in contestants]
    seconds = time_in_turns(
        [work.side(quantity) for work in works],
        repeats,
        wait=wait_for(device),
        told=told,
        clock=clock_of(device),
    )
    return [
        _timed(
            quantity,
            shape,
            contestant.name,
            contestants[0].name,
            taken,
            seconds[0],
            work.backend,
            along,
            precision,
        )
        for contestant, work, taken in zip(contestants, works, seconds, strict=True)
    ]


def time_cells(repeats: int, told: Told, *, device: str) -> list[Measurement]:
    """Time single steps.

    Args:
        repeats: How many turns each takes.
        told: Called after every turn.
        device: Where.
    """
    names = list(CELLS)
    sides = [single_step(name, device) for name in names]
    seconds = time_in_turns(sides, repeats, wait=wait_for(device), told=told, clock=clock_of(device))
    return [
        _timed("step", CELL_SHAPE, name, names[0], taken, seconds[0])
        for name, taken in zip(names, seconds, strict=True)
    ]


def measure_memory(
    shape: Shape,
    contestants: Sequence[Contestant],
    told: Told,
    *,
    device: str,
    threads: int | None,
    isa: str | None,
    precision: Precision = "float32",
) -> list[Measurement]:
    """Measure the peak memory of a training step.

    Args:
        shape: At what sizes.
        contestants: Who, the baseline first.
        told: Called after every one.
        device: Where.
        threads: How many CPU threads torch uses; its own choice where absent.
        isa: The instruction set that the kernels are held to.
        precision: In what.
    """
    measured, baseline = [], float("nan")
    for contestant in contestants:
        note, peak = "", float("nan")
        try:
            peak = float(
                peak_memory(contestant, shape, device=device, threads=threads, isa=isa, precision=precision)
            )
        except UnmeasuredError as error:
            note = f"{NOT_MEASURED}: {error}"
        if contestant is contestants[0]:
            baseline = peak or float("nan")
        measured.append(
            Measurement(
                "memory",
                shape,
                contestant.name,
                contestants[0].name,
                repeats=STEPS,
                value=peak,
                ratio=peak / baseline,
                note=note,
                precision=precision,
            )
        )
        told()
    return measured


def _timed(
    quantity: Quantity,
    shape: Shape,
    contestant: str,
    baseline: str,
    seconds: Sequence[float],
    seconds_of_baseline: Sequence[float],
    backend: str = "",
    along: str = "",
    precision: Precision = "float32",
) -> Measurement:
    median, _, _ = ratio_with_quartiles(seconds, [1.0] * len(seconds))
    ratio, low, high = ratio_with_quartiles(seconds, seconds_of_baseline)
    return Measurement(
        quantity,
        shape,
        contestant,
        baseline,
        backend,
        len(seconds),
        median,
        ratio,
        low,
        high,
        along,
        precision=precision,
    )


def measure_errors(
    shape: Shape, contestants: Sequence[Contestant], told: Told, *, device: str, precision: Precision
) -> list[Measurement]:
    """Measure by how much outputs differ from those in float64.

    Args:
        shape: At what sizes.
        contestants: Who, the baseline first.
        told: Called after every one.
        device: Where.
        precision: In what.
    """
    measured: list[Measurement] = []
    for contestant in contestants:
        work = Workload(contestant, shape, device, precision)
        error = work.error()
        baseline = measured[0].value if measured else error
        measured.append(
            Measurement(
                "error",
                shape,
                contestant.name,
                contestants[0].name,
                work.backend,
                1,
                value=error,
                ratio=error / (baseline or math.nan),
                precision=precision,
            )
        )
        told()
    return measured
