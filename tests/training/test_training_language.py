"""Whole runs on text, with models of a few numbers: carried state, and the switch to averaged weights."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import safetensors.torch
import torch

import momentumrnn.training.loop as loop
from momentumrnn.training import load_recipe, train
from momentumrnn.training.averaging import has_stalled
from momentumrnn.training.checkpoint import load_latest_checkpoint
from momentumrnn.training.history import read_metrics
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
SR = ["model.name=SRLSTM", "rule.restart=3", "rule.step_size=0.6"]


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
