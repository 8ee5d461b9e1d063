"""Run folders that hold pipes, devices, sockets, or links out of them, are refused at once."""

import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from momentumrnn.errors import CheckpointError
from momentumrnn.results import find_runs
from momentumrnn.training import load_recipe, run_folder, train
from momentumrnn.training.documents import keep_documents
from momentumrnn.training.history import read_metrics
from momentumrnn.training.lock import FolderLock
from momentumrnn.training.run_folder import RunFolder

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")

RECIPE = load_recipe("digits-momentum-lstm").override(
    ["model.hidden_size=4", "training.epochs=2", "training.batch_size=512"]
)
FILES = [
    "recipe.toml",
    "metrics.csv",
    "versions.json",
    "run.lock",
    "best.safetensors",
    "checkpoints/000001/state.pt",
    "checkpoints/000002/manifest.json",
    "checkpoints/000002/model.safetensors",
    "checkpoints/000002/state.pt",
]


@pytest.fixture(autouse=True)
def at_once():
    """What waits for a pipe fails instead."""

    def late(*_):
        raise TimeoutError("it waited")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(RECIPE, folder, threads=1)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def bound_socket(path):
    # By a short name: that of a socket may have a hundred bytes, and then it is moved.
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{short}/s")
        shutil.move(f"{short}/s", path)


@pytest.mark.parametrize("make", [pipe, device, bound_socket])
@pytest.mark.parametrize("name", FILES)
def test_something_else_in_the_place_of_a_file(folder, finished, name, make):
    (folder / name).unlink()
    make(folder / name)
    with pytest.raises(CheckpointError, match=r"expected a (regular )?file"):
        train(RECIPE, folder, threads=1)
    # A report leaves it out and says why, beside another run.
    (warning,) = find_runs([folder, finished]).warnings
    assert str(folder / name) in warning


@pytest.mark.parametrize("name", [*FILES, "checkpoints", "checkpoints/000002", "tensorboard"])
def test_a_link_out_of_the_folder(folder, tmp_path, name):
    path = folder / name
    target = tmp_path / "elsewhere"
    path.rename(target)
    path.symlink_to(target)
    before = target.read_bytes() if target.is_file() else sorted(target.iterdir())
    with pytest.raises(CheckpointError, match=r"got a link out of the run folder \(to .*elsewhere\)"):
        train(RECIPE, folder, threads=1)
    assert (target.read_bytes() if target.is_file() else sorted(target.iterdir())) == before


def test_a_link_that_leads_nowhere_out_of_the_folder(folder, tmp_path):
    (folder / "diverged.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"diverged\.txt: expected a file or folder of the run itself"):
        train(RECIPE, folder, threads=1)


def test_links_within_and_to_the_folder_are_taken(folder, tmp_path):
    (folder / "latest").symlink_to("checkpoints/000002", target_is_directory=True)
    (tmp_path / "linked").symlink_to(folder, target_is_directory=True)
    assert train(RECIPE, tmp_path / "linked", threads=1).already_finished


def test_what_lies_in_other_folders_is_left_alone(folder):
    (folder / "notes").mkdir()
    os.mkfifo(folder / "notes" / "pipe")
    assert train(RECIPE, folder, threads=1).already_finished


def test_a_lock_does_not_empty_what_a_link_leads_to(tmp_path):
    (tmp_path / "thesis.tex").write_text("everything")
    (tmp_path / "run.lock").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(CheckpointError, match=r"run\.lock: expected a regular file or none, got a link"):
        FolderLock(tmp_path / "run.lock").__enter__()
    assert (tmp_path / "thesis.tex").read_text() == "everything"


def test_documents_and_metrics_alone(tmp_path):
    os.mkfifo(tmp_path / "vocabulary.txt")
    with pytest.raises(CheckpointError, match="got a named pipe"):
        keep_documents(tmp_path, {"vocabulary.txt": "a"})
    os.mkfifo(tmp_path / "metrics.csv")
    with pytest.raises(CheckpointError, match="got a named pipe"):
        read_metrics(tmp_path / "metrics.csv")


@pytest.mark.parametrize("moment", ["before it is listed", "before a file is checked"])
def test_a_checkpoint_that_is_deleted_while_the_run_is_looked_at(folder, monkeypatch, moment):
    oldest = folder / "checkpoints" / "000001"

    def deleting_first(function):
        def call(path):
            if oldest in (path, path.parent):
                shutil.rmtree(oldest, ignore_errors=True)
            return function(path)

        return call

    if moment == "before it is listed":
        monkeypatch.setattr(Path, "iterdir", deleting_first(Path.iterdir))
    else:
        monkeypatch.setattr(run_folder, "check_regular", deleting_first(run_folder.check_regular))
    assert RunFolder(folder).recipe() == RECIPE
    assert not oldest.exists()
