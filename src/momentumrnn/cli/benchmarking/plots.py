"""The plots of a benchmark, as files."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from momentumrnn.cli.benchmarking.measurement import Measurement
from momentumrnn.cli.benchmarking.ratio_plot import ratio_figure
from momentumrnn.cli.benchmarking.sweep_plot import AXES, sweep_figure
from momentumrnn.results.plots import write_figure

TITLES = {
    "train": "Time of a training step",
    "inference": "Time of inference",
    "memory": "Peak memory of a training step",
}


def figures(measurements: Sequence[Measurement]) -> Iterator[tuple[str, Figure]]:
    """All plots that the measurements allow, each with the name of its file.

    Args:
        measurements: What was measured.
    """
    for precision in dict.fromkeys(one.precision for one in measurements):
        alike = [one for one in measurements if one.precision == precision]
        name, words = ("", "") if precision == "float32" else (f"-{precision}", f" in {precision}")
        for quantity, title in TITLES.items():
            here = [one for one in alike if one.quantity == quantity and one.along == ""]
            if any(one.contestant != one.baseline and one.ratio > 0 for one in here):
                yield f"{quantity}{name}", ratio_figure(here, f"{title}{words}")
        for along in AXES:
            if here := [one for one in alike if one.along == along]:
                yield f"sweep-{along}{name}", sweep_figure(here, along, words)


def write_plots(measurements: Sequence[Measurement], folder: Path) -> list[Path]:
    """Write every plot as PNG and SVG.

    Args:
        measurements: What was measured.
        folder: Where.

    Returns:
        The files.
    """
    files: list[Path] = []
    for name, figure in figures(measurements):
        files += write_figure(figure, folder / name)
    return files
