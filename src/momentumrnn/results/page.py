"""A report as one HTML file that needs no other."""

import base64
import datetime
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

from momentumrnn.results.remarks import show_counts, versions_of
from momentumrnn.results.report import SMOKE, Drawing, Part, Report, Section, slug
from momentumrnn.results.rows import NOT_RUN, NOTHING_YET
from momentumrnn.results.runs import RunRecord
from momentumrnn.results.table import Table
from momentumrnn.training.run_folder import METRICS

MISSING = {NOT_RUN, NOTHING_YET, "not measured", "not reached"}
# In inches; a wider plot has panels side by side and may fill the page.
NARROW = 8.5


def to_page(report: Report, about: Mapping[str, str]) -> str:
    """The report as HTML: styles and pictures inside, no script, nothing from the network.

    Args:
        report: Any.
        about: What it was made with.
    """
    style = (resources.files("momentumrnn.results") / "page.css").read_text(encoding="utf-8")
    smoke = bool(report.sections) and all(section.setting.smoke for section in report.sections)
    title = "Runs beside the paper's numbers"
    names = _anchors(report.sections)
    contents = "\n".join(
        f'<li><a href="#{name}">{escape(section.title)}</a></li>'
        for name, section in zip(names, report.sections, strict=True)
    )
    sections = "\n".join(
        _section(section, name) for name, section in zip(names, report.sections, strict=True)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{f'<p class="smoke">{SMOKE}</p>' if smoke else ""}
{_definitions({**about, **_facts(report.runs)})}
</header>
{_warnings(report.warnings)}
<nav aria-label="Contents"><ul>
{contents}
<li><a href="#runs">The runs</a></li>
</ul></nav>
<main>
{sections}
<section id="runs">
<h2>The runs</h2>
{_runs(report.runs)}
</section>
</main>
</body>
</html>
"""


def _anchors(sections: Sequence[Section]) -> list[str]:
    return [f"{slug(section.name)}-{number}" for number, section in enumerate(sections, 1)]


def _definitions(facts: Mapping[str, str]) -> str:
    entries = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>\n" for key, value in facts.items())
    return f"<dl>\n{entries}</dl>"


def _facts(runs: Sequence[RunRecord]) -> dict[str, str]:
    if not runs:
        return {"runs": "none"}
    finished = sum(run.finished for run in runs)
    hours = sum(epoch.seconds for run in runs for epoch in run.history) / 3600
    facts = {"runs": f"{len(runs)}, {finished} of them finished", "hours of training": f"{hours:.1f}"}
    times = sorted(time for run in runs if (time := _measured(run)) is not None)
    if times:
        facts["last epochs measured"] = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    return {**facts, **{key: show_counts(values) for key, values in versions_of(runs).items()}}


def _measured(run: RunRecord) -> str | None:
    try:
        seconds = (run.folder / METRICS).stat().st_mtime
    except OSError:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    entries = "\n".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f'<aside class="warnings"><h2>Warnings</h2><ul>\n{entries}\n</ul></aside>'


def _section(section: Section, name: str) -> str:
    parts = "\n".join(_part(part) for part in section.parts)
    smoke = f'<p class="smoke">{SMOKE}</p>\n' if section.setting.smoke else ""
    return f'<section id="{name}">\n<h2>{escape(section.title)}</h2>\n{smoke}{parts}\n</section>'


def _part(part: Part) -> str:
    tables = "\n".join(_table(table) for table in part.tables)
    drawings = "\n".join(_drawing(drawing) for drawing in part.drawings)
    return f"<h3>{escape(part.title)}</h3>\n{tables}\n{drawings}"


def _table(table: Table) -> str:
    headings = "".join(f'<th scope="col">{_lines(heading)}</th>' for heading in table.headings)
    rows = "\n".join(
        f'<tr><th scope="row">{_lines(cells[0])}</th>{"".join(map(_cell, cells[1:]))}</tr>'
        for cells in table.rows
    )
    notes = "\n".join(f'<p class="note">{escape(note)}</p>' for note in table.notes)
    label = escape(table.title, quote=True)
    return (
        # A region that can be scrolled must be reached from the keyboard, too.
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">\n<table>\n'
        f"<thead><tr>{headings}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n{notes}"
    )


def _cell(text: str) -> str:
    return f'<td class="missing">{_lines(text)}</td>' if text in MISSING else f"<td>{_lines(text)}</td>"


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _drawing(drawing: Drawing) -> str:
    # Lines stay sharp at every size where they can.
    suffix = drawing.formats[-1]
    kind = {"png": "image/png", "svg": "image/svg+xml"}[suffix]
    picture = base64.b64encode(drawing.content(suffix)).decode("ascii")
    narrow = ' class="narrow"' if drawing.width <= NARROW else ""
    text = escape(drawing.text, quote=True)
    return (
        f'<figure{narrow}>\n<div class="scroll"><img src="data:{kind};base64,{picture}" alt="{text}"></div>\n'
        f"<figcaption>{escape(drawing.text)}</figcaption>\n</figure>"
    )


def _runs(runs: Sequence[RunRecord]) -> str:
    if not runs:
        return "<p>None was found.</p>"
    return "\n".join(_run(run) for run in runs)


def _run(run: RunRecord) -> str:
    epochs = f"{len(run.history)} of {run.recipe.training.epochs} epochs"
    facts = {"folder": str(run.folder), "parameters": f"{run.parameters:,}"}
    measured = _measured(run)
    if measured is not None and run.history:
        facts["last epoch measured"] = measured
    facts["hours"] = f"{sum(epoch.seconds for epoch in run.history) / 3600:.2f}"
    if run.diverged:
        facts["diverged"] = run.diverged
    for number, start in enumerate(run.starts, 1):
        what = "start" if len(run.starts) == 1 else f"start {number}"
        facts[what] = ", ".join(f"{key} {value}" for key, value in start.items() if value is not None)
    unfinished = ", diverged" if run.diverged else "" if run.finished else ", not finished"
    return (
        f'<details><summary>{escape(run.folder.name)} <span class="faint">{escape(run.recipe.model.name)}, '
        f"seed {run.seed}, {epochs}{unfinished}</span></summary>\n<div>{_definitions(facts)}\n"
        f"<pre>{escape(run.recipe.to_toml())}</pre></div></details>"
    )
