"""What is asked for, checked before anything is measured."""

from dataclasses import dataclass
from typing import Literal

import torch

from momentumrnn.cli.benchmarking import contestants as known
from momentumrnn.cli.benchmarking import shapes as sizes
from momentumrnn.cli.benchmarking.contestants import Contestant, find_contestants
from momentumrnn.cli.benchmarking.errors import BenchmarkError
from momentumrnn.cli.benchmarking.precision import Precision, check_precisions
from momentumrnn.cli.benchmarking.shapes import Shape, parse_shapes

REPEATS, QUICK_REPEATS = 11, 3
# A Python loop takes hundreds of microseconds a time step, and more the more sequences there are.
LONGEST_LOOP = 10_000


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
        contestants: Who.
        shapes: At what sizes.
        sweeps: Sizes along one axis, by the axis.
        repeats: How many turns each takes.
        loops_everywhere: Whether Python loops over time run where they take long, too.
        memory: Whether peak memory is measured.
        device: Where.
        threads: How many CPU threads torch uses; its own choice where absent.
        isa: The instruction set that the kernels are held to.
        precisions: In what.
    """

    contestants: tuple[Contestant, ...]
    shapes: tuple[Shape, ...]
    sweeps: dict[str, tuple[Shape, ...]]
    repeats: int
    loops_everywhere: bool
    memory: bool
    device: str
    threads: int | None
    isa: str | None
    precisions: tuple[Precision, ...] = ("float32",)

    def takes_part(self, contestant: Contestant, shape: Shape) -> bool:
        """Whether a contestant is measured at a shape.

        Args:
            contestant: Who.
            shape: At what sizes.
        """
        if not contestant.installed:
            return False
        return not contestant.loop or self.loops_everywhere or shape.T * shape.B <= LONGEST_LOOP


def check_options(
    *,
    shapes: str | None = None,
    quick: bool = False,
    models: tuple[str, ...] = (),
    repeats: int | None = None,
    threads: int | None = None,
    isa: str | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    reference: bool = False,
    memory: bool = True,
    sweep: bool = False,
    precisions: tuple[Precision, ...] = (),
) -> Options:
    """From the words of the command line to what is measured.

    Args:
        shapes: See ``momentumrnn.cli.benchmarking.shapes.parse_shapes``.
        quick: Small shapes and few turns, and no memory, which takes a process a contestant.
        models: Names of contestants.
        repeats: How many turns each takes.
        threads: How many CPU threads torch uses.
        isa: The instruction set that the kernels are held to.
        device: Where.
        reference: Time Python loops at every shape.
        memory: Measure memory.
        sweep: Measure along T, B and h.
        precisions: In what; those of the device where there are none.

    Raises:
        BenchmarkError: A value that makes no sense.
    """
    for option, number in (("--repeats", repeats), ("--threads", threads)):
        if number is not None and number < 1:
            raise BenchmarkError(f"{option}: expected 1 or more, got {number}")
    if device == "cuda" and not torch.cuda.is_available():
        raise BenchmarkError("--device cuda: expected a CUDA device, torch finds none here; use --device cpu")
    if device == "cuda" and isa is not None:
        raise BenchmarkError(f"--isa {isa}: expected --device cpu, got cuda, which it does not apply to")
    if sweep and shapes is not None:
        raise BenchmarkError("--shapes: expected none with --sweep, which has shapes of its own; drop one")
    computed_in = check_precisions(precisions, device)
    chosen: tuple[Shape, ...] = ()
    if not sweep:
        usual = sizes.QUICK if quick else sizes.DEFAULT_ON_CUDA if device == "cuda" else sizes.DEFAULT
        chosen = usual if shapes is None else parse_shapes(shapes)
    axes = sizes.QUICK_SWEEPS if quick else sizes.SWEEPS
    usual_models = (
        known.DEFAULT_IN_SWEEPS if sweep else known.DEFAULT_ON_CUDA if device == "cuda" else known.DEFAULT
    )
    contestants = find_contestants(models or usual_models)
    for contestant in contestants:
        if contestant.cuda and device != "cuda":
            raise BenchmarkError(
                f"--models {contestant.name}: expected --device cuda, which it is for, got {device}"
            )
    return Options(
        contestants=tuple(contestants),
        shapes=chosen,
        sweeps=axes if sweep else {},
        repeats=repeats or (QUICK_REPEATS if quick else REPEATS),
        loops_everywhere=reference,
        memory=memory and not quick,
        device=device,
        threads=threads,
        isa=isa,
        precisions=computed_in,
    )
