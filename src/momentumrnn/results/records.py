"""The numbers of a report for other programs: one record a row and quantity, as CSV and as JSON."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from momentumrnn.results.numbers import Spread
from momentumrnn.results.panel_tables import differences
from momentumrnn.results.quantities import quantities_of
from momentumrnn.results.report import Report
from momentumrnn.results.rows import NOT_RUN, NOTHING_YET, PanelResult, RowResult
from momentumrnn.results.time_to_target import minutes_over, minutes_to, published_minutes

Record = dict[str, Any]


def to_records(report: Report) -> list[Record]:
    """Every number of the tables, unrounded; an accuracy is in percent, what is unknown is ``None``.

    Args:
        report: Any.

    Returns:
        In each: ``experiment, smoke, changes, panel, row, label, model, hidden_size, parameters`` say what
        was run; ``status, seeds, planned_seeds, epochs, of_epochs`` how far (``epochs`` those of the least
        advanced run that counts); ``quantity, unit, mean, std, values`` what came out; ``published,
        published_std, source, difference`` what stands beside it, ``baseline`` what can be had without
        learning; ``folders`` where the runs are.
    """
    return [
        {
            "experiment": section.name,
            "smoke": section.setting.smoke,
            "changes": list(section.setting.overrides),
            "panel": panel.title,
            **record,
        }
        for section in report.sections
        for panel in section.results
        for record in _panel_records(panel)
    ]


def to_csv(records: Sequence[Record]) -> str:
    """Records as CSV; the entries of a list are separated by semicolons.

    Args:
        records: Of ``to_records``.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(record[key]) for key in COLUMNS} for record in records)
    return text.getvalue()


def to_json(report: Report, about: Mapping[str, str]) -> str:
    """Records as JSON, with the report's warnings.

    Args:
        report: Any.
        about: What it was made with.
    """
    told = {"about": dict(about), "warnings": report.warnings, "results": to_records(report)}
    return json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


COLUMNS = (
    "experiment",
    "smoke",
    "changes",
    "panel",
    "row",
    "label",
    "model",
    "hidden_size",
    "parameters",
    "status",
    "seeds",
    "planned_seeds",
    "epochs",
    "of_epochs",
    "quantity",
    "unit",
    "mean",
    "std",
    "values",
    "published",
    "published_std",
    "source",
    "difference",
    "baseline",
    "folders",
)


def _panel_records(panel: PanelResult) -> Iterator[Record]:
    for row in panel.rows:
        for quantity in quantities_of(panel.metric):
            learned_nothing = [
                panel.metric.scale * baseline.value for baseline in row.baselines(quantity.part)
            ]
            yield {
                **_about(row),
                "quantity": quantity.key,
                "unit": panel.metric.unit,
                **_spread(quantity.over(row.runs)),
                "published": list(quantity.published_values(row.recipe)),
                "published_std": quantity.published_std(row.recipe),
                "source": row.recipe.published.source if quantity.published_values(row.recipe) else None,
                "difference": list(differences(quantity, row)),
                "baseline": _finite(Spread(tuple(learned_nothing)).mean),
            }
    if panel.panel is not None and panel.panel.target is not None:
        yield from _time_records(panel, panel.panel.target)


def _time_records(panel: PanelResult, target: float) -> Iterator[Record]:
    for row, theirs in zip(panel.rows, published_minutes(panel), strict=True):
        spread = minutes_over(row, target, panel.metric)
        yield {
            **_about(row),
            # Of all runs, finished or not, that reached it.
            "seeds": [run.seed for run in row.runs if minutes_to(run, target, panel.metric) is not None],
            "quantity": f"minutes_to_{target:g}",
            "unit": "min",
            **_spread(spread),
            "published": [] if theirs is None else [theirs],
            "published_std": None,
            "source": None if theirs is None else "authors' response",
            "difference": [] if theirs is None or not spread.values else [spread.mean - theirs],
            "baseline": None,
        }


def _about(row: RowResult) -> Record:
    return {
        "row": None if row.row is None else row.row.name,
        "label": row.label,
        "model": row.recipe.model.name,
        "hidden_size": row.recipe.model.hidden_size,
        "parameters": row.parameters,
        "status": _status(row),
        "seeds": [run.seed for run in row.counted],
        "planned_seeds": row.planned,
        "epochs": min((len(run.history) for run in row.counted), default=0),
        "of_epochs": row.recipe.training.epochs,
        "folders": [str(run.folder) for run in row.runs],
    }


def _status(row: RowResult) -> str:
    if not row.runs:
        return NOT_RUN
    if not row.counted:
        return NOTHING_YET
    return "unfinished" if row.provisional else "finished"


def _spread(spread: Spread) -> Record:
    return {
        "mean": _finite(spread.mean),
        "std": _finite(spread.std),
        "values": [_finite(value) for value in spread.values],
    }


def _finite(value: float) -> float | None:
    # JSON knows no other numbers.
    return value if math.isfinite(value) else None


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "; ".join("" if entry is None else str(entry) for entry in value)
    return value
