"""What each instruction set is worth: one layer on the C++ kernels, held to one after the other, in turns.

    python benchmarks/instruction_sets.py [--shape 784x128x1x128] [--model MomentumLSTM] [--repeats 11]

Times are divided by torch's own layer, which chooses for itself.
"""

import argparse
from collections.abc import Callable

import torch

from momentumrnn.cli.benchmarking.contestants import BASELINES, find_contestants
from momentumrnn.cli.benchmarking.machine import describe_machine
from momentumrnn.cli.benchmarking.measurement import ratio_with_quartiles
from momentumrnn.cli.benchmarking.shapes import parse_shapes
from momentumrnn.cli.benchmarking.turns import time_in_turns
from momentumrnn.cli.benchmarking.workload import Workload
from momentumrnn.kernels.extension import extension, forced_isa, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="784x128x1x128", help="T, B, d and h")
    parser.add_argument("--model", default="MomentumLSTM", help="as in `momentumrnn bench --models`")
    parser.add_argument("--repeats", type=int, default=11, help="timed runs of each side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kernels = extension()
    if kernels is None:
        raise SystemExit(missing())
    (contestant,) = find_contestants([arguments.model])
    (shape,) = parse_shapes(arguments.shape)
    print("; ".join(f"{name} {value}" for name, value in describe_machine("cpu").items()))
    print(f"{arguments.model} at {shape} over {contestant.baseline}, {arguments.repeats} turns\n")
    works = [Workload(side, shape, "cpu") for side in (BASELINES[contestant.baseline], contestant)]
    for quantity in ("train", "inference"):
        theirs, ours = (work.side(quantity) for work in works)
        sides = [theirs, *(held(ours, name) for name in kernels.isas())]
        baseline, *taken = time_in_turns(sides, arguments.repeats)
        for name, seconds in zip(kernels.isas(), taken, strict=True):
            ratio, low, high = ratio_with_quartiles(seconds, baseline)
            print(f"{quantity:10} {name:10} {ratio:6.2f} ({low:.2f}–{high:.2f})", flush=True)


def held(call: Callable[[], None], isa: str) -> Callable[[], None]:
    def side() -> None:
        with forced_isa(isa):
            call()

    return side


if __name__ == "__main__":
    main()
