"""The study in its file: what was asked, what came of it, and what to try next."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, GridSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from momentumrnn.cli.sweeping.axes import Axis, Range, Value
from momentumrnn.cli.sweeping.definition import Definition
from momentumrnn.cli.sweeping.trial import Outcome, Trial
from momentumrnn.errors import CheckpointError
from momentumrnn.regular_files import read_regular
from momentumrnn.training.files import write_atomically
from momentumrnn.training.lock import FolderLock

JOURNAL, LOCK, NAME = "study.journal", "sweep.lock", "sweep"
DEFINITION, ASKED = "definition", "asked"
SEED = 0
# What reading an edited journal may raise, in optuna's code and in ours.
DAMAGES = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    RecursionError,
    optuna.exceptions.OptunaError,
)
# Nothing is stopped before there is something to compare it with, nor early on, where a small step looks
# worse than it is.
PRUNE_AFTER_TRIALS, PRUNE_AFTER_SHARE = 5, 0.2


class Study:
    """The study of one sweep; it holds finished trials, each written as one line, and what was asked last.

    What is tried next follows from the finished trials and their number alone, so that an interruption
    changes nothing.

    Args:
        study: Where it is kept.
        definition: What is swept.
    """

    def __init__(self, study: optuna.Study, definition: Definition) -> None:
        self._study, self._definition = study, definition
        self._distributions = {axis.key: _distribution(axis) for axis in definition.axes}
        warm_up = int(PRUNE_AFTER_SHARE * definition.recipe.training.epochs) + 1
        self._pruner = optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, warm_up)

    def definition(self) -> Definition | None:
        """The definition that was written down, ``None`` before that.

        Raises:
            ValueError: None was, and yet there are trials.
            CheckpointError: It is no definition.
        """
        stored = self._study.user_attrs.get(DEFINITION)
        if stored is None and self._study.trials:
            raise ValueError("expected a definition before the trials, found none")
        return None if stored is None else Definition.from_json(stored, JOURNAL)

    def define(self) -> None:
        """Write the definition down."""
        self._study.set_user_attr(DEFINITION, self._definition.to_json())

    def check(self) -> None:
        """Read everything once, so that a journal that was edited is refused before anything runs.

        Raises:
            ValueError: A value that no sweep writes; other types of errors come from missing entries.
        """
        for trial in self._study.trials:
            told = _read(trial)
            numbers = [*told.scores, *told.epochs, told.seconds, *told.curve.values()]
            if told.outcome not in get_args(Outcome) or not all(isinstance(n, int | float) for n in numbers):
                raise ValueError(f"trial {trial.number} holds values that no sweep writes")
            if told.outcome == "complete" and len(told.scores) != self._definition.seeds:
                raise ValueError(f"trial {trial.number} does not hold one score for each seed")
            same = trial.distributions == self._distributions
            if not same or trial.params.keys() != self._distributions.keys():
                raise ValueError(f"trial {trial.number} varies other values than the sweep")
        asked = self._study.user_attrs.get(ASKED)
        if asked is not None:
            if asked["values"].keys() != self._distributions.keys():
                raise ValueError("the values of the next trial are not those of the sweep")
            self._definition.runs(asked["values"])

    def trials(self) -> list[Trial]:
        """The finished trials in their order."""
        return [_read(trial) for trial in self._study.trials]

    def ask(self) -> dict[str, Value]:
        """The values of the next trial; the same ones until it is recorded."""
        number = len(self._study.trials)
        asked = self._study.user_attrs.get(ASKED)
        if asked is None or asked["number"] != number:
            asked = {"number": number, "values": self._suggest(number)}
            # Before it is written down, and asked for ever after.
            list(self._definition.runs(asked["values"]))
            self._study.set_user_attr(ASKED, asked)
        return dict(asked["values"])

    def record(self, trial: Trial) -> None:
        """Add a finished trial.

        Args:
            trial: The one that was asked.
        """
        complete = trial.outcome == "complete"
        self._study.add_trial(
            create_trial(
                # Of a failed one Optuna would learn nothing; one pruned before its first epoch is its worst.
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                value=trial.value if complete else None,
                params=dict(trial.values),
                distributions=self._distributions,
                intermediate_values={} if trial.outcome == "diverged" else dict(trial.curve),
                user_attrs={
                    "outcome": trial.outcome,
                    "scores": list(trial.scores),
                    "epochs": list(trial.epochs),
                    "seconds": trial.seconds,
                },
            )
        )

    def falls_behind(self, curve: Mapping[int, float]) -> bool:
        """Whether a trial is to be stopped: its best is worse than the median of the others at that epoch.

        Args:
            curve: Epoch → validation metric of its first seed, until now.
        """
        running = create_trial(state=TrialState.RUNNING, intermediate_values=dict(curve))
        return self._definition.prune and self._pruner.prune(self._study, running)

    def _suggest(self, number: int) -> dict[str, Any]:
        # In memory, so that the file never holds half a suggestion; with a sampler of its own for every
        # trial, so that nothing depends on how many were drawn since the process began.
        scratch = optuna.create_study(sampler=self._sampler(number), direction=self._study.direction)
        scratch.add_trials(self._study.trials)
        values: dict[str, Any] = scratch.ask(self._distributions).params
        return values

    def _sampler(self, number: int) -> BaseSampler:
        # Of neighbouring seeds the first draws may be neighbours, too.
        seed = int(np.random.SeedSequence((SEED, number)).generate_state(1)[0])
        if self._definition.sampler == "random":
            return RandomSampler(seed=seed)
        if self._definition.sampler == "grid":
            # Numbers its points itself; only their order is drawn.
            return GridSampler({axis.key: axis.grid or () for axis in self._definition.axes}, seed=SEED)
        return TPESampler(seed=seed)


@contextlib.contextmanager
def opened_study(out: Path, definition: Definition) -> Iterator[Study]:
    """Hold the folder of a sweep for this process alone, with its study.

    Args:
        out: The folder, made where it does not exist.
        definition: What is swept.

    Raises:
        CheckpointError: The folder is in use, damaged, or belongs to something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_folder(out)
    with FolderLock(out / LOCK):
        path = out / JOURNAL
        _tidy(path)
        try:
            study = Study(_load(path, definition), definition)
            stored = study.definition()
            found = [] if stored is None else list(definition.differences(stored))
            if not found:
                study.check()
        except DAMAGES as error:
            raise CheckpointError(
                f"{path} is damaged ({type(error).__name__}: {error}); restore it, or choose another folder "
                "with --out"
            ) from error
        if found:
            raise CheckpointError(
                f"{out} holds another sweep: {'; '.join(found)}; choose another folder with --out, or "
                "delete this one"
            )
        if stored is None:
            study.define()
        yield study


