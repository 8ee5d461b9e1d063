"""What was measured, as records and as a table."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from momentumrnn.cli.benchmarking.shapes import Shape

Quantity = Literal["train", "inference", "memory", "step", "error"]
NOT_MEASURED = "not measured"
UNITS: dict[Quantity, str] = {"memory": "bytes", "error": "fraction"}


@dataclass(frozen=True)
class Measurement:
    """One contestant at one shape.

    Attributes:
        quantity: Seconds of ``train``, forward and backward; of ``inference``, forward without gradients; of
            a single ``step``; bytes of peak ``memory`` of a training step; or the largest ``error`` of an
            output over the largest output.
        shape: At what sizes.
        contestant: Who.
        baseline: Whom it is divided by.
        backend: Who computed.
        repeats: How many turns, or steps in the case of memory.
        value: The median, in seconds, bytes or a fraction; NaN where there is none.
        ratio: The median over the rounds of this contestant's value by the baseline's of the same round.
        ratio_low: The lower quartile of the same.
        ratio_high: The upper quartile of the same.
        along: In a sweep, the size that is varied.
        note: Why there is no value.
        precision: What was computed in.
    """

    quantity: Quantity
    shape: Shape
    contestant: str
    baseline: str
    backend: str = ""
    repeats: int = 0
    value: float = math.nan
    ratio: float = math.nan
    ratio_low: float = math.nan
    ratio_high: float = math.nan
    along: str = ""
    note: str = ""
    precision: str = "float32"


def ratio_with_quartiles(values: Sequence[float], baseline: Sequence[float]) -> tuple[float, float, float]:
    """The ratio of two sides that took turns.

    Args:
        values: Of one side, round by round.
        baseline: Of the other.

    Returns:
        Median, lower and upper quartile of the ratios within the rounds.
    """
    ratios = np.asarray(values, dtype=np.float64) / np.asarray(baseline, dtype=np.float64)
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def without_repetition(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Each contestant once at a shape; a baseline is measured again beside each group of contestants.

    Args:
        measurements: Any; the first of its kind stays.
    """
    kept: dict[tuple[object, ...], Measurement] = {}
    for one in measurements:
        kept.setdefault((one.quantity, one.along, one.shape, one.contestant, one.precision), one)
    return list(kept.values())


def to_frame(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Measurements as they are written to a file: one row each.

    Args:
        measurements: Any.
    """
    columns = ["quantity", "along", "T", "B", "d", "h", "contestant", "baseline", "backend", "repeats"]
    columns += ["precision", "value", "unit", "ratio", "ratio_low", "ratio_high", "note"]
    rows = [
        {
            **{name: value for name, value in vars(measurement).items() if name != "shape"},
            **measurement.shape._asdict(),
            "unit": UNITS.get(measurement.quantity, "seconds"),
        }
        for measurement in measurements
    ]
    return pd.DataFrame(rows, columns=columns)
