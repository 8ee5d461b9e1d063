"""A disk that is full at any write: an error that says so, nothing lost, the same run once room is made."""

import dataclasses
import errno
import os
from pathlib import Path

import pytest
import torch

from momentumrnn.errors import CheckpointError
from momentumrnn.tasks import drawn
from momentumrnn.training import load_recipe, train, versions
from momentumrnn.training.checkpoint import load_latest_checkpoint
from momentumrnn.training.history import read_metrics

RECIPE = load_recipe("adding-100-momentum-lstm-128").override(
    [
        "data.length=4",
        "model.hidden_size=2",
        "training.epochs=2",
        "training.batch_size=2",
        "training.steps_per_epoch=1",
        "training.eval_batch_size=1024",
    ]
)
# All that a run writes with, TensorBoard's events aside.
WRITES = [
    (os, "fsync"),
    (os, "write"),
    (Path, "mkdir"),
    (Path, "write_bytes"),
    (Path, "write_text"),
    (Path, "rename"),
    (Path, "replace"),
]


class Disk:
    """Fails at one of the writes."""

    def __init__(self, patch, fails_at):
        self.calls, self.fails_at = 0, fails_at
        for owner, name in WRITES:
            patch.setattr(owner, name, self.failing(getattr(owner, name)))

    def failing(self, write):
        def call(*arguments, **more):
            self.calls += 1
            if self.calls != self.fails_at:
                return write(*arguments, **more)
            if write.__name__ in ("write_bytes", "write_text"):
                # As much as there was room for.
                write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        return call


def outcome(folder):
    rows = [dataclasses.replace(row, seconds=0.0) for row in read_metrics(folder / "metrics.csv")]
    return rows, load_latest_checkpoint(folder / "checkpoints")


def test_full_at_every_write_in_turn(tmp_path, monkeypatch):
    # What takes longer than all the rest, and is of no use here.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(versions, "_commit", lambda: None)
    monkeypatch.setattr(drawn, "EVALUATION_SIZE", 4)
    with monkeypatch.context() as patch:
        disk = Disk(patch, fails_at=0)
        train(RECIPE, tmp_path / "undisturbed")
    rows, expected = outcome(tmp_path / "undisturbed")
    # A lock, a recipe, versions; two epochs, each with its checkpoint, metrics and the best weights.
    assert disk.calls > 30
    for number in range(1, disk.calls + 1):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patch:
            Disk(patch, fails_at=number)
            with pytest.raises(
                CheckpointError, match=r"could not be written .*No space left.*the same command"
            ):
                train(RECIPE, folder)
        before = outcome(folder) if (folder / "checkpoints").exists() else ([], None)
        assert before[0] == rows[: len(before[0])]
        assert train(RECIPE, folder).finished
        again, latest = outcome(folder)
        assert again == rows
        for name, value in expected.weights.items():
            assert torch.equal(latest.weights[name], value), (number, name)
        leftovers = [path for path in folder.rglob("*") if ".tmp" in path.name]
        assert not leftovers
    # What failed was the write that was meant, to the end.
    assert len(before[0]) == 2 or before[1].state["epoch"] >= 2


def test_full_for_tensorboard(tmp_path, monkeypatch):
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("threading.excepthook", lambda told: None)
    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "write", full)
        with pytest.raises(CheckpointError, match=r"could not be written .*No space left"):
            train(RECIPE, tmp_path / "run")
    assert train(RECIPE, tmp_path / "run").finished


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"could not be written .*Not a directory"):
        train(RECIPE, tmp_path / "file" / "run")
