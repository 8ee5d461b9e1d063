"""Values that nobody means, and files that somebody edited: each is an error of one line."""

import hashlib
import json
import math
import shutil

import pytest
import safetensors.torch
import torch

from momentumrnn.cli import main
from momentumrnn.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("elsewhere")

HUGE = "9" * 400
TINY = ["model.hidden_size=4", "training.epochs=2", "training.batch_size=512"]
DRAWN = ["model.hidden_size=4", "training.epochs=1", "training.steps_per_epoch=1", "training.batch_size=2"]


def error_of(capsys, *words):
    assert main([*map(str, words)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert len(told.splitlines()) == 1
    return told


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (f"optimizer.lr={HUGE}", "optimizer.lr: expected a number below 2⁶³, got 999"),
        (f"model.hidden_size={HUGE}", "model.hidden_size: expected a whole number below 2⁶³, got 999"),
        (f"training.epochs=-{HUGE}", "training.epochs: expected a whole number below 2⁶³, got -999"),
        (f"training.epochs={'9' * 5000}", "training.epochs: expected a whole number, got '999"),
        (f"optimizer.lr={'[' * 100_000}", "optimizer.lr: expected a number, got '[[["),
        (f"optimizer.lr={'{a=' * 3000}", "optimizer.lr: expected a number, got '{a="),
        (f"published.test_accuracy=[{HUGE}]", "published.test_accuracy: expected a number below 2⁶³"),
        ("optimizer.lr=1e300", "optimizer.lr: expected at most 3.4e+38, as weights are float32, got 1e+300"),
        ("optimizer.weight_decay=1e300", "optimizer.weight_decay: expected at most 3.4e+38"),
        ("model.forget_bias=-1e300", "model.forget_bias: expected at most 3.4e+38"),
        ("data.length=1e30", "data.length: expected a whole number, got 1e+30"),
        (f"model.hidden_size={2**63 - 1}", "model LSTM: "),
    ],
)
def test_absurd_values_in_set(capsys, tmp_path, change, expected):
    assert expected in error_of(capsys, "train", "digits-lstm", "--set", *TINY, change)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", ["adding-100-lstm-128", "copying-100-lstm-128"])
@pytest.mark.parametrize("length", [10**18, 2**63 - 21])
def test_sequences_longer_than_any_memory(capsys, recipe, length):
    told = error_of(capsys, "train", recipe, "--threads", 1, "--set", *DRAWN, f"data.length={length}")
    assert "out of memory" in told or "expected at most 2,147,483,648 time steps" in told


@pytest.mark.parametrize(
    "words",
    [
        ["train", "digits-lstm", "--threads", "4000000000"],
        ["train", "digits-lstm", "--threads", HUGE],
        ["reproduce", "small", "--plan", "--threads", HUGE],
        ["bench", "--quick", "--threads", HUGE],
        ["bench", "--shapes", f"{HUGE}x1x1x1"],
        ["bench", "--shapes", f"{'9' * 5000}x1x1x1"],
        ["bench", "--shapes", f"{2**64}x1x1x1"],
        ["sweep", "digits-lstm", "--over", f"model.hidden_size=1:{HUGE}"],
        ["sweep", "digits-lstm", "--over", f"optimizer.lr={HUGE},1"],
        ["sweep", "digits-lstm", "--over", f"optimizer.lr={'[' * 5000}:1"],
        ["sweep", "digits-lstm", "--over", "optimizer.lr=1e-300:1e300"],
    ],
)
def test_absurd_numbers_elsewhere(capsys, tmp_path, words):
    if words[0] == "sweep":
        pytest.importorskip("optuna")
    error_of(capsys, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["train", "digits-lstm", "--out", ""],
        ["train", "digits-lstm", "--out="],
        ["train", "mnist-lstm-128", "--data-folder", ""],
        ["compare", "digits", "--out", ""],
        ["reproduce", "fig2", "--smoke", "--out", ""],
        ["sweep", "digits-lstm", "--over", "optimizer.lr=0.1,0.2", "--out", ""],
        ["report", ""],
        ["report", ".", "--out", ""],
        ["generate", ""],
        ["bench", "--quick", "--out", ""],
        ["data", "list", "--data-folder", ""],
        ["train", "digits-lstm", "--out", "a\0b"],
    ],
)
def test_an_empty_name_is_no_folder(capsys, tmp_path, words):
    assert "expected the name of a file or folder, got " in error_of(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_a_data_folder_that_cannot_be_read_does_not_end_the_list(capsys):
    assert main(["data", "list", "--data-folder", "x" * 5000]) == 0
    assert "cannot be read: " in capsys.readouterr().out


def test_a_first_step_beyond_float32_is_a_divergence(capsys):
    told = error_of(capsys, "train", "digits-lstm", "--threads", 1, "--set", *TINY, "optimizer.lr=3e38")
    assert "a step is larger than float32 holds" in told
    assert "Try a smaller optimizer.lr (now 3e+38)" in told


# Checkpoints with right checksums


def train(recipe, out, *changes):
    return main(["train", recipe, "--out", str(out), "--threads", "1", "--set", *TINY, *changes])


def edit(checkpoint, change):
    """Change the weights and the state of a checkpoint, and make its checksums right again."""
    weights = safetensors.torch.load_file(checkpoint / "model.safetensors")
    state = torch.load(checkpoint / "state.pt", weights_only=True)
    weights, state = change(weights, state)
    safetensors.torch.save_file(weights, checkpoint / "model.safetensors")
    torch.save(state, checkpoint / "state.pt")
    sums = {
        name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "state.pt")
    }
    (checkpoint / "manifest.json").write_text(json.dumps({"sha256": sums}))