def _check_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        strangers = sorted(path.name for path in out.iterdir() if path.name != LOCK)
    except OSError as error:
        raise CheckpointError(f"--out {out}: expected a folder, got {error.strerror}") from error
    if strangers and not (out / JOURNAL).exists():
        raise CheckpointError(
            f"{out} holds files that are no sweep ({', '.join(strangers[:3])}); choose an empty or new "
            "folder with --out"
        )


def _tidy(path: Path) -> None:
    # A process killed while writing leaves half a line, which the next one would be appended to, and a lock
    # that Optuna would wait for.
    if path.exists():
        try:
            content = read_regular(path)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); remove it") from error
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_atomically(path, whole)
    for left in path.parent.glob(f"{JOURNAL}.lock*"):
        left.unlink()


def _load(path: Path, definition: Definition) -> optuna.Study:
    # Lines of JSON: reading them runs nothing.
    begun = path.exists() and path.stat().st_size > 0
    storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
    if begun and NAME not in optuna.get_all_study_names(storage):
        raise ValueError(f"expected a study named {NAME!r}, found none")
    if NAME in optuna.get_all_study_names(storage):
        return optuna.load_study(study_name=NAME, storage=storage)
    best = StudyDirection.MAXIMIZE if definition.metric.higher_is_better else StudyDirection.MINIMIZE
    return optuna.create_study(study_name=NAME, storage=storage, direction=best)


def _distribution(axis: Axis) -> BaseDistribution:
    if not isinstance(axis, Range):
        return CategoricalDistribution(axis.values)
    if isinstance(axis.low, int) and isinstance(axis.high, int):
        return IntDistribution(axis.low, axis.high, log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _read(trial: FrozenTrial) -> Trial:
    told = trial.user_attrs
    return Trial(
        number=trial.number,
        values=trial.params,
        outcome=told["outcome"],
        scores=tuple(told["scores"]),
        epochs=tuple(told["epochs"]),
        seconds=told["seconds"],
        curve=trial.intermediate_values,
    )
