"""Whole runs on digits with a model of a few numbers."""

import dataclasses
import errno
import json
import math
import os
import signal
import subprocess
import sys
import time
import types

import pytest
import safetensors.torch
import torch

import momentumrnn.tasks.classification as classification
import momentumrnn.training.loop as loop
import momentumrnn.training.run as run
from momentumrnn.data import find_dataset
from momentumrnn.errors import CheckpointError, DataMissingError, DivergedError
from momentumrnn.training import load_recipe, train
from momentumrnn.training.checkpoint import load_latest_checkpoint
from momentumrnn.training.history import best_validation_epoch, read_metrics
from momentumrnn.training.lock import FolderLock
from momentumrnn.training.progress import Silent
from momentumrnn.training.run_folder import RunFolder


class ActsAt(Silent):
    """Calls something once, after a given step of a given epoch."""

    def __init__(self, epoch, step, action):
        self.when, self.action = (epoch, step), action

    def step(self, epoch, step, loss, accuracy):
        if (epoch, step) == self.when:
            self.action()


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_READS", 0.0)


def outcome(folder):
    """Everything a run has measured and learned, but the time it took."""
    history = read_metrics(folder / "metrics.csv")
    rows = [dataclasses.replace(row, seconds=0.0) for row in history]
    latest = load_latest_checkpoint(folder / "checkpoints")
    return rows, latest, safetensors.torch.load_file(folder / "best.safetensors")


def assert_same_outcome(one, other):
    rows, latest, best = outcome(one)
    other_rows, other_latest, other_best = outcome(other)
    assert rows == other_rows
    for here, there in ((latest.weights, other_latest.weights), (best, other_best)):
        assert here.keys() == there.keys()
        for name, value in here.items():
            assert torch.equal(value, there[name]), name
    assert torch.equal(latest.state["rng"], other_latest.state["rng"])


@pytest.fixture
def undisturbed(tiny, tmp_path):
    train(tiny, tmp_path / "undisturbed")
    return tmp_path / "undisturbed"


def test_a_run_leaves_all_that_is_promised(tiny, undisturbed):
    names = {path.name for path in undisturbed.iterdir()}
    assert {"recipe.toml", "versions.json", "metrics.csv", "tensorboard", "checkpoints"} <= names
    history = read_metrics(undisturbed / "metrics.csv")
    assert [(row.epoch, row.step) for row in history] == [(1, 5), (2, 10), (3, 15)]
    assert all(math.isfinite(row.train_loss) and row.seconds > 0 for row in history)
    assert any((undisturbed / "tensorboard").iterdir())
    (start,) = json.loads((undisturbed / "versions.json").read_text())["starts"]
    assert start["torch"] == torch.__version__
    assert start["threads"] == 1
    best = best_validation_epoch(history)
    with safetensors.safe_open(undisturbed / "best.safetensors", "pt") as stored:
        assert stored.metadata() == {"epoch": str(best.epoch)}


def test_the_metrics_are_those_of_the_weights(tiny, undisturbed):
    """The last line of metrics.csv, computed once more from the last checkpoint."""
    row = read_metrics(undisturbed / "metrics.csv")[-1]
    model = loop.build_model(tiny)
    model.load_state_dict(load_latest_checkpoint(undisturbed / "checkpoints").weights)
    model.eval()
    splits = find_dataset("digits").load(None, None, 0)
    for part, loss, accuracy in (
        (splits.validation, row.validation_loss, row.validation_accuracy),
        (splits.test, row.test_loss, row.test_accuracy),
    ):
        inputs, labels = part.batch(slice(None))
        logits = model(inputs)
        assert torch.nn.functional.cross_entropy(logits, labels).item() == pytest.approx(loss, abs=1e-6)
        assert (logits.argmax(1) == labels).double().mean().item() == accuracy


def test_it_learns(tmp_path):
    recipe = load_recipe("digits-lstm").override(
        ["model.hidden_size=24", "training.epochs=6", "training.batch_size=32"]
    )
    history = train(recipe, tmp_path / "run").history
    assert history[-1].train_loss < 0.85 * history[0].train_loss
    assert history[-1].validation_accuracy > 0.25