def without(mapping, *keys):
    return {key: value for key, value in mapping.items() if key not in keys}


def optimizer_with(state, change):
    (stored,) = state["optimizers"]
    return {**state, "optimizers": [change(stored)]}


EDITS = {
    "a weight missing": lambda w, s: (without(w, next(iter(w))), s),
    "a weight too many": lambda w, s: ({**w, "more": torch.zeros(2)}, s),
    "a weight of another shape": lambda w, s: ({**w, next(iter(w)): torch.zeros(2)}, s),
    "no state": lambda w, s: (w, [1, 2]),
    "no step": lambda w, s: (w, without(s, "step")),
    "a step that is text": lambda w, s: (w, {**s, "step": "x"}),
    "another epoch": lambda w, s: (w, {**s, "epoch": 17}),
    "an epoch that is text": lambda w, s: (w, {**s, "epoch": "x"}),
    "a history of text": lambda w, s: (w, {**s, "history": [{**s["history"][0], "test_loss": "x"}]}),
    "a history of other columns": lambda w, s: (w, {**s, "history": [{"x": 1}]}),
    "no history": lambda w, s: (w, without(s, "history")),
    "no sums": lambda w, s: (w, without(s, "loss_sum")),
    "random numbers of another kind": lambda w, s: (w, {**s, "rng": torch.zeros(3)}),
    "no optimizer": lambda w, s: (w, {**s, "optimizers": []}),
    "another optimizer": lambda w, s: (
        w,
        optimizer_with(s, lambda o: {**o, "state": {k: {"step": v["step"]} for k, v in o["state"].items()}}),
    ),
    "other parameters": lambda w, s: (
        w,
        optimizer_with(s, lambda o: {**o, "state": {k + 1: v for k, v in o["state"].items()}}),
    ),
    "another learning rate": lambda w, s: (
        w,
        optimizer_with(s, lambda o: {**o, "param_groups": [{**o["param_groups"][0], "lr": 7.0}]}),
    ),
    "an average": lambda w, s: (w, {**s, "average": {"x": torch.zeros(2)}}),
}


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run of two epochs after its first."""
    folder = tmp_path_factory.mktemp("half") / "run"
    assert train("digits-lstm", folder, "training.epochs=1") == 0
    return folder


def copied(half, tmp_path):
    return shutil.copytree(half, tmp_path / "run")


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_checkpoint_is_refused(half, tmp_path, capsys, name):
    run = copied(half, tmp_path)
    for checkpoint in (run / "checkpoints").iterdir():
        edit(checkpoint, EDITS[name])
    words = ["train", "digits-lstm", "--out", run, "--threads", 1, "--set", *TINY]
    told = error_of(capsys, *words)
    assert "its checkpoint belongs to another run, or was edited" in told or "no checkpoint is usable" in told
    # The files are as they were, and with the run's own checkpoint it goes on.
    assert len(RunFolder(run).history()) == 1


def test_another_runs_checkpoint_is_refused_and_its_own_one_resumes(half, tmp_path, capsys):
    run = copied(half, tmp_path)
    for number, (recipe, changes) in enumerate(
        {"digits-adam-lstm": ["model.hidden_size=8"], "digits-sr-lstm": ["optimizer.lr=0.5"]}.items()
    ):
        other = tmp_path / f"other-{number}"
        assert train(recipe, other, *changes, "training.epochs=1") == 0
        shutil.rmtree(run / "checkpoints")
        shutil.copytree(other / "checkpoints", run / "checkpoints")
        capsys.readouterr()
        told = error_of(capsys, "train", "digits-lstm", "--out", run, "--threads", 1, "--set", *TINY)
        assert "another run" in told
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(half / "checkpoints", run / "checkpoints")
    assert train("digits-lstm", run) == 0
    assert len(RunFolder(run).history()) == 2


# Journals of sweeps


def drop(entries, key):
    return [{k: v for k, v in entry.items() if k != key} for entry in entries]


JOURNALS = {
    "no values": lambda lines: drop(lines, "params"),
    "no operation": lambda lines: drop(lines, "op_code"),
    "an unknown operation": lambda lines: [*lines, {**lines[-1], "op_code": 99}],
    "numbers in the place of lines": lambda lines: [3, *lines],
    "lists in the place of lines": lambda lines: [[], *lines],
    "the name of another study": lambda lines: [
        {**line, "study_name": "other"} if "study_name" in line else line for line in lines
    ],
    "nothing of the definition": lambda lines: [
        line for line in lines if "definition" not in line.get("user_attr", {})
    ],
    "a definition that is a number": lambda lines: [
        {**line, "user_attr": {"definition": 3}} if "definition" in line.get("user_attr", {}) else line
        for line in lines
    ],
    "axes that are numbers": lambda lines: [
        {**line, "user_attr": {"definition": {**line["user_attr"]["definition"], "over": [3]}}}
        if "definition" in line.get("user_attr", {})
        else line
        for line in lines
    ],
    "what was asked without its values": lambda lines: [
        {**line, "user_attr": {"asked": {"number": 1}}} if "asked" in line.get("user_attr", {}) else line
        for line in lines
    ],
    "what was asked of other keys": lambda lines: [
        {**line, "user_attr": {"asked": {"number": 1, "values": {"rule.beta": 3}}}}
        if "asked" in line.get("user_attr", {})
        else line
        for line in lines
    ],
    "trials without an outcome": lambda lines: [
        {**line, "user_attrs": {}} if "user_attrs" in line else line for line in lines
    ],
    "scores of text": lambda lines: [
        {**line, "user_attrs": {**line["user_attrs"], "scores": ["x"]}} if "user_attrs" in line else line
        for line in lines
    ],
    "an outcome of another name": lambda lines: [
        {**line, "user_attrs": {**line["user_attrs"], "outcome": "x"}} if "user_attrs" in line else line
        for line in lines
    ],
}


@pytest.mark.parametrize("name", JOURNALS)
def test_an_edited_journal_of_a_sweep_is_refused(tmp_path, capsys, name):
    pytest.importorskip("optuna")
    from momentumrnn.cli.sweep import planned_sweep
    from momentumrnn.cli.sweeping.study import opened_study
    from momentumrnn.cli.sweeping.trial import Trial

    out = tmp_path / "sweep"
    with opened_study(out, planned_sweep("digits-momentum-lstm", ["rule.momentum=0:0.9"], TINY)) as study:
        study.record(Trial(0, study.ask(), "complete", (0.5,), (1,), 1.0, {1: 0.5}))
        study.ask()
    journal = out / "study.journal"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    edited = JOURNALS[name](lines)
    assert edited != lines
    journal.write_text("".join(json.dumps(line) + "\n" for line in edited))
    words = ["sweep", "digits-momentum-lstm", "--over", "rule.momentum=0:0.9", "--trials", 2, "--out", out]
    told = error_of(capsys, *words, "--threads", 1, "--set", *TINY)
    assert "damaged" in told or "another sweep" in told
    assert not list(out.glob("trial-*"))


def test_learning_rates_that_are_none():
    from momentumrnn import parameter_groups

    for lr in (math.nan, math.inf, -1.0):
        for given in ({"lr": lr, "lr_orthogonal": 0.1}, {"lr": 0.1, "lr_orthogonal": lr}):
            with pytest.raises(ValueError, match=r"should be a finite number, 0 or more, got "):
                parameter_groups(torch.nn.Linear(2, 3), **given)
