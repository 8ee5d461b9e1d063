"""A set of runs as sections of tables and drawings, whatever they are written as."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from momentumrnn.errors import CheckpointError
from momentumrnn.results.cost import cost_figure, cost_table
from momentumrnn.results.cost_records import read_costs, read_machine
from momentumrnn.results.find import COST, Found
from momentumrnn.results.gradient_records import SMOKE_STEPS, STEPS, gradient_file, steps_recorded
from momentumrnn.results.heat_map import heat_map
from momentumrnn.results.match import Matched, Placed, Setting, experiments_to_show, match_runs
from momentumrnn.results.panel_tables import grid_table, results_table
from momentumrnn.results.plots import FORMATS, render, training_figure
from momentumrnn.results.remarks import warnings_of
from momentumrnn.results.rows import NOT_RUN, PanelResult, other_results, panel_result
from momentumrnn.results.runs import RunRecord, label_models
from momentumrnn.results.table import Table
from momentumrnn.results.time_to_target import time_figure, time_table
from momentumrnn.training.experiments import Experiment, Panel, Row, load_experiment

SMOKE = "SMOKE TEST, NO RESULTS"


@dataclass
class Drawing:
    """A plot, drawn once for all that it is written into.

    Attributes:
        name: Of its file, without a suffix.
        figure: The plot, or the PNG file that it is.
        text: What it shows, for those who do not see it.
    """

    name: str
    figure: Figure | Path
    text: str
    _drawn: dict[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def formats(self) -> tuple[str, ...]:
        """What it can be had as."""
        return ("png",) if isinstance(self.figure, Path) else FORMATS

    @property
    def width(self) -> float:
        """In inches, as far as it is known."""
        return 8.0 if isinstance(self.figure, Path) else float(self.figure.get_size_inches()[0])

    def content(self, suffix: str) -> bytes:
        """The contents of its file.

        Args:
            suffix: One of ``formats``.
        """
        if suffix not in self._drawn:
            figure = self.figure
            self._drawn[suffix] = figure.read_bytes() if isinstance(figure, Path) else render(figure, suffix)
        return self._drawn[suffix]


@dataclass(frozen=True)
class Part:
    """A panel of a table or figure.

    Attributes:
        title: Its heading.
        tables: In order.
        drawings: In order.
    """

    title: str
    tables: tuple[Table, ...]
    drawings: tuple[Drawing, ...] = ()


@dataclass
class Section:
    """A table or figure.

    Attributes:
        title: Its heading.
        name: The experiment, ``other`` of runs that are of none.
        setting: What all its runs have in common.
        parts: Its panels.
        results: The panels that were trained for, with their numbers.
    """

    title: str
    name: str
    setting: Setting
    parts: list[Part] = field(default_factory=list)
    results: list[PanelResult] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """All that is written.

    Attributes:
        sections: Tables and figures.
        runs: Those that are shown.
        warnings: What a reader should know.
    """

    sections: list[Section]
    runs: list[RunRecord]
    warnings: list[str]


def build_report(found: Found, experiments: Sequence[str] = ()) -> Report:
    """Put runs beside the paper's numbers.

    Args:
        found: What lies in some folders.
        experiments: Names of tables and figures, where only these are wanted; runs of others are left out
            then.
    """
    matched = match_runs(found)
    warnings = [*found.warnings, *matched.warnings]
    shown = experiments_to_show(matched, experiments)
    if not experiments and "cost" not in {name for _, name in shown}:
        unplanned = [folder for folder in found.measured if folder.resolve() not in found.plans]
        if any((folder / COST).exists() for folder in unplanned):
            shown.append((matched.placed[0], "cost"))
    sections = [
        _section(load_experiment(name), at, found, warnings, asked=bool(experiments)) for at, name in shown
    ]
    if matched.others and not experiments:
        sections.append(_others(matched))
    # A run may stand in several tables.
    listed = {
        run.folder: run
        for section in sections
        for panel in section.results
        for row in panel.rows
        for run in row.runs
    }
    left_out = len(found.runs) - len(listed)
    if left_out and experiments:
        warnings.append(f"{left_out} of {len(found.runs)} runs are not shown: they are of other experiments")
    runs = sorted(listed.values(), key=lambda run: str(run.folder))
    return Report(sections, runs, [*warnings, *warnings_of(runs)])


def _section(
    experiment: Experiment, at: Placed, found: Found, warnings: list[str], *, asked: bool
) -> Section:
    setting = at.setting
    title = f"{SMOKE}: {experiment.title}" if setting.smoke else experiment.title
    if setting.overrides:
        title += f", with {' '.join(setting.overrides)}"
    section = Section(title, experiment.name, setting)
    tag = "-".join([experiment.name, *_tag(setting)])
    wanted = asked or experiment.name in at.planned
    for panel in experiment.panels:
        heading = f"{title}: {panel.title}"
        name = f"{tag}-{slug(panel.title)}"
        if panel.trains:
            result = panel_result(panel, at, experiment.name)
            # Without runs, a panel that was neither asked for nor planned would be an empty table.
            if not wanted and not any(row.runs for row in result.rows):
                continue
            section.results.append(result)
            section.parts.append(_trained(result, heading, name))
        else:
            folders = [folder for folder in found.measured if _setting_of(folder, found) == setting]
            if "cost" in panel.shows:
                section.parts.append(_cost(panel, folders, heading, name, warnings))
            else:
                picture = f"{experiment.name}.png"
                part = _gradients(panel, folders, heading, name, picture, setting.smoke, warnings)
                section.parts.append(part)
    return section


def _trained(result: PanelResult, heading: str, name: str) -> Part:
    shows = result.panel.shows if result.panel is not None else ("table", "curves")
    tables: list[Table] = []
    drawings: list[Drawing] = []
    if {"table", "curves"} & set(shows):
        tables.append(results_table(result, heading))
    if "curves" in shows and result.begun:
        figure = training_figure(result.groups, result.metric, heading)
        drawings.append(Drawing(f"{name}-curves", figure, f"{heading}: loss against epochs. {_run(result)}"))
    if "grid" in shows:
        tables.append(grid_table(result, heading))
        if result.begun:
            figure = heat_map(result, heading)
            drawings.append(
                Drawing(f"{name}-grid", figure, f"{heading}: {result.metric.name} in a grid. {_run(result)}")
            )
    if "time" in shows:
        tables.append(time_table(result, heading))
        if result.begun:
            figure = time_figure(result, heading)
            text = f"{heading}: test {result.metric.name} against minutes. {_run(result)}"
            drawings.append(Drawing(f"{name}-time", figure, text))
    return Part(result.title, tuple(tables), tuple(drawings))


def _run(result: PanelResult) -> str:
    missing = [row.label for row in result.rows if not row.counted]
    if result.panel is not None and result.panel.grid is not None:
        return f"Not run: {len(missing)} of {len(result.rows)} cells." if missing else "Every cell was run."
    return f"Not run: {', '.join(missing)}." if missing else "Every model was run."


def _cost(panel: Panel, folders: Sequence[Path], heading: str, name: str, warnings: list[str]) -> Part:
    tables: list[Table] = []
    drawings: list[Drawing] = []
    for folder in folders:
        try:
            costs = read_costs(folder)
        except CheckpointError as error:
            if str(error) not in warnings:
                warnings.append(str(error))
            continue
        if any(title == panel.title for title, _ in costs):
            number = f"-{len(tables) + 1}" if tables else ""
            tables.append(cost_table(panel, costs, read_machine(folder), heading))
            drawings.append(
                Drawing(f"{name}{number}", cost_figure(panel, costs, heading), f"{heading}: cost as bars.")
            )
    return Part(panel.title, tuple(tables or [cost_table(panel, {}, {}, heading)]), tuple(drawings))


def _gradients(
    panel: Panel,
    folders: Sequence[Path],
    heading: str,
    name: str,
    picture: str,
    smoke: bool,
    warnings: list[str],
) -> Part:
    rows = panel.all_rows()
    labels = label_models([row.load() for row in rows])
    states = tuple(_recorded(row, folders, smoke, warnings) for row in rows)
    table = Table(heading, ("model", "gradients"), tuple(zip(labels, states, strict=True)))
    pictures = [folder / picture for folder in folders if (folder / picture).exists()]
    text = f"{heading}: norms of the gradients over time steps and iterations, a panel a model."
    return Part(panel.title, (table,), tuple(Drawing(name, found, text) for found in pictures[:1]))


def _recorded(row: Row, folders: Sequence[Path], smoke: bool, warnings: list[str]) -> str:
    of, steps = SMOKE_STEPS if smoke else STEPS, None
    for folder in folders:
        try:
            found = steps_recorded(gradient_file(folder, row.name))
        except CheckpointError as error:
            warnings.append(str(error))
            continue
        steps = max(steps or 0, found) if found is not None else steps
    if steps is None:
        return NOT_RUN
    return "recorded" if steps >= of else f"{steps} of {of} steps"


def _others(matched: Matched) -> Section:
    section = Section("Runs of no experiment", "other", Setting())
    for number, result in enumerate(other_results(matched.others), 1):
        heading = f"Runs of no experiment: {result.title}"
        section.results.append(result)
        section.parts.append(_trained(result, heading, f"other-{number}-{slug(result.title)}"))
    return section


def _setting_of(folder: Path, found: Found) -> Setting:
    plan = found.plans.get(folder.resolve())
    return Setting() if plan is None else Setting(plan.overrides, plan.smoke)


def _tag(setting: Setting) -> list[str]:
    told = []
    if setting.overrides:
        # Short enough for a file's name, and another one for other changes.
        digest = hashlib.sha256("\n".join(setting.overrides).encode()).hexdigest()
        told = [slug(" ".join(setting.overrides))[:40].strip("-"), digest[:6]]
    return [*told, *(["smoke"] if setting.smoke else [])]


def slug(text: str) -> str:
    """Text as part of a file's name.

    Args:
        text: Any.

    >>> slug("PMNIST, N = 256")
    'pmnist-n-256'
    """
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.") or "x"