def test_a_finished_run_is_not_run_again(tiny, undisturbed, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    monkeypatch.setattr(run, "Loop", None)
    result = train(tiny, undisturbed)
    assert result.finished
    assert result.already_finished
    assert len(result.history) == 3
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")} == before


@pytest.mark.parametrize("place", [(1, 1), (2, 3), (2, 5), (3, 5)])
def test_interrupted_and_gone_on_with_is_the_same_run(tiny, undisturbed, tmp_path, every_step, place):
    folder = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt, match=f"stopped in epoch {place[0]} after step {place[1]}"):
        train(tiny, folder, progress=ActsAt(*place, press_ctrl_c))
    assert len(read_metrics(folder / "metrics.csv")) == place[0] - 1
    # Whatever the caller drew in between must not matter.
    torch.rand(7)
    assert train(tiny, folder).finished
    assert_same_outcome(folder, undisturbed)
    assert len(json.loads((folder / "versions.json").read_text())["starts"]) == 2


class ActsAfter(Silent):
    """Calls something once, after a given epoch."""

    def __init__(self, epoch, action):
        self.when, self.action = epoch, action

    def epoch(self, row):
        if row.epoch == self.when:
            self.action()


@pytest.mark.parametrize("press", [press_ctrl_c, terminate])
def test_interrupted_when_all_is_done(tiny, undisturbed, tmp_path, press):
    """What the caller does next is not to begin."""
    folder = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        train(tiny, folder, progress=ActsAfter(3, press))
    assert train(tiny, folder).already_finished
    assert_same_outcome(folder, undisturbed)


class Killed(BaseException):
    """The process ends here."""


def killed(*_):
    raise Killed


@pytest.mark.parametrize("place", ["metrics", "events"])
def test_whoever_is_told_of_epochs_hears_of_each(tiny, tmp_path, monkeypatch, place):
    """The checkpoint of epoch 2 is written, its metrics or TensorBoard's events are not."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, heard = tmp_path / "run", []
    listener = Silent()
    listener.epoch = lambda row: heard.append(row.epoch)
    write, tell = RunFolder.write_history, loop._tell
    with monkeypatch.context() as patch:
        if place == "metrics":
            patch.setattr(
                RunFolder, "write_history", lambda *given: (killed if len(given[1]) == 2 else write)(*given)
            )
        else:
            patch.setattr(loop, "_tell", lambda *given: (killed if given[1].epoch == 2 else tell)(*given))
        with pytest.raises(Killed):
            train(tiny, folder, progress=listener)
    assert heard == [1]
    assert len(read_metrics(folder / "metrics.csv")) == (1 if place == "metrics" else 2)
    train(tiny, folder, progress=listener)
    # Metrics can be read by whoever comes again; what is in them is not told once more.
    assert heard == ([1, 2, 3] if place == "metrics" else [1, 3])
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3]


def test_interrupted_while_evaluating(tiny, undisturbed, tmp_path, every_step, monkeypatch):
    folder = tmp_path / "interrupted"
    original = loop.Loop._evaluate

    def evaluate(self, part):
        if self.epoch == 2:
            press_ctrl_c()
        return original(self, part)

    monkeypatch.setattr(loop.Loop, "_evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 2 after step 5"):
        train(tiny, folder)
    monkeypatch.setattr(loop.Loop, "_evaluate", original)
    train(tiny, folder)
    assert_same_outcome(folder, undisturbed)


def test_interrupted_twice_at_one_place(tiny, undisturbed, tmp_path, every_step):
    folder = tmp_path / "interrupted"
    for place, stop in (((2, 2), press_ctrl_c), ((2, 3), terminate)):
        with pytest.raises(KeyboardInterrupt):
            train(tiny, folder, progress=ActsAt(*place, stop))
    train(tiny, folder)
    assert_same_outcome(folder, undisturbed)


class Ticks(Silent):
    """Lets a second pass with every step, and presses Ctrl-C after one of them."""

    def __init__(self, clock, place=None):
        self.clock, self.place = clock, place

    def step(self, epoch, step, loss, accuracy):
        self.clock.now += 1.0
        if (epoch, step) == self.place:
            press_ctrl_c()


def test_what_has_been_added_up_survives_interruptions(tiny, tmp_path, every_step, monkeypatch):
    """Seconds, steps, sums and the best epoch so far; the time between does not count."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    validation = {1: 0.9, 2: 0.5, 3: 0.7}

    def evaluate(self, part):
        clock.now += 10.0
        return 1.0, validation[self.epoch]

    monkeypatch.setattr(loop.Loop, "_evaluate", evaluate)
    whole = train(tiny, tmp_path / "whole", progress=Ticks(clock)).history
    assert [(row.step, row.seconds) for row in whole] == [(5, 25.0), (10, 25.0), (15, 25.0)]
    for place in ((1, 2), (1, 4), (2, 1), (2, 5), (3, 3)):
        with pytest.raises(KeyboardInterrupt):
            train(tiny, tmp_path / "parts", progress=Ticks(clock, place))
        clock.now += 1000.0
    assert train(tiny, tmp_path / "parts", progress=Ticks(clock)).history == whole
    assert_same_outcome(tmp_path / "parts", tmp_path / "whole")
    with safetensors.safe_open(tmp_path / "parts" / "best.safetensors", "pt") as stored:
        assert stored.metadata() == {"epoch": "1"}


