"""How layers gain from threads: each number of threads in its turn, over one thread of the same layer.

python benchmarks/threads.py [--shape 784x128x1x128] [--models nn.LSTM MomentumLSTM] [--repeats 11]
"""

import argparse
import os
from collections.abc import Callable

import torch

from momentumrnn.cli.benchmarking.contestants import find_contestant
from momentumrnn.cli.benchmarking.machine import describe_machine
from momentumrnn.cli.benchmarking.measurement import ratio_with_quartiles
from momentumrnn.cli.benchmarking.shapes import parse_shapes
from momentumrnn.cli.benchmarking.turns import time_in_turns
from momentumrnn.cli.benchmarking.workload import Workload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="784x128x1x128", help="T, B, d and h")
    parser.add_argument("--models", nargs="+", default=["nn.LSTM", "MomentumLSTM"])
    parser.add_argument("--threads", type=int, nargs="+", default=range(2, (os.cpu_count() or 1) + 1))
    parser.add_argument("--repeats", type=int, default=11, help="timed runs of each side")
    arguments = parser.parse_args()
    (shape,) = parse_shapes(arguments.shape)
    print("; ".join(f"{name} {value}" for name, value in describe_machine("cpu").items()))
    print(f"a training step at {shape}, times one thread of the same layer, {arguments.repeats} turns\n")
    for name in arguments.models:
        step = Workload(find_contestant(name), shape, "cpu").side("train")
        sides = [on(count, step) for count in (1, *arguments.threads)]
        alone, *taken = time_in_turns(sides, arguments.repeats)
        for count, seconds in zip(arguments.threads, taken, strict=True):
            ratio, low, high = ratio_with_quartiles(seconds, alone)
            print(f"{name:16} {count} threads {ratio:6.2f} ({low:.2f}–{high:.2f})", flush=True)


def on(threads: int, call: Callable[[], None]) -> Callable[[], None]:
    def side() -> None:
        torch.set_num_threads(threads)
        call()

    return side


if __name__ == "__main__":
    main()
