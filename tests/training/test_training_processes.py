"""Runs divided among two processes of this machine, beside the same runs in one."""

import dataclasses
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import momentumrnn.training.loop as loop
import momentumrnn.training.run as run
from momentumrnn.errors import BackendError, DataError
from momentumrnn.tasks.adding import Adding
from momentumrnn.training import Recipe, load_recipe, train
from momentumrnn.training.checkpoint import load_latest_checkpoint
from momentumrnn.training.history import read_metrics
from momentumrnn.training.launch import check_launch
from momentumrnn.training.progress import Silent

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)

SMALL = ["model.hidden_size=6", "training.epochs=2"]
# Batches that two do not divide, and one at the end that is smaller than the others.
DRAWN = [*SMALL, "data.length=9", "training.batch_size=7", "training.steps_per_epoch=6"]
RECIPES = {
    "digits": ("digits-momentum-lstm", [*SMALL, "training.batch_size=153"]),
    "adding": ("adding-100-momentum-lstm-128", DRAWN),
    "copying": ("copying-100-sr-lstm-128", DRAWN),
    "speech": (
        "timit-momentum-lstm-84",
        [*SMALL, "data.name=speech", 'data.folder="mine"', "training.batch_size=5", "optimizer.lr=0.01"],
    ),
    "dtriv": (
        "adding-100-adam-dtriv-128",
        [*DRAWN, "model.rebase_every=3", "optimizer.name=adam", "optimizer.orthogonal=rmsprop"],
    ),
    "language": (
        "ptb-small-momentum-lstm-200",
        [
            "data.name=text",
            'data.folder="words"',
            "data.vocabulary=11",
            "model.hidden_size=6",
            "model.dropout=0",
            "model.weight_dropout=0",
            "rule.momentum=0.5",
            "language.embedding_size=5",
            "language.embedding_dropout=0",
            "language.output_dropout=0",
            "language.activation_penalty=2",
            "language.slowness_penalty=1",
            "language.sequence_length=7",
            "optimizer.lr=1",
            # Columns that two do not divide, and a single one where metrics are measured.
            "training.batch_size=3",
            "training.eval_batch_size=1",
            "training.epochs=2",
        ],
    ),
    "dropout": ("adding-100-momentum-lstm-128", [*DRAWN, "model.num_layers=2", "model.dropout=0.5"]),
}
GONE_ON = ["adding", "language"]
ALIKE = [name for name in RECIPES if name != "dropout"]


def recipe_of(name) -> Recipe:
    recipe, changes = RECIPES[name]
    return load_recipe(recipe).override(changes)


class InterruptsAt(Silent):
    def __init__(self, epoch, step):
        self.when = (epoch, step)

    def step(self, epoch, step, loss, metric):
        if (epoch, step) == self.when:
            os.kill(os.getpid(), signal.SIGINT)


def interrupted_in(kind, folder, name, epoch, step):
    """Interrupt this process alone, whether it is told how the run goes or not."""
    original = loop.Loop._report_step

    def report(self):
        original(self)
        if (self.epoch, self.step) == (epoch, step):
            os.kill(os.getpid(), signal.SIGINT)

    loop.Loop._report_step = report
    try:
        return error_of(kind, folder, name)
    finally:
        loop.Loop._report_step = original