def test_a_damaged_last_checkpoint_costs_time_and_nothing_else(tiny, undisturbed, tmp_path, every_step):
    folder = tmp_path / "damaged"
    with pytest.raises(KeyboardInterrupt):
        train(tiny, folder, progress=ActsAt(3, 2, press_ctrl_c))
    last = max((folder / "checkpoints").iterdir())
    weights = last / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    with pytest.warns(UserWarning, match="damaged.*going on from the checkpoint before"):
        train(tiny, folder)
    assert_same_outcome(folder, undisturbed)


def test_the_handlers_are_given_back(tiny, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(tiny, tmp_path / "run")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_the_caller_s_process_is_left_as_it_was(tiny, tmp_path):
    torch.set_num_threads(2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tiny_number = torch.tensor(1e-310, dtype=torch.float64)
    assert train(tiny.override(["training.epochs=1"]), tmp_path / "run", threads=1).finished
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 2
    assert (tiny_number * 1.0).item() > 0
    with pytest.raises(DataMissingError):
        train(load_recipe("mnist-lstm-128"), tmp_path / "other", data=tmp_path / "nowhere", threads=1)
    assert torch.get_num_threads() == 2
    assert (tiny_number * 1.0).item() > 0


def test_what_a_killed_writer_left_is_taken_away(tiny, undisturbed, tmp_path):
    folder = tmp_path / "run"
    assert train(tiny.override(["training.epochs=1"]), folder).finished
    (folder / ".best.safetensors.0123.tmp").write_bytes(b"half")
    train(tiny, folder)
    assert not list(folder.rglob("*.tmp"))


def test_another_recipe_in_the_folder(tiny, undisturbed):
    with pytest.raises(CheckpointError) as caught:
        train(tiny.override(["optimizer.lr=0.5", "training.seed=7"]), undisturbed)
    assert "optimizer.lr is 0.0" in str(caught.value)
    assert "0.5 here" in str(caught.value)
    assert "training.seed is 0 there, 7 here" in str(caught.value)
    assert "model" not in str(caught.value).partition("recipe:")[2].partition(";")[0]


def test_a_finished_run_is_gone_on_with_for_more_epochs(tiny, undisturbed, tmp_path):
    folder = tmp_path / "prolonged"
    assert train(tiny.override(["training.epochs=1"]), folder).finished
    assert train(tiny, folder).finished
    assert load_recipe(folder / "recipe.toml") == tiny
    assert_same_outcome(folder, undisturbed)
    with pytest.raises(CheckpointError, match=r"training\.epochs is 3 there, 2 here"):
        train(tiny.override(["training.epochs=2"]), folder)
    with pytest.raises(CheckpointError, match=r"training\.seed is 0 there, 7 here"):
        train(tiny.override(["training.epochs=4", "training.seed=7"]), folder)


def test_a_folder_of_something_else_is_left_alone(tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("everything")
    with pytest.raises(CheckpointError, match=r"holds files that are no run \(thesis\.tex\)"):
        train(tiny, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_missing_data_is_known_before_anything_is_written(tmp_path):
    with pytest.raises(DataMissingError, match="momentumrnn data fetch mnist"):
        train(load_recipe("mnist-lstm-128"), tmp_path / "run", data=tmp_path / "nowhere")
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite(tiny, tmp_path, every_step, monkeypatch):
    folder = tmp_path / "diverged"
    original, calls = classification.classification_loss, []

    def loss(logits, labels):
        calls.append(1)
        # 5 steps and 2 evaluations an epoch: the third step of the second.
        return original(logits, labels) * (float("nan") if len(calls) >= 10 else 1.0)

    monkeypatch.setattr(classification, "classification_loss", loss)
    with pytest.raises(DivergedError, match=r"step 3 of epoch 2\. Try a smaller optimizer\.lr") as caught:
        train(tiny, folder)
    assert "kept in" in str(caught.value)
    assert len(read_metrics(folder / "metrics.csv")) == 1
    kept = load_latest_checkpoint(folder / "checkpoints")
    assert (kept.state["epoch"], kept.state["step"]) == (2, 0)
    assert all(torch.isfinite(value).all() for value in kept.weights.values())
    assert RunFolder(folder).diverged() == "the loss is not finite at step 3 of epoch 2"
    monkeypatch.undo()
    assert train(tiny, folder).finished
    assert RunFolder(folder).diverged() is None


def orthogonal(recipe, model, *changes):
    """The recipe with an orthogonal network without a rule in the place of its layer."""
    rule = ("rule.momentum=none", "rule.step_size=none") if model in ("ExpRNN", "DTRIV") else ()
    gone = (f"{key}=none" for key in ("model.init", "model.forget_bias", "optimizer.clip_norm"))
    return recipe.override([f"model.name={model}", *rule, *gone, *changes])


@pytest.mark.parametrize("model", ["ExpRNN", "DTRIV", "MomentumDTRIV"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_an_orthogonal_run_that_diverges(tiny, tmp_path, model, name):
    """The entries of its skew-symmetric matrix grow beyond 64 bits, and stay finite."""
    changes = [f"optimizer.name={name}", "optimizer.smoothing=none", "optimizer.lr_orthogonal=1e25"]
    recipe = orthogonal(tiny, model, *changes)
    with pytest.raises(DivergedError, match=r"step \d of epoch 1\. Try a smaller optimizer\.lr") as caught:
        train(recipe, tmp_path / "diverged")
    assert "a smaller optimizer.lr_orthogonal (now 1e+25)" in str(caught.value)
    assert ("rule.step_size" in str(caught.value)) == (model == "MomentumDTRIV")


def test_advice_names_what_the_run_has(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(classification, "classification_loss", lambda logits, _: logits.sum() * math.nan)
    recipe = orthogonal(tiny, "DTRIV")
    with pytest.raises(DivergedError) as caught:
        train(recipe, tmp_path / "orthogonal")
    lr = recipe.optimizer.lr
    assert (
        f"Try a smaller optimizer.lr (now {lr}), a smaller optimizer.lr_orthogonal (now {lr}) or a smaller "
        "optimizer.clip_norm (none now). The metrics"
    ) in str(caught.value)
    with pytest.raises(DivergedError) as caught:
        train(tiny, tmp_path / "lstm")
    assert "lr_orthogonal" not in str(caught.value)
    assert "or a smaller rule.step_size. The metrics" in str(caught.value)


def test_the_bad_step_is_named_where_the_loss_is_read_late(tiny, tmp_path, monkeypatch):
    original, calls = classification.classification_loss, []

    def loss(logits, labels):
        calls.append(1)
        return original(logits, labels) * (float("inf") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(classification, "classification_loss", loss)
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_READS", 1e9)
    with pytest.raises(DivergedError, match="not finite at step 2 of epoch 1"):
        train(tiny, tmp_path / "diverged")


def test_a_loss_that_explodes(tiny, tmp_path, monkeypatch):
    original, calls = classification.classification_loss, []

    def loss(logits, labels):
        calls.append(1)
        # 5 steps and 2 evaluations an epoch: the fourth step of the second, after the first one's checkpoint.
        return original(logits, labels) * (1e7 if len(calls) == 11 else 1.0)

    monkeypatch.setattr(classification, "classification_loss", loss)
    with pytest.raises(DivergedError, match="a million times what it was at first at step 4 of epoch 2"):
        train(tiny, tmp_path / "diverged")
    kept = load_latest_checkpoint(tmp_path / "diverged" / "checkpoints")
    assert (kept.state["epoch"], kept.state["step"]) == (2, 0)
    # What is gone on with knows what the loss was at first.
    calls.clear()
    calls.extend([1] * 8)
    with pytest.raises(DivergedError, match="a million times what it was at first at step 3 of epoch 2"):
        train(tiny, tmp_path / "diverged")


def test_a_loss_that_is_high_and_falls_is_left_alone(tiny, tmp_path, monkeypatch):
    original, calls = classification.classification_loss, []

    def loss(logits, labels):
        calls.append(1)
        return original(logits, labels) * (1e5 if len(calls) == 3 else 1.0)

    monkeypatch.setattr(classification, "classification_loss", loss)
    assert train(tiny, tmp_path / "run").finished


def test_weights_that_are_not_finite_are_not_saved(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Loop, "_finish_epoch", poison_then(loop.Loop._finish_epoch))
    with pytest.raises(DivergedError, match="a weight is not finite"):
        train(tiny, tmp_path / "diverged")
    assert load_latest_checkpoint(tmp_path / "diverged" / "checkpoints") is None


def poison_then(method):
    def poisoned(self, row):
        next(self.raw_model.parameters()).data.fill_(float("nan"))
        method(self, row)

    return poisoned


LONGER = [
    "model.hidden_size=4",
    "training.epochs=2",
    "training.batch_size=8",
    "training.checkpoint_seconds=0.05",
]


def start_and_wait_for_checkpoint(folder):
    words = ["train", "digits-momentum-lstm", "--out", str(folder), "--threads", "1", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "momentumrnn.cli", *words, "--set", *LONGER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not list((folder / "checkpoints").glob("[0-9]*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


@pytest.fixture(scope="module")
def undisturbed_longer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("longer") / "undisturbed"
    train(load_recipe("digits-momentum-lstm").override(LONGER), folder, threads=1)
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_another_process_stopped_at_any_moment(tmp_path, undisturbed_longer, number):
    """The second process refused while the first runs, then the first stopped and gone on with."""
    recipe = load_recipe("digits-momentum-lstm").override(LONGER)
    folder = tmp_path / "stopped"
    process = start_and_wait_for_checkpoint(folder)
    try:
        with pytest.raises(CheckpointError, match=f"in use by another process .process {process.pid}.*--out"):
            train(recipe, folder)
        process.send_signal(number)
        _, told = process.communicate(timeout=240)
    finally:
        process.kill()
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130
        assert "interrupted: stopped in epoch" in told
        assert "the same command goes on" in told
        assert "Traceback" not in told
    assert len(read_metrics(folder / "metrics.csv")) < 2
    # The lock of a process that is gone holds nobody up.
    assert train(recipe, folder).finished
    assert_same_outcome(folder, undisturbed_longer)


def test_a_lock_is_released_when_its_holder_fails(tmp_path):
    with pytest.raises(RuntimeError), FolderLock(tmp_path / "run.lock"):
        raise RuntimeError
    with FolderLock(tmp_path / "run.lock"), pytest.raises(CheckpointError, match="in use by another process"):
        FolderLock(tmp_path / "run.lock").__enter__()


def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("momentumrnn.training.lock._lock", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be locked \(No locks available\).*--out"):
        FolderLock(tmp_path / "run.lock").__enter__()


def test_other_conditions_are_said(tiny, tmp_path, every_step):
    folder = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(tiny, folder, progress=ActsAt(1, 2, press_ctrl_c))
    with pytest.warns(UserWarning, match="threads was 1, is 2"):
        train(tiny, folder, threads=2)
