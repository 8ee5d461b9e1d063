"""The parts of a benchmark, each measured as a whole: some contestants side by side at one shape."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from momentumrnn.cli.benchmarking.contestants import BASELINES, Contestant
from momentumrnn.cli.benchmarking.measure import Told, measure_errors, measure_memory, time_cells, time_layers
from momentumrnn.cli.benchmarking.measurement import Measurement
from momentumrnn.cli.benchmarking.memory import STEPS
from momentumrnn.cli.benchmarking.options import Options
from momentumrnn.cli.benchmarking.precision import Precision
from momentumrnn.cli.benchmarking.shapes import Shape
from momentumrnn.cli.benchmarking.turns import SHORTEST_TURN
from momentumrnn.cli.benchmarking.workload import CELLS

LOOP_REPEATS = 3
# Starting a process and importing torch.
SECONDS_TO_START = 4.0


@dataclass(frozen=True)
class Task:
    """A part of a benchmark.

    Attributes:
        label: What is measured, for whoever watches.
        turns: How often ``run`` calls its argument.
        seconds: About how long it takes; only proportions count.
        run: Measures.
    """

    label: str
    turns: int
    seconds: float
    run: Callable[[Told], list[Measurement]]


def planned_tasks(options: Options) -> list[Task]:
    """A benchmark, part by part.

    Args:
        options: What is measured.
    """
    tasks: list[Task] = []
    for shape, precision in itertools.product(options.shapes, options.precisions):
        tasks += _timings(options, "train", shape, precision)
        tasks += _timings(options, "inference", shape, precision)
        if options.memory:
            tasks += _memories(options, shape, precision)
        if options.device == "cuda":
            tasks += _errors(options, shape, precision)
    if options.shapes:
        turns = len(CELLS) * (options.repeats + 1)
        run = partial(time_cells, options.repeats, device=options.device)
        tasks.append(Task("single steps", turns, SHORTEST_TURN * turns, run))
    for along, shapes in options.sweeps.items():
        for shape, precision in itertools.product(shapes, options.precisions):
            tasks += _timings(options, "train", shape, precision, along)
    return tasks


def _timings(
    options: Options,
    quantity: Literal["train", "inference"],
    shape: Shape,
    precision: Precision,
    along: str = "",
) -> Iterator[Task]:
    # Python loops apart: in the same rounds they would leave cold caches to whoever comes after them.
    for loop in (False, True):
        for sides in _sides(options, shape, [c for c in options.contestants if c.loop == loop]):
            repeats = min(options.repeats, LOOP_REPEATS) if loop else options.repeats
            turns = len(sides) * (repeats + 1)
            yield Task(
                f"{quantity} {_at(shape, precision)} {', '.join(side.name for side in sides)}",
                turns,
                turns * max(SHORTEST_TURN, _rough_seconds(quantity, shape, loop)),
                partial(
                    time_layers,
                    quantity,
                    shape,
                    sides,
                    repeats,
                    device=options.device,
                    precision=precision,
                    along=along,
                ),
            )


def _memories(options: Options, shape: Shape, precision: Precision) -> Iterator[Task]:
    for sides in _sides(options, shape, list(options.contestants)):
        yield Task(
            f"memory {_at(shape, precision)} {', '.join(side.name for side in sides)}",
            len(sides),
            sum(SECONDS_TO_START + STEPS * _rough_seconds("train", shape, side.loop) for side in sides),
            partial(
                measure_memory,
                shape,
                sides,
                device=options.device,
                threads=options.threads,
                isa=options.isa,
                precision=precision,
            ),
        )


def _errors(options: Options, shape: Shape, precision: Precision) -> Iterator[Task]:
    for sides in _sides(options, shape, list(options.contestants)):
        yield Task(
            f"error {_at(shape, precision)} {', '.join(side.name for side in sides)}",
            len(sides),
            len(sides) * _rough_seconds("inference", shape, loop=True),
            partial(measure_errors, shape, sides, device=options.device, precision=precision),
        )


def _sides(options: Options, shape: Shape, among: list[Contestant]) -> Iterator[list[Contestant]]:
    """Each baseline, followed by those that are divided by it."""
    for name, baseline in BASELINES.items():
        others = [c for c in among if c.baseline == name and options.takes_part(c, shape)]
        if others:
            yield [baseline, *others]


def _at(shape: Shape, precision: Precision) -> str:
    return str(shape) if precision == "float32" else f"{shape} {precision}"


def _rough_seconds(quantity: str, shape: Shape, loop: bool) -> float:
    """What a call may take, on any machine: only the bar's time left hangs on it."""
    operations = 8.0 * shape.T * shape.B * shape.h * (shape.h + shape.d)
    forward = operations / 3e10 + shape.T * (1e-4 if loop else 1e-5)
    return (3 if quantity == "train" else 1) * forward
