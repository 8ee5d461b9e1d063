"""A trial that is over, in numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from momentumrnn.cli.sweeping.axes import Value
from momentumrnn.results.numbers import Spread

Outcome = Literal["complete", "pruned", "diverged"]


@dataclass(frozen=True)
class Trial:
    """What was tried, and what came of it.

    Attributes:
        number: From 0.
        values: ``section.key`` → value.
        outcome: How it ended.
        scores: The best validation metric over epochs, seed by seed; none where a run diverged.
        epochs: When that was.
        seconds: Of training and evaluation, over all seeds.
        curve: Epoch → validation metric of the first seed, by which trials are pruned.
    """

    number: int
    values: Mapping[str, Value]
    outcome: Outcome
    scores: tuple[float, ...] = ()
    epochs: tuple[int, ...] = ()
    seconds: float = 0.0
    curve: Mapping[int, float] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """The mean over seeds, which the sweep optimises; not a number where a run diverged."""
        return Spread(self.scores).mean

    @property
    def std(self) -> float:
        """The sample standard deviation over seeds; not a number for a single one."""
        return Spread(self.scores).std


def run_folders(out: Path, number: int, seeds: int) -> list[Path]:
    """Where the runs of a trial are, seed by seed.

    Args:
        out: The folder of the sweep.
        number: The trial's.
        seeds: How many runs it has.

    >>> [path.name for path in run_folders(Path("runs"), 3, 2)]
    ['trial-003-seed-0', 'trial-003-seed-1']
    """
    name = f"trial-{number:03d}"
    if seeds == 1:
        return [out / name]
    return [out / f"{name}-seed-{seed}" for seed in range(seeds)]
