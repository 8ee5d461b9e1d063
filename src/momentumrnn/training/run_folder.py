"""The folder of one run: all that is needed to go on with it and to report it."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from momentumrnn.errors import CheckpointError
from momentumrnn.regular_files import check_regular, read_regular
from momentumrnn.tasks import Metric
from momentumrnn.training.checkpoint import has_checkpoints, read_history
from momentumrnn.training.files import discard_unfinished, needing_disk, write_atomically, written
from momentumrnn.training.history import Epoch, RunResult, check_same, read_metrics, write_metrics
from momentumrnn.training.lock import FolderLock
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.toml_io import parse_toml, read_text

RECIPE, METRICS, VERSIONS, LOCK = "recipe.toml", "metrics.csv", "versions.json", "run.lock"
DIVERGED = "diverged.txt"
# What may change the last bits of a result.
NUMERICAL = ("momentumrnn", "commit", "torch", "platform", "device", "threads", "processes")


class RunFolder:
    """The files of a run.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.best = path / "best.safetensors"

    def recipe(self) -> Recipe | None:
        """The recipe this folder belongs to, ``None`` where it belongs to none.

        Raises:
            CheckpointError: The folder holds pipes, sockets, devices or links out of it.
            RecipeError: It cannot be read.
        """
        path = self.path / RECIPE
        if not os.path.lexists(path):
            return None
        self._check_files()
        return Recipe.from_sections(parse_toml(read_text(path), str(path)), str(path))

    def _check_files(self) -> None:
        """Refuse what would be waited for, or read or written outside of this folder."""
        home = self.path.resolve()
        for path in self._entries():
            if path.is_symlink() and not path.resolve().is_relative_to(home):
                raise CheckpointError(
                    f"{path}: expected a file or folder of the run itself, got a link out of the run folder "
                    f"(to {path.resolve()}); put the file itself there, or remove the link"
                )
            if not path.is_dir():
                # While a run is looked at, its process may delete an old checkpoint.
                try:
                    check_regular(path)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    raise CheckpointError(f"{path}: {error.strerror}; remove it") from error

    def _entries(self) -> Iterator[Path]:
        """What a run reads and writes; not what lies in folders that are none of its own."""
        yield from self.path.iterdir()
        for folder in (self.checkpoints, self.tensorboard, *_inside(self.checkpoints)):
            yield from _inside(folder)

    def history(self) -> tuple[Epoch, ...]:
        """What was measured so far."""
        return read_metrics(self.path / METRICS)

    def starts(self) -> list[dict[str, Any]]:
        """Versions, platform and command of every time the run was started, as far as they can be read."""
        path = self.path / VERSIONS
        try:
            starts = json.loads(read_regular(path))["starts"] if path.exists() else []
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return [start for start in starts if isinstance(start, dict)] if isinstance(starts, list) else []

    def diverged(self) -> str | None:
        """Where the run diverged when it was last carried on, ``None`` where it did not."""
        path = self.path / DIVERGED
        return read_text(path).strip() if path.exists() else None

    def mark_diverged(self, where: str) -> None:
        """Write down, until the run is gone on with, that it diverged.

        Args:
            where: In which step and epoch.
        """
        write_atomically(self.path / DIVERGED, where + "\n")

    def write_history(self, history: Sequence[Epoch], metric: Metric) -> None:
        """Replace ``metrics.csv``.

        Args:
            history: What was measured so far.
            metric: What the run is judged by.
        """
        write_metrics(self.path / METRICS, history, metric)

    def result(self, recipe: Recipe) -> RunResult:
        """The run in numbers.

        Args:
            recipe: The run's recipe.

        Raises:
            CheckpointError: ``metrics.csv`` cannot be read, or contradicts the checkpoint.
        """
        history, epochs = self.history(), recipe.training.epochs
        finished = len(history) >= epochs and self._checkpointed(history) >= epochs
        return RunResult(self.path, history, finished)

    def check_history(self, stored: Sequence[Mapping[str, int | float | None]]) -> int:
        """Compare what was measured with what a checkpoint says of it.

        Args:
            stored: The checkpoint's rows.

        Returns:
            How many epochs ``metrics.csv`` holds.

        Raises:
            CheckpointError: They contradict each other.
        """
        history = self.history()
        check_same(self.path / METRICS, history, stored)
        return len(history)

    def _checkpointed(self, history: Sequence[Epoch]) -> int:
        # A run that was finished elsewhere and copied here without its checkpoints has but its metrics.
        if not has_checkpoints(self.checkpoints):
            return len(history)
        stored = read_history(self.checkpoints)
        check_same(self.path / METRICS, history, stored)
        return len(stored)

    def check_recipe(self, recipe: Recipe) -> None:
        """Refuse a folder that belongs to another run. The same recipe for more epochs is the same run.

        Args:
            recipe: The recipe that shall run here.

        Raises:
            CheckpointError: The folder holds another recipe, or something that is no run, or has a name that
                no text has.
        """
        check_name(self.path)
        present = self.recipe()
        if present is None:
            strangers = [
                path.name
                for path in (self.path.iterdir() if self.path.exists() else ())
                if path.name != LOCK and not path.name.startswith(".")
            ]
            if strangers:
                raise CheckpointError(
                    f"{self.path} holds files that are no run ({', '.join(sorted(strangers)[:3])}); "
                    "choose an empty or new folder with --out"
                )
        elif present != recipe and not _prolongs(recipe, present):
            raise CheckpointError(
                f"{self.path} holds a run of another recipe: {'; '.join(_differences(present, recipe))}; "
                "choose another folder with --out, or delete this one"
            )

    @contextmanager
    def opened(self, recipe: Recipe, versions: dict[str, Any]) -> Iterator[None]:
        """Hold the folder for this process alone, and write down what runs in it.

        Args:
            recipe: The recipe that runs.
            versions: What it runs with.

        Raises:
            CheckpointError: Another process holds it, it belongs to another run, or it cannot be written to.
        """
        self.check_recipe(recipe)
        with ExitStack() as stack:
            with needing_disk(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FolderLock(self.path / LOCK))
                # Once more: another process may have begun a run here in between.
                self.check_recipe(recipe)
                if self.recipe() is None:
                    write_atomically(self.path / RECIPE, recipe.to_toml())
                self.checkpoints.mkdir(exist_ok=True)
                discard_unfinished(self.path)
                discard_unfinished(self.checkpoints)
                self._record(versions)
            yield

    def go_on(self, recipe: Recipe) -> None:
        """Write down what the run is now, when nothing is left that could refuse to go on with it.

        Args:
            recipe: The recipe that runs, perhaps for more epochs than before.
        """
        if self.recipe() != recipe:
            write_atomically(self.path / RECIPE, recipe.to_toml())
        (self.path / DIVERGED).unlink(missing_ok=True)

    def check_unbegun(self) -> None:
        """Refuse to begin a run anew that was trained before.

        Raises:
            CheckpointError: There are measured epochs.
        """
        if epochs := len(self.history()):
            raise CheckpointError(
                f"{self.path} holds the metrics of {epochs} epochs and no checkpoint to go on from; bring "
                "its checkpoints back, or choose another folder with --out, or delete this one to begin anew"
            )

    def _record(self, versions: dict[str, Any]) -> None:
        starts = self.starts()
        if starts:
            # Runs begun before this was written down had one.
            last = {"processes": 1, **starts[-1]}
            changed = [key for key in NUMERICAL if last.get(key) != versions.get(key)]
            if changed:
                told = ", ".join(f"{key} was {last.get(key)}, is {versions.get(key)}" for key in changed)
                warnings.warn(
                    f"{self.path}: going on under other conditions ({told}): the result may differ in its "
                    "last digits from a run without interruption",
                    stacklevel=4,
                )
        path = self.path / VERSIONS
        write_atomically(path, json.dumps({"starts": [*starts, versions]}, indent=2) + "\n")


