"""Numbers as a table shows them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NOTHING = "–"


@dataclass(frozen=True)
class Spread:
    """A value over seeds.

    Attributes:
        values: One a seed, as they are shown: accuracies in percent.
    """

    values: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Not a number where there is no value."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """The sample standard deviation, n − 1 in the denominator; not a number for a single value.

        Nor where a value is not finite.
        """
        finite = all(math.isfinite(value) for value in self.values)
        return statistics.stdev(self.values) if finite and len(self.values) > 1 else math.nan


def show_number(value: float, digits: int) -> str:
    """A number with so many digits behind the point, or with two in all where these would not tell it from 0.

    Args:
        value: Not a number is a dash.
        digits: How many.

    >>> show_number(0.12345, 4), show_number(0.000123, 4), show_number(-1.5, 2), show_number(float("nan"), 2)
    ('0.1235', '1.2e-04', '−1.50', '–')
    """
    if math.isnan(value):
        return NOTHING
    small = 0 < abs(value) < 10.0 ** (1 - digits) / 2
    return (f"{value:.1e}" if small and digits > 2 else f"{value:.{digits}f}").replace("-", "−", value < 0)


def show_spread(mean: float, std: float, digits: int) -> str:
    """A mean, and its deviation where there is one.

    Args:
        mean: Not a number is a dash.
        std: Not a number for a single value.
        digits: Behind the point.

    >>> show_spread(99.041, 0.04, 2), show_spread(99.0, float("nan"), 2)
    ('99.04 ± 0.04', '99.00')
    """
    if math.isnan(std):
        return show_number(mean, digits)
    return f"{show_number(mean, digits)} ± {show_number(std, digits)}"


def show_difference(value: float, digits: int) -> str:
    """A difference, always with its sign.

    Args:
        value: The difference.
        digits: Behind the point.

    >>> show_difference(0.3, 2), show_difference(-0.3, 2), show_difference(0.001, 2)
    ('+0.30', '−0.30', '0.00')
    """
    if math.isnan(value):
        return NOTHING
    told = f"{value:+.{digits}f}"
    return told[1:] if float(told) == 0 else told.replace("-", "−")


def show_range(values: Sequence[int]) -> str:
    """The lowest and the highest of some whole numbers, once where they are the same.

    >>> show_range([3, 5, 4]), show_range([3, 3])
    ('3 to 5', '3')
    """
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def decimals(value: float) -> int:
    """How many digits a number has behind its point.

    >>> decimals(0.162), decimals(9.0), decimals(62.5)
    (3, 0, 1)
    """
    return len(f"{value:.10f}".rstrip("0").partition(".")[2])
