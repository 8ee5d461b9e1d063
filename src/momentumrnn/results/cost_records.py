"""What steps cost, as it lies beside runs in ``cost.csv``, and on what machine it was measured."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from momentumrnn.errors import CheckpointError
from momentumrnn.regular_files import open_regular, read_regular
from momentumrnn.results.find import COST, COST_MACHINE


@dataclass(frozen=True)
class Cost:
    """A step of one model. What was not measured is NaN, and an empty field in the file.

    Attributes:
        panel: The heading of its panel.
        row: Its name.
        train_seconds: Of a training step, the median over turns.
        train_ratio: To the panel's first row, the median over rounds.
        eval_seconds: Of an evaluation step of as many sequences as a training step.
        eval_ratio: Likewise.
        train_bytes: By how much training steps raise the peak of a process's memory.
        eval_bytes: Likewise.
    """

    panel: str
    row: str
    train_seconds: float
    train_ratio: float
    eval_seconds: float
    eval_ratio: float
    train_bytes: float
    eval_bytes: float


# By panel and row.
Costs = Mapping[tuple[str, str], Cost]
COLUMNS = tuple(field.name for field in fields(Cost))
NUMBERS = COLUMNS[2:]


def read_costs(folder: Path) -> dict[tuple[str, str], Cost]:
    """What was measured of every row.

    Args:
        folder: Where the table lies; without it nothing was measured.

    Returns:
        Title of the panel, name of the row → its cost.

    Raises:
        CheckpointError: The file holds something else.
    """
    path = folder / COST
    if not path.exists():
        return {}
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8", newline="") as stream:
            return {
                (line["panel"], line["row"]): Cost(
                    line["panel"], line["row"], *(float(line[name] or math.nan) for name in NUMBERS)
                )
                for line in csv.DictReader(stream)
            }
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise CheckpointError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, got something else ({error}); delete it, "
            "and momentumrnn reproduce cost measures anew"
        ) from error


def costs_to_csv(costs: Iterable[Cost]) -> str:
    """The file that ``read_costs`` reads.

    Args:
        costs: One for each of its lines.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cost in costs:
        writer.writerow(
            "" if isinstance(value, float) and math.isnan(value) else value for value in astuple(cost)
        )
    return text.getvalue()


def read_machine(folder: Path) -> dict[str, str]:
    """On what it was measured, as far as that is known.

    Args:
        folder: Where ``cost.json`` lies.
    """
    try:
        told = json.loads(read_regular(folder / COST_MACHINE))
    except (OSError, ValueError):
        return {}
    return _flat(told) if isinstance(told, dict) else {}


def _flat(told: Mapping[str, object]) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in told.items():
        if isinstance(value, dict):
            flat.update(_flat(value))
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            flat[str(key)] = str(value)
    return flat
