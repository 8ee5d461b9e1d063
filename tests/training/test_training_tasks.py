"""Whole runs of every task but classification, with models of a few numbers."""

import dataclasses
import math
import os
import shutil
import signal

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

import momentumrnn.training.loop as loop
from momentumrnn.cli import main
from momentumrnn.data.speech.folder import part_of
from momentumrnn.errors import CheckpointError, DivergedError
from momentumrnn.tasks import Sampling, speech
from momentumrnn.training import load_recipe, train
from momentumrnn.training.checkpoint import Checkpoint, load_latest_checkpoint, save_checkpoint
from momentumrnn.training.history import best_validation_epoch, read_metrics
from momentumrnn.training.progress import Silent


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Forty recordings of coloured noise, of different lengths."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "mine").mkdir()
    for seed in range(40):
        random = np.random.RandomState(seed)
        noise = np.convolve(random.uniform(-0.3, 0.3, random.randint(400, 3_000)), np.ones(4) / 4)
        soundfile.write(folder / "mine" / f"{seed}.wav", noise, 8_000)
    return folder


DRAWN = [
    "data.length=12",
    "training.batch_size=8",
    "training.eval_batch_size=512",
    "training.steps_per_epoch=4",
]
RECIPES = {
    "speech": (
        "timit-momentum-lstm-84",
        ["data.name=speech", 'data.folder="mine"', "training.batch_size=9", "optimizer.lr=0.01"],
    ),
    "copying": ("copying-100-adam-lstm-128", DRAWN),
    "adding": ("adding-100-rmsprop-lstm-128", DRAWN),
}
SMALL = ["model.hidden_size=4", "model.num_layers=2", "model.dropout=0.3", "training.epochs=3"]


def recipe_of(task, *more):
    name, changes = RECIPES[task]
    return load_recipe(name).override([*SMALL, *changes, *more])


class InterruptsAt(Silent):
    def __init__(self, epoch, step):
        self.when = (epoch, step)

    def step(self, epoch, step, loss, metric):
        if (epoch, step) == self.when:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_READS", 0.0)


def outcome(folder):
    rows = [dataclasses.replace(row, seconds=0.0) for row in read_metrics(folder / "metrics.csv")]
    weights = load_latest_checkpoint(folder / "checkpoints").weights
    return rows, weights, safetensors.torch.load_file(folder / "best.safetensors")


def assert_same_outcome(one, other):
    rows, *weights = outcome(one)
    other_rows, *other_weights = outcome(other)
    assert rows == other_rows
    for here, there in zip(weights, other_weights, strict=True):
        assert here.keys() == there.keys()
        for name, value in here.items():
            assert torch.equal(value, there[name]), name


@pytest.mark.parametrize("task", RECIPES)
@pytest.mark.parametrize("place", [(1, 1), (2, 3), (3, 4)])
def test_interrupted_and_gone_on_with_is_the_same_run(task, place, data, tmp_path, every_step):
    recipe = recipe_of(task)
    train(recipe, tmp_path / "undisturbed", data=data)
    with pytest.raises(KeyboardInterrupt, match=f"stopped in epoch {place[0]} after step {place[1]}"):
        train(recipe, tmp_path / "run", data=data, progress=InterruptsAt(*place))
    torch.rand(7)
    np.random.seed(3)
    assert train(recipe, tmp_path / "run", data=data).finished
    assert_same_outcome(tmp_path / "run", tmp_path / "undisturbed")


@pytest.mark.parametrize("task", RECIPES)
def test_the_metrics_are_those_of_the_weights(task, data, tmp_path):
    recipe = recipe_of(task)
    history = train(recipe, tmp_path / "run", data=data).history
    model = loop.build_model(recipe)
    model.load_state_dict(load_latest_checkpoint(tmp_path / "run" / "checkpoints").weights)
    model.eval()
    # In batches of another size.
    batches = recipe.task().load(data, Sampling(0, 1, 3, 1), "cpu")
    for part in ("validation", "test"):
        total = weight = 0
        for batch in batches.evaluation(part):
            outputs = model(batch.inputs)
            if task == "copying":
                logits = torch.log_softmax(outputs.double(), -1).permute(1, 0, 2)
                total += -logits.gather(-1, batch.targets.unsqueeze(-1)).mean((1, 2)).sum().item()
            else:
                errors = (outputs - batch.targets).double().square()
                total += (errors * (1 if batch.mask is None else batch.mask)).mean(-1).sum().item()
            weight += batch.weight
        for name in ("loss", "metric"):
            assert getattr(history[-1], f"{part}_{name}") == pytest.approx(total / weight, rel=1e-5)
    assert history[-1].train_loss == history[-1].train_metric


