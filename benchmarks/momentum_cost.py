"""What momentum costs: a layer with a rule beside torch.nn.LSTM, forward and backward.

    python benchmarks/momentum_cost.py [--repeats 11] [--models MomentumLSTM AdamLSTM …]

Both sides run in one process and in turns; what counts is the ratio of their medians. Absolute times
on a shared machine mean little.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import momentumrnn

SHAPES = [(784, 128, 1, 128), (784, 128, 1, 256), (100, 32, 129, 158), (64, 64, 1, 128)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11, help="timed runs of each side")
    parser.add_argument("--models", nargs="+", default=["LSTM", "MomentumLSTM", "SRLSTM"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{machine()}, torch {torch.__version__}, momentumrnn {momentumrnn.__version__}, "
        f"{torch.get_num_threads()} threads, median of {arguments.repeats}\n"
    )
    print("| T, B, d, h | torch.nn.LSTM, s | " + " | ".join(arguments.models) + " |")
    print("|---" * (2 + len(arguments.models)) + "|")
    for shape in SHAPES:
        row = ratios(shape, arguments.models, arguments.repeats)
        print(
            f"| {', '.join(map(str, shape))} | {row[0]:.4f} | "
            + " | ".join(f"{ratio:.2f}" for ratio in row[1:])
            + " |",
            flush=True,
        )


def ratios(shape: tuple[int, int, int, int], models: list[str], repeats: int) -> list[float]:
    """Return torch's median time, then each model's median over it."""
    steps, batch, features, hidden = shape
    torch.manual_seed(0)
    x = torch.randn(steps, batch, features)
    layers = [torch.nn.LSTM(features, hidden)]
    layers += [getattr(momentumrnn, name)(features, hidden) for name in models]
    sides = [training_step(layer, x) for layer in layers]
    times: list[list[float]] = [[] for _ in sides]
    for repeat in range(repeats + 1):
        for side, taken in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            if repeat:  # the first round warms up
                taken.append(time.perf_counter() - start)
    medians = [statistics.median(taken) for taken in times]
    return [medians[0], *(median / medians[0] for median in medians[1:])]


def training_step(layer: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    def step() -> None:
        layer.zero_grad(set_to_none=True)
        layer(x)[0].sum().backward()

    return step


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
