"""``momentumrnn sweep``: values of a recipe tried out, the next ones chosen by what came of the last."""

import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from momentumrnn.cli.sweeping.axes import parse_axes
from momentumrnn.cli.sweeping.definition import Definition, Sampler
from momentumrnn.cli.sweeping.progress import Teller
from momentumrnn.cli.sweeping.report import best_trial, report
from momentumrnn.cli.sweeping.run import Deadline, OutOfTimeError, carry_out
from momentumrnn.cli.sweeping.study import Study, opened_study
from momentumrnn.cli.sweeping.trial import Trial
from momentumrnn.cli.terminal import make_console
from momentumrnn.data import data_folder
from momentumrnn.errors import DivergedError, RecipeError
from momentumrnn.tasks.fingerprint import FINGERPRINT_FILE
from momentumrnn.training import load_recipe
from momentumrnn.training.documents import keep_documents
from momentumrnn.training.plan import refuse_seed

TRIALS = 20


def planned_sweep(
    name: str,
    over: Sequence[str],
    assignments: Sequence[str],
    *,
    sampler: Sampler = "tpe",
    seeds: int = 1,
    prune: bool = False,
) -> Definition:
    """What is swept, checked.

    Args:
        name: An installed recipe or a file.
        over: What is varied, such as ``rule.momentum=0:0.99``.
        assignments: Values of the recipe to change in every trial.
        sampler: Who says which values are tried.
        seeds: How many runs a trial has.
        prune: Whether trials that fall behind are stopped.

    Raises:
        RecipeError: Any of these makes no sense.
    """
    refuse_seed(assignments)
    recipe = load_recipe(name).override(assignments)
    axes = parse_axes(over, recipe)
    fixed = {assignment.partition("=")[0].strip() for assignment in assignments}
    for axis in axes:
        if axis.key in fixed:
            raise RecipeError(f"--over {axis.key}: --set fixes it; leave out one of the two")
    return Definition(recipe, axes, sampler, seeds, prune)


def planned_trials(definition: Definition, trials: int | None) -> int:
    """How many trials there are to be.

    Args:
        definition: What is swept.
        trials: How many were asked for.

    Raises:
        RecipeError: None were.
    """
    if trials is not None and trials < 1:
        raise RecipeError(f"--trials: expected 1 or more, got {trials}")
    if definition.sampler != "grid":
        return TRIALS if trials is None else trials
    points = math.prod(len(axis.grid or ()) for axis in definition.axes)
    return points if trials is None else min(trials, points)


def sweep(
    name: str,
    definition: Definition,
    trials: int | None,
    *,
    assignments: Sequence[str] = (),
    minutes: float | None,
    out: Path | None,
    data: Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Carry out the trials that are missing, and report.

    Args:
        name: An installed recipe or a file.
        definition: What is swept.
        trials: How many; 20 where absent, or the whole grid.
        assignments: Values of the recipe that were changed in every trial.
        minutes: After how many to stop.
        out: Where the study, its runs, the table and the plot go.
        data: The data folder.
        device: Where to run.
        threads: How many CPU threads to use.

    Raises:
        RecipeError: A number that makes no sense.
        CheckpointError: The folder is in use, damaged, or belongs to something else, or the data have
            changed.
        DivergedError: No trial ran to its end; the table and the plot are written.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written before.
    """
    planned = planned_trials(definition, trials)
    if minutes is not None and not 0 < minutes < math.inf:
        raise RecipeError(f"--minutes: expected a number above 0, got {minutes}")
    out = out or Path("runs") / f"sweep-{Path(name).stem}"
    console, deadline = make_console(), Deadline(minutes)
    with opened_study(out, definition) as study:
        found = len(study.trials())
        if found:
            print(f"{out} holds {found} of the trials, which are kept")
        if found < planned:
            _keep_data(definition, out, data)
        with (
            Teller(console, definition.metric, planned, definition.seeds) as teller,
            suppress(OutOfTimeError),
        ):
            while len(study.trials()) < planned and not deadline.passed:
                _one_trial(study, definition, teller, deadline, out, data, device, threads)
        finished = study.trials()
        if finished:
            for file in report(name, assignments, definition, finished, planned, out, console):
                print(f"wrote {file}")
    if len(finished) < planned:
        print(
            f"stopped after {minutes:g} minutes, {len(finished)} of {planned} trials are done; the same "
            "command goes on"
        )
    elif best_trial(finished, definition.metric) is None:
        raise DivergedError(
            f"none of the {planned} trials ran to its end, so there is no best one: {_ends(finished)}. Sweep "
            "other values, such as a smaller optimizer.lr, in another folder (--out)"
        )


def _ends(trials: Sequence[Trial]) -> str:
    counts = Counter(trial.outcome for trial in trials)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


def _keep_data(definition: Definition, out: Path, data: Path | None) -> None:
    """Write down what the trials learn from, or see that it is what it was."""
    # A run sees that its own data have changed, and not that those of the next trial are others.
    task = definition.recipe.task()
    # Of a text the checksum depends on the size of batches, which may be what is swept.
    sampling = replace(definition.recipe.sampling(), batch_size=1, eval_batch_size=1)
    documents = task.documents(task.load(data_folder(data), sampling, "cpu"))
    keep_documents(out, {name: text for name, text in documents.items() if name == FINGERPRINT_FILE})


def _one_trial(
    study: Study,
    definition: Definition,
    teller: Teller,
    deadline: Deadline,
    out: Path,
    data: Path | None,
    device: str,
    threads: int | None,
) -> None:
    before = study.trials()
    number, values = len(before), study.ask()
    teller.trial_begins(number, values, best_trial(before, definition.metric))
    trial = carry_out(
        definition,
        number,
        values,
        out=out,
        data=data,
        device=device,
        threads=threads,
        shown=teller,
        deadline=deadline,
        judge=study.falls_behind,
    )
    study.record(trial)
    teller.trial_ends(trial, best_trial(study.trials(), definition.metric))
