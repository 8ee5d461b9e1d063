"""Whole runs on text, with models of a few numbers: carried state, and the switch to averaged weights."""

import dataclasses
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch

import momentumrnn.training.loop as loop
from momentumrnn.cli import main
from momentumrnn.errors import CheckpointError
from momentumrnn.results import read_runs, summarise, summary_table, to_markdown
from momentumrnn.tasks import Sampling
from momentumrnn.tasks.contract import PERPLEXITY
from momentumrnn.training import Epoch, load_recipe, train
from momentumrnn.training.averaging import Averaging, has_stalled
from momentumrnn.training.checkpoint import load_latest_checkpoint
from momentumrnn.training.history import best_validation_epoch, read_metrics
from momentumrnn.training.optimizers import scaled_lr
from momentumrnn.training.progress import Silent

VOCABULARY = 12
SMALL = [
    "data.name=text",
    "data.folder=mine",
    f"data.vocabulary={VOCABULARY}",
    "model.hidden_size=6",
    "model.dropout=0.2",
    "language.embedding_size=5",
    "language.word_dropout=0.1",
    "language.activation_penalty=2",
    "language.slowness_penalty=1",
    "language.sequence_length=20",
    "training.batch_size=4",
    "training.eval_batch_size=3",
    "training.epochs=5",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sentences of a few words, each following from the one before it or from chance."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "mine").mkdir()
    random = np.random.RandomState(0)
    for part, size in (("train", 420), ("valid", 130), ("test", 131)):
        words, word = [], 0
        for _ in range(size):
            word = (3 * word + 1) % 10 if random.random_sample() < 0.7 else random.randint(10)
            words.append(f"w{word}" + ("\n" if random.random_sample() < 0.1 else ""))
        (folder / "mine" / f"{part}.txt").write_text(" ".join(words) + " w0 w1 w2 w3 w4 w5 w6 w7 w8 w9\n")
    return folder


def recipe_of(*more):
    return load_recipe("ptb-small-momentum-lstm-200").override([*SMALL, *more])


def sr_recipe():
    sections = recipe_of().sections()
    del sections["rule"]
    sections["model"]["name"] = "SRLSTM"
    sections["rule"] = {"step_size": 0.6, "restart": 3}
    return loop.Recipe.from_sections(sections)


class InterruptsAt(Silent):
    def __init__(self, epoch, step):
        self.when = (epoch, step)

    def step(self, epoch, step, loss, metric):
        if (epoch, step) == self.when:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_READS", 0.0)


def latest(folder):
    return load_latest_checkpoint(folder / "checkpoints")


def assert_same_outcome(one, other):
    rows, other_rows = (
        [dataclasses.replace(row, seconds=0.0) for row in read_metrics(folder / "metrics.csv")]
        for folder in (one, other)
    )
    assert rows == other_rows
    here, there = latest(one), latest(other)
    best, other_best = (safetensors.torch.load_file(folder / "best.safetensors") for folder in (one, other))
    for left, right in (
        (here.weights, there.weights),
        (best, other_best),
        (here.state["average"], there.state["average"]),
        (dict(enumerate(here.state["carried"])), dict(enumerate(there.state["carried"]))),
    ):
        assert left.keys() == right.keys()
        for name, value in left.items():
            assert torch.equal(value, right[name]), name
    assert torch.equal(here.state["rng"], there.state["rng"])


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("language") / "undisturbed"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(sr_recipe(), folder, data=data)
    torch.set_num_threads(threads)
    return folder


def epoch_of_switch(history, patience=1):
    return next(n for n in range(1, len(history) + 1) if has_stalled(history[:n], patience))


def test_the_switch_comes_within_the_run(undisturbed):
    history = read_metrics(undisturbed / "metrics.csv")
    switch = epoch_of_switch(history)
    assert 2 < switch < 5
    steps = sum(row.step for row in history[-1:]) - history[switch - 1].step
    assert latest(undisturbed).state["average"]["n_averaged"] == steps


@pytest.mark.parametrize("place", [(1, 1), (3, 2), "switch", "averaging", "last"])
def test_interrupted_and_gone_on_with_is_the_same_run(place, data, tmp_path, every_step, undisturbed):
    history = read_metrics(undisturbed / "metrics.csv")
    switch = epoch_of_switch(history)
    steps = [row.step - before for row, before in zip(history, [0, *(r.step for r in history)], strict=False)]
    # The last step before the weights are averaged, and a step in the midst of averaging.
    place = {"switch": (switch, steps[switch - 1]), "averaging": (switch + 1, 3), "last": (5, steps[4])}.get(
        place, place
    )
    with pytest.raises(KeyboardInterrupt, match=f"stopped in epoch {place[0]} after step {place[1]}"):
        train(sr_recipe(), tmp_path / "run", data=data, progress=InterruptsAt(*place))
    assert len(latest(tmp_path / "run").state["carried"]) == 8
    torch.rand(7)
    np.random.seed(3)
    assert train(sr_recipe(), tmp_path / "run", data=data).finished
    assert_same_outcome(tmp_path / "run", undisturbed)


LONGER = 9


def test_killed_while_weights_are_averaged(data, tmp_path):
    recipe = dataclasses.replace(
        sr_recipe(),
        training=dataclasses.replace(sr_recipe().training, epochs=LONGER, checkpoint_seconds=0.2),
    )
    history = train(recipe, tmp_path / "undisturbed", data=data, threads=1).history
    (tmp_path / "mine.toml").write_text(recipe.to_toml())
    folder = tmp_path / "killed"
    words = ["train", str(tmp_path / "mine.toml"), "--out", str(folder), "--data-folder", str(data)]
    process = subprocess.Popen(
        [sys.executable, "-m", "momentumrnn.cli", *words, "--threads", "1", "--device", "cpu"],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 240
        while len(read_metrics(folder / "metrics.csv")) <= epoch_of_switch(history):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    finally:
        process.kill()
    assert len(read_metrics(folder / "metrics.csv")) < LONGER
    assert train(recipe, folder, data=data, threads=1).finished
    assert_same_outcome(folder, tmp_path / "undisturbed")


def perplexity_of(weights, recipe, data, part):
    """A word at a time, in double precision."""
    model = loop.build_model(recipe).double()
    model.load_state_dict(weights)
    model.eval()
    total, count, state = 0.0, 0, None
    for batch in recipe.task().load(data, Sampling(0, 1, 3), "cpu").evaluation(part):
        for inputs, targets in zip(batch.inputs.split(1), batch.targets.split(1), strict=True):
            (outputs, _, _), state = model(inputs, state)
            for logits, target in zip(outputs[0], targets[0].tolist(), strict=True):
                if target >= 0:
                    total -= torch.log_softmax(logits, -1)[target].item()
                    count += 1
    return math.exp(total / count), count


def test_the_metrics_are_those_of_the_averaged_weights(data, undisturbed):
    last = read_metrics(undisturbed / "metrics.csv")[-1]
    checkpoint = latest(undisturbed)
    average = {
        name.removeprefix("module."): value
        for name, value in checkpoint.state["average"].items()
        if name != "n_averaged"
    }
    for part, count in (("validation", 130), ("test", 131)):
        found, counted = perplexity_of(average, sr_recipe(), data, part)
        # Every word, and the ends of its lines.
        assert counted > count
        assert getattr(last, f"{part}_metric") == pytest.approx(found, rel=1e-5)
        assert found != pytest.approx(perplexity_of(checkpoint.weights, sr_recipe(), data, part)[0], rel=1e-4)


def test_perplexity_is_the_exponential_of_the_loss(undisturbed):
    for row in read_metrics(undisturbed / "metrics.csv"):
        for part in ("train", "validation", "test"):
            loss, perplexity = getattr(row, f"{part}_loss"), getattr(row, f"{part}_metric")
            assert perplexity == pytest.approx(math.exp(loss), rel=1e-12)
    assert "train_perplexity" in (undisturbed / "metrics.csv").read_text()


def test_the_best_weights_are_kept_averaged_where_that_is_best(data, undisturbed):
    best = best_validation_epoch(read_metrics(undisturbed / "metrics.csv"))
    assert best.epoch == 5
    weights = safetensors.torch.load_file(undisturbed / "best.safetensors")
    average = latest(undisturbed).state["average"]
    for name, value in weights.items():
        assert torch.equal(value, average[f"module.{name}"])
    found, _ = perplexity_of(weights, sr_recipe(), data, "validation")
    assert found == pytest.approx(best.validation_metric, rel=1e-5)


def test_the_average_is_the_mean_over_all_steps(data, tmp_path, monkeypatch):
    seen = []
    original = Averaging.count

    def count(self, model):
        original(self, model)
        if self.average is not None:
            seen.append({name: value.double().clone() for name, value in model.state_dict().items()})

    monkeypatch.setattr(Averaging, "count", count)
    train(sr_recipe(), tmp_path / "run", data=data)
    average = latest(tmp_path / "run").state["average"]
    assert average["n_averaged"] == len(seen) > 10
    for name in seen[0]:
        mean = torch.stack([weights[name] for weights in seen]).mean(0)
        torch.testing.assert_close(average[f"module.{name}"].double(), mean, rtol=1e-4, atol=1e-5)


def test_the_penalties_are_learned_from_and_not_reported(data, tmp_path):
    def first_epoch(name, *changes):
        recipe = recipe_of("training.epochs=1", "model.dropout=0", "model.weight_dropout=0", *changes)
        return train(recipe, tmp_path / name, data=data).history[0]

    heavy = first_epoch("heavy", "language.activation_penalty=1000", "optimizer.lr=0.1")
    without = first_epoch("none", "language.activation_penalty=0", "optimizer.lr=0.1")
    # Counted in, a penalty of this weight would be far more than the loss.
    assert heavy.train_loss == pytest.approx(without.train_loss, rel=0.1)
    assert heavy.train_loss != without.train_loss


def test_the_learning_rate_follows_the_length(data, tmp_path, monkeypatch):
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    recipe = recipe_of("training.epochs=1")
    train(recipe, tmp_path / "run", data=data)
    batches = recipe.task().load(data, recipe.sampling(), "cpu")
    lengths = [len(batch.inputs) for batch in batches.training(1, 0)]
    assert len(set(lengths)) > 2
    assert seen == [[20.0 * (length / 20)] for length in lengths]
    (stored,) = latest(tmp_path / "run").state["optimizers"]
    assert stored["param_groups"][0]["lr"] == 20.0


def test_learning_rates_are_put_back_to_the_last_bit():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    with scaled_lr([optimizer], 1 / 3):
        assert optimizer.param_groups[0]["lr"] == 0.3 * (1 / 3)
    assert optimizer.param_groups[0]["lr"] == 0.3


@pytest.mark.parametrize(
    ("perplexities", "patience", "stalled"),
    [
        ([], 1, False),
        ([9, 8], 1, False),
        ([9, 8, 10], 1, True),
        ([9, 8, 9], 1, False),
        ([9, 5, 6, 6, 6, 6, 6], 5, False),
        ([5, 9, 6, 6, 6, 6, 6], 5, True),
        ([9, 5, 6, 6, 6, 6, 6, 6], 5, True),
        ([9, 5, 6, 6, 6, 6, 6, 5], 5, False),
        ([9, None, 10], 1, False),
    ],
)
def test_when_validation_has_stalled(perplexities, patience, stalled):
    history = [Epoch(0, 0, 0, 0, value, value, 0, 0, 0, PERPLEXITY) for value in perplexities]
    assert has_stalled(history, patience) == stalled


def test_what_is_refused_leaves_the_folder_as_it_was(data, tmp_path):
    folder, run = tmp_path / "data" / "mine", tmp_path / "run"
    shutil.copytree(data / "mine", folder)
    train(recipe_of("training.epochs=1"), run, data=tmp_path / "data")
    (run / "diverged.txt").write_text("in step 3 of epoch 1\n")
    recipe, text = (run / "recipe.toml").read_text(), (folder / "valid.txt").read_text()
    longer = recipe_of("training.epochs=2")
    (folder / "valid.txt").write_text(text + "w1 w2\n")
    with pytest.raises(CheckpointError, match="not what the data give now"):
        train(longer, run, data=tmp_path / "data")
    (folder / "valid.txt").write_text(text)
    for path in (run / "checkpoints").rglob("state.pt"):
        path.write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        train(longer, run, data=tmp_path / "data")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match="metrics of 1 epochs and no checkpoint to go on from"):
        train(longer, run, data=tmp_path / "data")
    assert (run / "recipe.toml").read_text() == recipe
    assert (run / "diverged.txt").exists()
    assert train(recipe_of("training.epochs=1"), run, data=tmp_path / "data").already_finished


def test_a_text_that_has_changed_is_refused(data, tmp_path):
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    for path in (data / "mine").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    train(recipe_of("training.epochs=1"), tmp_path / "run", data=tmp_path / "data")
    (tmp_path / "run" / "metrics.csv").unlink()
    text = (folder / "train.txt").read_text()
    (folder / "train.txt").write_text(text.replace("w3", "w33"))
    with pytest.raises(CheckpointError, match=r"vocabulary\.txt is not what the data give now"):
        train(recipe_of("training.epochs=1"), tmp_path / "run", data=tmp_path / "data")


def test_text_is_learned(data, tmp_path):
    recipe = recipe_of(
        "model.hidden_size=16",
        "language.embedding_size=16",
        "model.dropout=0",
        "model.weight_dropout=0",
        "language.word_dropout=0",
        "language.activation_penalty=0",
        "language.slowness_penalty=0",
        "language.embedding_dropout=0",
        "language.output_dropout=0",
        "optimizer.name=adam",
        "optimizer.lr=0.03",
        "language.sequence_length=5",
        "training.epochs=10",
    )
    history = train(recipe, tmp_path / "run", data=data).history
    # Words drawn as often as they occur, without what stands before them, would give about 11.
    assert min(row.validation_metric for row in history) < 8 < history[0].validation_metric


def test_text_on_the_command_line(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "ptb-small-momentum-lstm-200", "--threads", "1", "--data-folder", str(data)]
    assert main([*words, "--set", *SMALL, "training.epochs=1"]) == 0
    shown = capsys.readouterr().out
    (row,) = read_metrics(tmp_path / "runs" / "ptb-small-momentum-lstm-200" / "metrics.csv")
    assert f"test perplexity {row.test_metric:.2f} at the best validation epoch, 1" in shown
    assert "%" not in shown
    summary = summarise(read_runs([tmp_path / "runs" / "ptb-small-momentum-lstm-200"]))
    table = to_markdown(summary_table(summary))
    assert "| test perplexity |" in table
    assert f"| {row.test_metric:.2f} |" in table
