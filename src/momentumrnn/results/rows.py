"""The rows of a panel with their runs, whether they were run or not."""

from collections.abc import Sequence
from dataclasses import dataclass

from momentumrnn.results.match import Placed
from momentumrnn.results.numbers import Spread
from momentumrnn.results.runs import RunRecord, counted, group_runs, label_models, show_data
from momentumrnn.tasks import Baseline, Metric
from momentumrnn.tasks.contract import AnyPart
from momentumrnn.training.experiments import Panel, Row
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.sections import DataSection

NOT_RUN, NOTHING_YET, UNFINISHED = "not run", "nothing yet", "*"


@dataclass(frozen=True)
class RowResult:
    """A model in one setting.

    Attributes:
        label: What it is called beside the others.
        recipe: What it is run as, whatever the seed.
        runs: Its runs, by their seeds.
        row: Which row it is, ``None`` of runs that are none.
        planned: With how many seeds it shall be run, where that is known.
    """

    label: str
    recipe: Recipe
    runs: tuple[RunRecord, ...]
    row: Row | None = None
    planned: int | None = None

    @property
    def counted(self) -> list[RunRecord]:
        """The runs that a mean is taken over."""
        return counted(self.runs)

    @property
    def provisional(self) -> bool:
        """Whether the numbers are those of unfinished runs."""
        return any(not run.finished for run in self.counted)

    @property
    def parameters(self) -> int | None:
        """How many numbers the model learns, where a run tells."""
        return self.runs[0].parameters if self.runs else None

    def baselines(self, part: AnyPart) -> list[Baseline]:
        """What can be had without learning on what the runs that count are compared on, where it is known.

        Args:
            part: Of training each run has sequences of its own: those of its last epoch. Where nothing was
                run, the expectation over all sequences stands for them.
        """
        task = self.recipe.task()
        runs = [run for run in self.counted if part == "training"]
        found = [task.baseline(part, run.recipe.sampling(), len(run.history)) for run in runs]
        return [baseline for baseline in found or [task.baseline(part)] if baseline is not None]

    def show_seeds(self) -> str:
        """How many seeds the numbers are over, and of how many where some are missing."""
        have = len(self.counted)
        return f"{have} of {self.planned}" if self.planned is not None and have < self.planned else str(have)

    def show_epochs(self) -> str:
        """The epochs of finished runs, and on a line of their own those of the others."""
        of = self.recipe.training.epochs
        finished = [run for run in self.runs if run.finished]
        unfinished = [len(run.history) for run in self.runs if not run.finished]
        lines = [str(of)] if finished else []
        if unfinished:
            low, high = min(unfinished), max(unfinished)
            lines.append(f"{low} of {of}" if low == high else f"{low}–{high} of {of}")
        return "\n".join(lines) or "–"


@dataclass(frozen=True)
class PanelResult:
    """Models side by side, judged by one metric.

    Attributes:
        title: Its heading.
        metric: What they are judged by.
        rows: The models.
        panel: What is shown of them; ``None`` of runs that are of no experiment.
        smoke: Whether they were shrunk to seconds.
    """

    title: str
    metric: Metric
    rows: tuple[RowResult, ...]
    panel: Panel | None = None
    smoke: bool = False

    def baseline(self, part: AnyPart) -> tuple[str, Spread] | None:
        """What can be had without learning, where it is known for all and called alike.

        Args:
            part: The sequences that it is computed on.

        Returns:
            Its name, and its different values, as they are shown.
        """
        found = [row.baselines(part) for row in self.rows]
        names = {baseline.name for baselines in found for baseline in baselines}
        if len(names) != 1 or not all(found):
            return None
        # A row that was not run has but an expectation, and no numbers beside which it could stand.
        run = [baselines for row, baselines in zip(self.rows, found, strict=True) if row.counted] or found
        values = {baseline.value: None for baselines in run for baseline in baselines}
        return names.pop(), Spread(tuple(self.metric.scale * value for value in values))

    @property
    def groups(self) -> dict[str, Sequence[RunRecord]]:
        """Label → the runs that count, none where it was not run; with the epochs there are so far."""
        return {
            f"{row.label} ({row.show_epochs()})" if row.provisional else row.label: row.counted
            for row in self.rows
        }

    @property
    def begun(self) -> bool:
        """Whether there is anything to draw."""
        return any(self.groups.values())


def panel_result(panel: Panel, placed: Placed, experiment: str) -> PanelResult:
    """The rows of a panel with their runs.

    Args:
        panel: One that trains.
        placed: The runs of one setting.
        experiment: Of which table or figure.
    """
    rows = panel.all_rows()
    recipes = [placed.setting.recipe(row) for row in rows]
    # Named by what the rows are, not by what a small test makes of them.
    labels = label_models([row.load() for row in rows] if placed.setting.smoke else recipes)
    results = tuple(
        RowResult(label, recipe, tuple(placed.runs_of(row, recipe)), row, placed.seeds(row, experiment))
        for label, row, recipe in zip(labels, rows, recipes, strict=True)
    )
    return PanelResult(panel.title, recipes[0].task().metric, results, panel, placed.setting.smoke)


def other_results(runs: Sequence[RunRecord]) -> list[PanelResult]:
    """Runs that are of no experiment, side by side where they learn from the same data.

    Args:
        runs: Any.
    """
    by_data: dict[DataSection, list[RunRecord]] = {}
    for run in runs:
        by_data.setdefault(run.recipe.data, []).append(run)
    names = [show_data(data) for data in by_data]
    return [
        PanelResult(
            # Where two are called alike it is what is held out that differs.
            title if names.count(title) == 1 else f"{title}, {_held_out(data)}",
            members[0].recipe.task().metric,
            tuple(
                RowResult(label, same[0].recipe, tuple(same)) for label, same in group_runs(members).items()
            ),
        )
        for title, (data, members) in zip(names, by_data.items(), strict=True)
    ]


def _held_out(data: DataSection) -> str:
    return "its own validation split" if data.validation is None else f"{data.validation:,} held out"