def check_name(folder: Path) -> None:
    """Refuse a name that TensorBoard and safetensors would fail on, later.

    Args:
        folder: Where something is to be trained.

    Raises:
        CheckpointError: Its name holds bytes that are no UTF-8.
    """
    if written(folder) != str(folder):
        raise CheckpointError(
            f"--out {str(folder)!r}: expected a name in UTF-8, got bytes that are none; name another folder"
        )


def _inside(folder: Path) -> list[Path]:
    try:
        return [] if folder.is_symlink() or not folder.is_dir() else list(folder.iterdir())
    except FileNotFoundError:
        # A checkpoint that was deleted in between.
        return []


def _prolongs(wanted: Recipe, present: Recipe) -> bool:
    epochs = present.training.epochs
    as_long = replace(wanted, training=replace(wanted.training, epochs=epochs))
    return wanted.training.epochs > epochs and as_long == present


def _differences(present: Recipe, wanted: Recipe) -> list[str]:
    there, here = present.sections(), wanted.sections()
    keys = sorted({(section, key) for side in (there, here) for section in side for key in side[section]})
    return [
        f"{section}.{key} is {there.get(section, {}).get(key)} there, {here.get(section, {}).get(key)} here"
        for section, key in keys
        if there.get(section, {}).get(key) != here.get(section, {}).get(key)
    ]