def test_columns_are_named_by_the_metric(data, tmp_path):
    def columns(task):
        train(recipe_of(task, "training.epochs=1"), tmp_path / task, data=data)
        return (tmp_path / task / "metrics.csv").read_text().splitlines()[0]

    assert columns("speech") == (
        "epoch,step,train_loss,train_mse,validation_loss,validation_mse,test_loss,test_mse,seconds"
    )
    assert columns("adding") == "epoch,step,train_loss,validation_loss,test_loss,seconds"


def test_columns_are_named_before_anything_is_measured(data, tmp_path, every_step):
    # The second time begins with a checkpoint and no metrics.
    for step in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            train(recipe_of("speech"), tmp_path / "run", data=data, progress=InterruptsAt(1, step))
    assert "train_mse" in (tmp_path / "run" / "metrics.csv").read_text()


def test_the_best_epoch_is_the_one_of_the_lowest_error(data, tmp_path):
    history = train(recipe_of("speech"), tmp_path / "run", data=data).history
    errors = [row.validation_metric for row in history]
    assert errors[-1] < errors[0]
    assert best_validation_epoch(history).epoch == errors.index(min(errors)) + 1
    with safetensors.safe_open(tmp_path / "run" / "best.safetensors", "pt") as stored:
        assert stored.metadata() == {"epoch": str(best_validation_epoch(history).epoch)}


def test_adding_is_learned(tmp_path):
    recipe = load_recipe("adding-100-lstm-128").override(
        [
            "data.length=4",
            "model.hidden_size=16",
            "training.epochs=2",
            "training.batch_size=32",
            "training.steps_per_epoch=150",
            "optimizer.lr=0.01",
            "training.eval_batch_size=1024",
        ]
    )
    history = train(recipe, tmp_path / "run").history
    assert history[-1].step == 300
    assert history[-1].test_metric < 0.03 < recipe.task().baseline().value


def test_a_loss_that_is_not_finite_names_its_step(data, tmp_path, monkeypatch):
    original, calls = speech.masked_mse, []

    def loss(*arguments):
        calls.append(1)
        return original(*arguments) * (math.nan if len(calls) == 3 else 1.0)

    monkeypatch.setattr(speech, "masked_mse", loss)
    with pytest.raises(DivergedError, match="not finite at step 3 of epoch 1"):
        train(recipe_of("speech"), tmp_path / "run", data=data)