def error_of(kind, folder, name):
    try:
        train(recipe_of(name), folder / kind, data=folder, devices=2, threads=1)
    except (Exception, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def work(rank, folder, port):
    """One of two processes, started as torchrun starts them: all that both do, in one go."""
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "1",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    torch.set_num_threads(1)
    loop.SECONDS_BETWEEN_READS = 0.0
    kept = {}

    class Watched(loop.Loop):
        def run_all_epochs(self):
            super().run_all_epochs()
            kept[self.run.path.name] = self.raw_model.state_dict()

    run.Loop = Watched
    told = {name: error_of(name, folder, name) for name in RECIPES}
    told["again"] = error_of("adding", folder, "adding")
    told["other recipe"] = error_of("adding", folder, "dtriv")
    for name in GONE_ON:
        told[f"from one {name}"] = error_of(f"one-then-two-{name}", folder, name)

    # The second process alone is interrupted, in an epoch's last step and inside one.
    for step in (6, 3):
        name = f"stopped-at-{step}"
        told[name] = (
            interrupted_in(name, folder, "dropout", 1, step)
            if rank == 1
            else error_of(name, folder, "dropout")
        )
    if rank == 0:
        shutil.copytree(folder / "stopped-at-3", folder / "two-then-one-dropout")
    told["gone on"] = [error_of(f"stopped-at-{step}", folder, "dropout") for step in (6, 3)]
    for name in GONE_ON:
        kind = f"two-then-one-{name}"
        told[kind] = interrupted_in(kind, folder, name, 2, 2) if rank == 1 else error_of(kind, folder, name)

    score, calls = Adding.score, []

    def bad_once(self, outputs, batch):
        calls.append(1)
        found = score(self, outputs, batch)
        return found._replace(loss=found.loss * (float("nan") if rank == 1 and len(calls) == 4 else 1.0))

    Adding.score = bad_once
    told["diverged"] = error_of("diverged", folder, "adding")
    Adding.score = score

    load = Adding.load

    def fails(self, *arguments):
        if rank == 1:
            raise DataError("no numbers left")
        return load(self, *arguments)

    Adding.load = fails
    told["data"] = error_of("data", folder, "adding")
    Adding.load = load

    def no_room(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    save = loop.save_checkpoint
    loop.save_checkpoint = no_room
    told["disk"] = error_of("disk", folder, "adding")
    loop.save_checkpoint = save
    torch.save({"told": told, "kept": kept}, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    (folder / "mine").mkdir()
    for seed in range(40):
        random = np.random.RandomState(seed)
        soundfile.write(folder / "mine" / f"{seed}.wav", random.uniform(-0.3, 0.3, 400 + 50 * seed), 8_000)
    (folder / "words").mkdir()
    for seed, part in enumerate(("train", "valid", "test")):
        words = np.random.RandomState(seed).randint(10, size=200)
        (folder / "words" / f"{part}.txt").write_text(" ".join(f"w{word}" for word in [*range(10), *words]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(loop, "SECONDS_BETWEEN_READS", 0.0)
        for name in ALIKE:
            train(recipe_of(name), folder / "alone" / name, data=folder, threads=1)
        for name in GONE_ON:
            stopped, listener = folder / f"one-then-two-{name}", InterruptsAt(1, 4)
            with pytest.raises(KeyboardInterrupt):
                train(recipe_of(name), stopped, data=folder, progress=listener, threads=1)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        mp.spawn(work, (folder, port), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def rows_of(folder):
    return [dataclasses.replace(row, seconds=0.0) for row in read_metrics(folder / "metrics.csv")]


def assert_close(one, other):
    ours, theirs = read_metrics(one / "metrics.csv"), read_metrics(other / "metrics.csv")
    assert len(ours) == len(theirs) == 2
    for row, there in zip(ours, theirs, strict=True):
        assert row.columns().keys() == there.columns().keys()
        for name, value in row.columns().items():
            if name != "seconds":
                assert value == pytest.approx(there.columns()[name], rel=1e-5), name
    latest, expected = (load_latest_checkpoint(path / "checkpoints").weights for path in (one, other))
    for name, value in latest.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_give_what_one_gives(folder, ranks, name):
    assert [rank["told"][name] for rank in ranks] == ["none", "none"]
    assert_close(folder / name, folder / "alone" / name)


@pytest.mark.parametrize("name", [*RECIPES, *(f"one-then-two-{name}" for name in GONE_ON)])
def test_both_hold_the_same_weights(folder, ranks, name):
    written = load_latest_checkpoint(folder / name / "checkpoints").weights
    for key, value in written.items():
        assert torch.equal(ranks[0]["kept"][name][key], value), key
        assert torch.equal(ranks[1]["kept"][name][key], value), key
    if name == "dtriv":
        assert written["layer.orthogonal_l0.changes"] == 4


@pytest.mark.parametrize("name", GONE_ON)
def test_another_number_of_processes_goes_on(folder, ranks, name):
    assert ranks[0]["told"][f"from one {name}"] == "none"
    assert_close(folder / f"one-then-two-{name}", folder / "alone" / name)
    assert "stopped in epoch 2 after step 2" in ranks[0]["told"][f"two-then-one-{name}"]
    with pytest.warns(UserWarning, match="processes was 2, is 1"):
        train(recipe_of(name), folder / f"two-then-one-{name}", data=folder, threads=1)
    assert_close(folder / f"two-then-one-{name}", folder / "alone" / name)


def test_another_number_of_processes_draws_masks_to_the_end(folder, ranks):
    assert "stopped in epoch 1 after step 3" in ranks[0]["told"]["stopped-at-3"]
    with pytest.warns(UserWarning, match="processes was 2, is 1"):
        assert train(recipe_of("dropout"), folder / "two-then-one-dropout", threads=1).finished


def test_an_interrupt_of_one_stops_both_and_changes_nothing(folder, ranks):
    for rank in ranks:
        assert rank["told"]["gone on"] == ["none", "none"]
    expected = load_latest_checkpoint(folder / "dropout" / "checkpoints")
    rows = rows_of(folder / "dropout")
    for step in (6, 3):
        name = f"stopped-at-{step}"
        for rank in ranks:
            assert f"KeyboardInterrupt: stopped in epoch 1 after step {step}" in rank["told"][name]
        found = load_latest_checkpoint(folder / name / "checkpoints")
        for key, value in expected.weights.items():
            assert torch.equal(found.weights[key], value), key
        assert [
            dataclasses.replace(row, seconds=0.0) for row in read_metrics(folder / name / "metrics.csv")
        ] == rows
        assert torch.equal(found.state["others"][0]["rng"], expected.state["others"][0]["rng"])
    # Each draws masks of its own.
    assert not torch.equal(expected.state["others"][0]["rng"], expected.state["rng"])


@pytest.mark.parametrize(
    ("what", "first", "second"),
    [
        ("again", "none", "none"),
        (
            "other recipe",
            "CheckpointError: .* another recipe",
            "CheckpointError: process 0: .* another recipe",
        ),
        (
            "diverged",
            "DivergedError: .*not finite at step 4 of epoch 1",
            "DivergedError: .*at step 4 of epoch 1",
        ),
        ("data", "DataError: process 1: no numbers left", "DataError: no numbers left"),
        ("disk", "CheckpointError: .*No space left", "CheckpointError: process 0: .*No space left"),
    ],
)
def test_both_end_alike(ranks, what, first, second):
    assert re.match(first, ranks[0]["told"][what])
    assert re.match(second, ranks[1]["told"][what])


def test_on_the_command_line(tmp_path):
    """The first process starts the second, and a signal to the first ends both."""
    folder = tmp_path / "run"
    words = ["train", "digits-momentum-lstm", "--threads", "1", "--device", "cpu", "--devices", "2"]
    words += ["--out", str(folder), "--set", "model.hidden_size=4", "training.batch_size=8"]
    words += ["training.epochs=1", "training.checkpoint_seconds=0.05"]
    process = subprocess.Popen(
        [sys.executable, "-m", "momentumrnn.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 240
        while not list((folder / "checkpoints").glob("[0-9]*")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        # Both hold the pipes: that they are closed says that both have ended.
        _, told = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert told.count("interrupted: stopped in epoch 1") == 1
    assert "Traceback" not in told
    assert len(load_latest_checkpoint(folder / "checkpoints").state["others"]) == 1


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"devices": 0}, "--devices: expected 1 or more, got 0"),
        ({"nodes": 0}, "--nodes: expected 1 or more, got 0"),
        ({"strategy": "dpp"}, "there is no 'dpp' here: did you mean 'ddp'"),
        ({"strategy": "fsdp"}, "there is no 'fsdp'"),
        ({"nodes": 2}, "start this command on every one of them, with torchrun or srun"),
        ({"nodes": 2, "strategy": "ddp_spawn"}, "on one machine by itself; use ddp"),
        ({"device": "cuda", "devices": 99}, "more than there are"),
        ({"devices": 1_000_000}, r"expected at most \d+ processes on \d+ CPU cores"),
    ],
)
def test_what_cannot_be_started(tmp_path, asked, expected):
    wanted = {"device": "cpu", "devices": 1, "nodes": 1, "strategy": "auto"} | asked
    with pytest.raises(BackendError, match=expected):
        check_launch(**wanted)
    if wanted["device"] == "cpu":
        with pytest.raises(BackendError, match=expected):
            train(recipe_of("adding"), tmp_path / "run", **wanted)
        assert not (tmp_path / "run").exists()


def test_other_processes_than_were_asked_for(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "1",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "0",
        "RANK": "0",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BackendError, match=r"torchrun started other processes than these.*world size \(4\)"):
        check_launch("cpu", 1, 1, "auto")
    check_launch("cpu", 2, 2, "auto")


@pytest.mark.parametrize(("tasks", "fits"), [("2", True), ("3", False)])
def test_tasks_of_slurm(monkeypatch, tasks, fits):
    values = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": tasks, "SLURM_NNODES": "2", "SLURM_JOB_NAME": "x"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    if fits:
        check_launch("cpu", 2, 2, "auto")
    else:
        with pytest.raises(BackendError, match=r"srun started other processes than these.*ntasks-per-node=3"):
            check_launch("cpu", 2, 2, "auto")
    # One process inside such a job stays possible.
    check_launch("cpu", 1, 1, "auto")
