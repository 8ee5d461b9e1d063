"""Runs in processes of their own: stopped, killed, and the same in the end."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from momentumrnn.cli.reproducing import work
from momentumrnn.cli.reproducing.jobs import Job
from momentumrnn.cli.reproducing.local import LocalExecutor
from momentumrnn.cli.reproducing.work import perform
from momentumrnn.training import load_recipe, train
from momentumrnn.training.checkpoint import load_latest_checkpoint
from momentumrnn.training.history import read_metrics
from momentumrnn.training.lock import FolderLock


def job(place, *changes, name="adding", recipe="adding-100-rmsprop-dtriv-128", kind="train", epochs=2):
    """About half a second of work an epoch, with a checkpoint after every step."""
    small = ["training.steps_per_epoch=40", "model.hidden_size=16", "data.length=60"]
    small = [*small, f"training.epochs={epochs}"] if recipe.startswith("adding") else []
    built = load_recipe(recipe).override([*small, "training.checkpoint_seconds=0.01", *changes])
    return Job(
        kind=kind, name=name, recipe=built, place=place, data=None, device="cpu", threads=1, smoke=True
    )


class Witness:
    """Hears everything, and acts once, when a run was begun in this call and has a checkpoint."""

    def __init__(self, place=None, act=lambda: None):
        self.place, self.act, self.acted = place, act, False
        self.said, self.outcomes, self.begun = [], {}, []

    def tell(self, name, event, values):
        # Of others that are begun beside it nothing is known of this place.
        if event == "begin" and name == "adding":
            self.begun.append((values["epoch"], values["step"]))

    def say(self, text):
        self.said.append(text)

    def ended(self, name, outcome):
        self.outcomes[name] = outcome

    def wanted(self):
        """As ``Stop``: asked several times a second."""
        if self.acted or not self.begun or not list(self.place.glob("checkpoints/0*")):
            return False
        self.acted = True
        return bool(self.act())


def assert_same_run(one, other):
    rows = [
        [(row.train_loss, row.validation_loss, row.test_loss) for row in read_metrics(folder / "metrics.csv")]
        for folder in (one, other)
    ]
    assert rows[0] == rows[1]
    here, there = (load_latest_checkpoint(folder / "checkpoints") for folder in (one, other))
    assert here.weights.keys() == there.weights.keys()
    assert all(torch.equal(value, there.weights[name]) for name, value in here.weights.items())


def kill_holder(place: Path):
    os.kill(int((place / "run.lock").read_text().split()[-1]), signal.SIGKILL)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_run_stopped_and_then_killed_ends_as_one_that_was_not(tmp_path):
    place = tmp_path / "run"
    stopping = Witness(place, lambda: True)
    outcomes = LocalExecutor(1).run([job(place), job(tmp_path / "later", name="later")], stopping, stopping)
    assert {name: outcome.state for name, outcome in outcomes.items()} == {"adding": "stopped"}
    assert not (tmp_path / "later").exists()

    killing = Witness(place, lambda: kill_holder(place))
    outcomes = LocalExecutor(1).run([job(place)], killing, killing)
    assert outcomes["adding"].state == "done"
    assert killing.said == ["adding: its process was killed by signal 9; another goes on with it"]
    assert len(killing.begun) == 2
    assert killing.begun[0] > (1, 0)

    train(job(place).recipe, tmp_path / "alone", threads=1)
    assert_same_run(place, tmp_path / "alone")


def test_on_ray_a_run_stopped_and_then_killed_ends_as_one_that_was_not(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs the extra ray", exc_type=ModuleNotFoundError)
    from momentumrnn.cli.reproducing.cluster import RayExecutor

    # A cluster that happens to run here is not to be used.
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("momentumrnn.cli.reproducing.cluster.ADDRESS", "local")
    # A cluster hears of a stop a second later.
    long = partial(job, epochs=8)
    place, other = tmp_path / "run", tmp_path / "other"
    stopping = Witness(place, lambda: True)
    outcomes = RayExecutor(1, 1).run([long(place), long(other, name="other")], stopping, stopping)
    assert {name: outcome.state for name, outcome in outcomes.items()} == {"adding": "stopped"}
    assert not other.exists()

    killing = Witness(place, lambda: kill_holder(place))
    jobs = [long(place), long(other, name="other")]
    outcomes = RayExecutor(2, None).run(jobs, killing, killing)
    assert {outcome.state for outcome in outcomes.values()} == {"done"}
    assert "adding: its process was lost; another goes on with it" in killing.said
    assert killing.begun != [(1, 0), (1, 0)]
    train(long(place).recipe, tmp_path / "alone", threads=1)
    assert_same_run(place, tmp_path / "alone")
    assert_same_run(other, tmp_path / "alone")


def test_ray_missing_is_an_error(monkeypatch):
    from momentumrnn.cli.reproducing.cluster import RayExecutor

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeError, match=r"pip install 'momentumrnn\[ray\]'"):
        RayExecutor(1, None)


@pytest.mark.parametrize(
    ("recipe", "change", "state", "told"),
    [
        ("adding-100-lstm-128", "optimizer.lr=1e38", "failed", "Try a smaller optimizer.lr"),
        ("timit-lstm-84", "model.hidden_size=4", "missing", "LDC93S1"),
    ],
)
def test_what_goes_wrong_is_an_outcome(tmp_path, monkeypatch, recipe, change, state, told):
    monkeypatch.setenv("MOMENTUMRNN_DATA", str(tmp_path))
    events = []
    outcome = perform(
        job(tmp_path / "run", change, recipe=recipe).to_message(), lambda *event: events.append(event)
    )
    assert outcome.state == state
    assert told in outcome.told


def test_an_unknown_error_names_its_kind(tmp_path):
    (tmp_path / "run").write_text("a file where a folder should be")
    outcome = perform(job(tmp_path / "run").to_message(), lambda *event: None)
    assert outcome.state == "failed"
    assert outcome.told.startswith("NotADirectoryError: ")


def test_a_job_survives_its_journey(tmp_path):
    sent = job(tmp_path / "run")
    assert Job.from_message(json.loads(json.dumps(sent.to_message()))) == sent


@pytest.mark.parametrize("asked", ["stop\n", ""])
def test_a_stop_before_a_job_is_begun_is_heeded(tmp_path, asked):
    """Whoever wanted the job asks to stop, or is gone, while the process is still starting."""
    place = tmp_path / "run"
    lines = json.dumps(job(place).to_message()) + "\n" + asked
    done = subprocess.run(
        [sys.executable, "-m", "momentumrnn.cli.reproducing.worker"],
        input=lines,
        capture_output=True,
        text=True,
        timeout=240,
    )
    ended = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(event, values["state"]) for event, values in ended if event == "ended"] == [("ended", "stopped")]
    assert not read_metrics(place / "metrics.csv")


def test_a_folder_that_is_free_only_a_little_later(tmp_path, monkeypatch):
    """A process of a call that was killed has not noticed yet."""
    place, told = tmp_path / "run", []
    place.mkdir()
    monkeypatch.setattr(work, "SECONDS_BETWEEN_TRIES", 0.01)
    monkeypatch.setattr(sys, "argv", sys.argv)
    lock = FolderLock(place / "run.lock")
    with ExitStack() as held:
        held.enter_context(lock)
        # Of this module alone: a process that is waited for sleeps, too.
        clock = SimpleNamespace(
            monotonic=time.monotonic, sleep=lambda seconds: told.append(seconds) or held.close()
        )
        monkeypatch.setattr(work, "time", clock)
        outcome = perform(job(place).to_message(), lambda *_: None)
    assert (outcome.state, told) == ("done", [0.01])
    with lock:
        monkeypatch.setattr(work, "SECONDS_FOR_ANOTHER", 0.0)
        other = job(place, "optimizer.lr=0.1").to_message()
        assert perform(other, lambda *_: None).state == "failed"


def test_a_stop_that_comes_when_all_is_done_changes_nothing(tmp_path, monkeypatch):
    def tell(event, values):
        if event == "epoch" and values["columns"]["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sys, "argv", sys.argv)
    assert perform(job(tmp_path / "run").to_message(), tell).state == "done"


def test_whatever_goes_wrong_is_the_outcome(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise KeyError("no such thing")

    monkeypatch.setattr(work, "train", broken)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", sys.argv)
        outcome = perform(job(tmp_path / "run").to_message(), lambda *_: None)
    assert (outcome.state, outcome.told) == ("failed", "KeyError: 'no such thing'")