def test_recordings_that_have_changed_are_refused(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    train(recipe_of("speech"), tmp_path / "run", data=copy)
    (tmp_path / "run" / "metrics.csv").unlink()
    one = sorted((copy / "mine").iterdir())[0]
    one.write_bytes(sorted((copy / "mine").iterdir())[-1].read_bytes())
    with pytest.raises(CheckpointError, match=r"data\.txt is not what the data give now"):
        train(recipe_of("speech"), tmp_path / "run", data=copy)


def test_recordings_that_have_changed_and_kept_their_lengths_are_refused(data, tmp_path):
    copy, written = tmp_path / "data", tmp_path / "run" / "data.txt"
    shutil.copytree(data, copy)
    train(recipe_of("speech", "training.epochs=1"), tmp_path / "run", data=copy)
    one, before = copy / "mine" / "0.wav", (copy / "mine" / "0.wav").read_bytes()
    samples, rate = soundfile.read(one)
    soundfile.write(one, -samples, rate)
    assert len(one.read_bytes()) == len(before)
    whole = written.read_text()
    with pytest.raises(CheckpointError, match=r"data\.txt is not what the data give now"):
        train(recipe_of("speech", "training.epochs=2"), tmp_path / "run", data=copy)
    assert written.read_text() == whole
    one.write_bytes(before)
    assert train(recipe_of("speech", "training.epochs=2"), tmp_path / "run", data=copy).finished


def test_a_run_of_a_version_without_checksums_of_contents_is_gone_on_with(data, tmp_path):
    written = tmp_path / "run" / "data.txt"
    train(recipe_of("speech", "training.epochs=1"), tmp_path / "run", data=data)
    whole = written.read_text()
    names = [line.split()[0] for line in whole.splitlines()]
    assert names[:3] == ["train", "validation", "test"]
    old = "".join(whole.splitlines(keepends=True)[:3])
    written.write_text(old)
    assert train(recipe_of("speech", "training.epochs=2"), tmp_path / "run", data=data).finished
    # From now on they are known.
    assert written.read_text() == whole
    written.write_text(old.replace("test ", "test 0"))
    with pytest.raises(CheckpointError, match=r"data\.txt is not what the data give now"):
        train(recipe_of("speech", "training.epochs=3"), tmp_path / "run", data=data)


def test_changed_recordings_behind_a_subset_do_not_matter(data, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    train(recipe_of("speech", "training.epochs=1", "data.subset=3"), tmp_path / "run", data=copy)
    last = max(path for path in (copy / "mine").iterdir() if part_of(path.name) == "train")
    samples, rate = soundfile.read(last)
    soundfile.write(last, -samples, rate)
    again = recipe_of("speech", "training.epochs=2", "data.subset=3")
    assert train(again, tmp_path / "run", data=copy).finished


def test_checkpoints_of_an_earlier_version_are_refused(tmp_path):
    recipe = recipe_of("adding")
    train(recipe, tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").unlink()
    save_checkpoint(tmp_path / "run" / "checkpoints", Checkpoint({}, {"epoch": 1, "step": 0}))
    with pytest.raises(CheckpointError, match="those of an earlier version"):
        train(recipe, tmp_path / "run")


ORTHOGONAL = """
[data]
name = "adding"
length = 12

[model]
name = "MomentumDTRIV"
hidden_size = 4
rebase_every = 3

[rule]
momentum = 0.3
step_size = 0.3

[optimizer]
name = "adam"
lr = 0.01
orthogonal = "rmsprop"
lr_orthogonal = 0.002

[training]
epochs = 3
batch_size = 8
steps_per_epoch = 4
"""


def test_two_optimizers_are_gone_on_with(tmp_path, every_step):
    (tmp_path / "mine.toml").write_text(ORTHOGONAL)
    recipe = load_recipe(tmp_path / "mine.toml")
    train(recipe, tmp_path / "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", progress=InterruptsAt(2, 2))
    assert train(recipe, tmp_path / "run").finished
    assert_same_outcome(tmp_path / "run", tmp_path / "undisturbed")
    weights = load_latest_checkpoint(tmp_path / "run" / "checkpoints").weights
    assert weights["layer.orthogonal_l0.steps"] == 12
    assert weights["layer.orthogonal_l0.changes"] == 4


@pytest.mark.parametrize("clip", [1e-3, 1e9])
def test_gradients_of_all_optimizers_are_clipped_together(tmp_path, monkeypatch, clip):
    norms = []

    def step(self, *arguments, **options):
        # The first of the two to step sees the gradients of both.
        if not norms or len(norms[-1]) == 2:
            norms.append([])
        norms[-1].append([p.grad.norm() for group in self.param_groups for p in group["params"]])

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    monkeypatch.setattr(torch.optim.RMSprop, "step", step)
    (tmp_path / "mine.toml").write_text(ORTHOGONAL)
    changes = [f"optimizer.clip_norm={clip}", "training.epochs=1"]
    train(load_recipe(tmp_path / "mine.toml").override(changes), tmp_path / "run")
    assert len(norms) == 4
    for one, other in norms:
        assert one
        assert other
        total = torch.stack([*one, *other]).norm().item()
        assert total == pytest.approx(clip, rel=1e-2) if clip < 1 else total > 0.01


@pytest.mark.parametrize("task", RECIPES)
def test_on_the_command_line(task, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, _ = RECIPES[task]
    changes = [*RECIPES[task][1], *SMALL, "training.epochs=1"]
    assert main(["train", recipe, "--set", *changes, "--data-folder", str(data), "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    (row,) = read_metrics(tmp_path / "runs" / recipe / "metrics.csv")
    assert f"test {row.metric.name} {row.test_metric:.4f} at the best validation epoch, 1" in shown
    assert "as the paper reports" not in shown
    assert "%" not in shown
    if task == "adding":
        run = load_recipe(recipe).override(changes)
        cost = run.task().baseline("training", run.sampling(), 1).value
        assert abs(cost - 1 / 6) > 1e-3
        last = f"training loss of the last epoch {row.train_loss:.4f}"
        assert f"{last}; always saying 1 costs {cost:.4f}" in shown
