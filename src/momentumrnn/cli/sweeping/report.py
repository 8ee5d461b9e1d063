"""The trials of a sweep, best first: on the terminal, in Markdown, in CSV; and what the best one is worth."""

import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from momentumrnn.cli.sweeping.axes import as_text
from momentumrnn.cli.sweeping.definition import Definition
from momentumrnn.cli.sweeping.plot import plot_sweep
from momentumrnn.cli.sweeping.progress import show_value
from momentumrnn.cli.sweeping.trial import Trial, run_folders
from momentumrnn.results.table import Table as MarkdownTable
from momentumrnn.results.table import escape_markdown, to_markdown
from momentumrnn.tasks import Metric
from momentumrnn.training.files import write_atomically, written
from momentumrnn.training.history import best_validation_epoch
from momentumrnn.training.run_folder import RunFolder

MOST_SHOWN = 20


def best_trial(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """The first with the best value among those that ran to their end.

    Args:
        trials: In their order.
        metric: What they are judged by.
    """
    complete = (trial for trial in trials if trial.outcome == "complete")
    return max(complete, key=lambda trial: metric.rank(trial.value), default=None)


def ranked(trials: Sequence[Trial], metric: Metric) -> list[Trial]:
    """Best first; then those that were pruned, then those that diverged.

    Args:
        trials: In their order.
        metric: What they are judged by.
    """
    outcomes = ("complete", "pruned", "diverged")

    def place(trial: Trial) -> tuple[int, float]:
        return outcomes.index(trial.outcome), -metric.rank(trial.value) if trial.scores else math.inf

    return sorted(trials, key=place)


def report(
    name: str,
    assignments: Sequence[str],
    definition: Definition,
    trials: Sequence[Trial],
    planned: int,
    out: Path,
    console: Console,
) -> list[Path]:
    """Write the table, what the best trial is worth, and the plot; print the first two.

    Args:
        name: An installed recipe or a file.
        assignments: Values of the recipe that were changed in every trial.
        definition: What was swept.
        trials: The finished trials.
        planned: How many there are to be.
        out: Where to.
        console: The terminal.

    Returns:
        The files written.
    """
    metric = definition.metric
    best, ordered = best_trial(trials, metric), ranked(trials, metric)
    done = len(trials) >= planned
    title = f"Sweep of {written(Path(name).stem)}: {len(trials)}{'' if done else f' of {planned}'} trials"
    lines = list(_verdict(definition, best, done, out))
    if best is not None:
        values = [f"{key}={as_text(value)}" for key, value in best.values.items()]
        lines.append(f"its values: --set {shlex.join(values)}")
        seed = ["training.seed=0"] if definition.recipe.training.seed else []
        words = ["momentumrnn", "train", name, "--set", *assignments, *values, *seed]
        lines.append(f"to train it: {shlex.join(words)}")
    seeds = f", mean of {definition.seeds} seeds" if definition.seeds > 1 else ""
    # Written first: what is printed may have no reader any more.
    files = [out / "table.md", out / "trials.csv"]
    write_atomically(files[0], _markdown(definition, ordered, title, lines))
    write_atomically(files[1], to_frame(definition, ordered, out).to_csv(index=False, lineterminator="\n"))
    files += plot_sweep(definition, trials, best, f"{title}{seeds}", out / "sweep")
    _print(definition, ordered, title, console)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return files


def to_frame(definition: Definition, trials: Sequence[Trial], out: Path) -> pd.DataFrame:
    """One row a trial; accuracies in percent, and no test anywhere.

    Args:
        definition: What was swept.
        trials: In the order of the rows.
        out: The folder of the sweep.
    """
    metric = definition.metric
    return pd.DataFrame(
        [
            {
                "trial": trial.number,
                "outcome": trial.outcome,
                **trial.values,
                f"validation_{metric.name}": metric.scale * trial.value,
                f"validation_{metric.name}_std": metric.scale * trial.std,
                "best_epochs": " ".join(map(str, trial.epochs)),
                "seconds": round(trial.seconds, 3),
                "folders": " ".join(path.name for path in run_folders(out, trial.number, definition.seeds)),
            }
            for trial in trials
        ]
    )


def _verdict(definition: Definition, best: Trial | None, done: bool, out: Path) -> Iterator[str]:
    metric = definition.metric
    if best is None:
        yield "no trial ran to its end"
        return
    yield f"best: trial {best.number}, validation {metric.name} {_spread(best.scores, metric)}"
    if done:
        rows = [
            best_validation_epoch(RunFolder(folder).history())
            for folder in run_folders(out, best.number, definition.seeds)
        ]
        test = [row.test_metric for row in rows if row is not None]
        yield (
            f"test {metric.name} {_spread(test, metric)} at its best validation epoch "
            f"({', '.join(map(str, best.epochs))}); the test chose nothing"
        )
    else:
        yield "its test follows when all trials are done"


def _spread(values: Sequence[float], metric: Metric) -> str:
    series = pd.Series(values)
    mean = metric.show(series.mean())
    return mean if len(values) == 1 else f"{mean} ± {metric.show(series.std())} over {len(values)} seeds"


def _headings(definition: Definition) -> list[tuple[str, str]]:
    # Two lines each, so that the table of a few keys fits a terminal of 80 columns.
    return [
        ("trial", ""),
        *((section, name) for section, _, name in (axis.key.partition(".") for axis in definition.axes)),
        ("validation", definition.metric.name),
        ("best", "epoch" if definition.seeds == 1 else "epochs"),
    ]


def _cells(definition: Definition, trial: Trial) -> list[str]:
    show = definition.metric.show
    if trial.outcome == "diverged":
        reached = "diverged"
    else:
        reached = show(trial.value) + (f" ± {show(trial.std)}" if len(trial.scores) > 1 else "")
        if trial.outcome == "pruned":
            reached = f"pruned after {max(trial.curve)}: {reached}"
    return [
        str(trial.number),
        *(show_value(trial.values[axis.key]) for axis in definition.axes),
        reached,
        ", ".join(map(str, trial.epochs)) or "–",
    ]


def _notes(definition: Definition) -> list[str]:
    over = f", mean ± sample standard deviation over {definition.seeds} seeds" if definition.seeds > 1 else ""
    notes = [f"Validation {definition.metric.name}: the best over epochs{over}; the test has no part in it."]
    if definition.prune:
        notes.append(
            "A trial is pruned after an epoch when the best of its first seed is worse than the median of "
            "the complete trials at that epoch."
        )
    return notes


def _print(definition: Definition, trials: Sequence[Trial], title: str, console: Console) -> None:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for first, second in _headings(definition):
        table.add_column(f"{first}\n{second}", justify="right", no_wrap=True)
    for trial in trials[:MOST_SHOWN]:
        table.add_row(*_cells(definition, trial))
    console.print(table)
    if len(trials) > MOST_SHOWN:
        console.print(f"and {len(trials) - MOST_SHOWN} more, in trials.csv")
    for note in _notes(definition):
        console.print(note, highlight=False, markup=False)


def _markdown(definition: Definition, trials: Sequence[Trial], title: str, lines: Sequence[str]) -> str:
    # A dot joins what two lines part on the terminal; keys come first, so theirs are known by number.
    keys = [axis.key for axis in definition.axes]
    rest = [f"{first} {second}".strip() for first, second in _headings(definition)]
    headings = [rest[0], *keys, *rest[1 + len(keys) :]]
    table = MarkdownTable(
        "",
        tuple(headings),
        tuple(tuple(_cells(definition, trial)) for trial in trials),
        tuple(_notes(definition)),
    )
    head = [f"# {escape_markdown(title)}", "", *(f"- {escape_markdown(line)}" for line in lines), ""]
    return "\n".join(head) + "\n" + to_markdown(table)
