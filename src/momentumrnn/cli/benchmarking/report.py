"""The page that tells what was measured, on what, and how."""

from collections.abc import Mapping, Sequence

from momentumrnn.cli.benchmarking.contestants import BASELINES, Contestant
from momentumrnn.cli.benchmarking.measurement import Measurement
from momentumrnn.cli.benchmarking.options import LONGEST_LOOP, Options
from momentumrnn.cli.benchmarking.table import EMPTY, grids, to_markdown

TITLE = "Speed and memory beside torch.nn"


def to_page(measurements: Sequence[Measurement], options: Options, machine: Mapping[str, str]) -> str:
    """All of it as Markdown.

    Args:
        measurements: What was measured.
        options: What was asked for.
        machine: On what it was measured.
    """
    settings = {**machine, "repeats": str(options.repeats), "device": options.device}
    parts = [
        f"# {TITLE}\n",
        "\n".join(f"- {name}: {value}" for name, value in settings.items()) + "\n",
        *(to_markdown(grid) for grid in grids(measurements, options.contestants, spread=True)),
        "## How to read it\n",
        "\n".join(f"- {note}" for note in [*METHOD, *notes(measurements, options)]) + "\n",
    ]
    return "\n".join(parts)


METHOD = (
    "T time steps, B sequences, d features, h hidden units; float32 unless a title says otherwise; one "
    "layer, one direction; the input needs no gradient, the output's gradient is random.",
    "A layer of torch.nn stands as it was measured. Every other number is divided by it: below 1 is faster, "
    "or smaller.",
    "All sides run in one process and in turns, after a warm-up. A ratio is taken within each round; shown "
    "are the median over the rounds and, in brackets, the quartiles.",
    "Memory is by how much a few training steps raise the peak of a fresh process, layer and input included; "
    "with glibc, tensors that are freed go back to the system at once there, so that fragments do not count.",
)


def notes(measurements: Sequence[Measurement], options: Options) -> list[str]:
    """What a reader must know of these measurements.

    Args:
        measurements: What was measured.
        options: What was asked for.
    """
    told = [f"{c.name}: {c.note}" for c in options.contestants if c.note]
    told += [
        f"{c.name} is not installed: pip install {c.package}" for c in options.contestants if not c.installed
    ]
    if loops := _left_out(options.contestants, options):
        told.append(
            f"{EMPTY}: {' and '.join(loops)} left out where T·B > {LONGEST_LOOP:,}; --reference times them "
            "there too"
        )
    ran = _backends(measurements)
    if ran:
        told.append(f"Backends: {'; '.join(f'{name} on {where}' for name, where in ran.items())}.")
    return told + list(dict.fromkeys(one.note for one in measurements if one.note))


def _left_out(contestants: Sequence[Contestant], options: Options) -> list[str]:
    shapes = [*options.shapes, *(shape for shapes in options.sweeps.values() for shape in shapes)]
    return [
        c.name
        for c in contestants
        if c.installed and not all(options.takes_part(c, shape) for shape in shapes)
    ]


def _backends(measurements: Sequence[Measurement]) -> dict[str, str]:
    ran: dict[str, dict[str, None]] = {}
    for one in measurements:
        if one.backend and one.contestant not in BASELINES:
            ran.setdefault(one.contestant, {})[one.backend] = None
    return {name: " or ".join(backends) for name, backends in ran.items()}
