"""Sweeps of a few tiny runs on digits, and studies without any run."""

import math
import re
import shlex
import subprocess
import sys

import pandas as pd
import pytest

from momentumrnn.cli import main
from momentumrnn.training.history import best_validation_epoch, read_metrics

pytest.importorskip("optuna", reason="needs the extra [sweep]: pip install 'momentumrnn[experiments,sweep]'")

import momentumrnn.cli.sweep as command
import momentumrnn.cli.sweeping.study as study_file
import momentumrnn.training.loop as loop
from momentumrnn.cli.sweep import planned_sweep, planned_trials
from momentumrnn.cli.sweeping.axes import Choices, Range
from momentumrnn.cli.sweeping.progress import Teller
from momentumrnn.cli.sweeping.run import Deadline
from momentumrnn.cli.sweeping.study import opened_study
from momentumrnn.cli.sweeping.trial import Trial
from momentumrnn.errors import CheckpointError
from momentumrnn.tasks.contract import ACCURACY
from momentumrnn.training import Epoch
from momentumrnn.training.lock import FolderLock

pytestmark = pytest.mark.usefixtures("elsewhere")

TINY = ["--set", "model.hidden_size=4", "training.epochs=2", "training.batch_size=512", "--threads", "1"]
OVER = ["--over", "rule.momentum=0:0.99", "rule.step_size=0.1:2:log"]


def words(out, *more, over=OVER, trials=3):
    count = [] if trials is None else ["--trials", str(trials)]
    return ["sweep", "digits-momentum-lstm", *over, *count, "--out", str(out), *TINY, *more]


def table_of(out):
    """What a sweep has found, but the time it took."""
    return pd.read_csv(out / "trials.csv").drop(columns="seconds").sort_values("trial", ignore_index=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "sweep"
    assert main(words(out)) == 0
    return out


# What is asked for


def test_what_over_says():
    over = [
        "rule.momentum=0.1:0.99",
        "optimizer.lr=1e-4:1e-1:log",
        "model.hidden_size=4:8",
        "rule.learnable=false,true,channel",
        "rule.step_size=1,0.5",
        "rule.velocity=gate,hidden",
    ]
    definition = planned_sweep("digits-momentum-lstm", over, [])
    assert definition.axes == (
        Range("rule.momentum", 0.1, 0.99),
        Range("optimizer.lr", 1e-4, 1e-1, log=True),
        Range("model.hidden_size", 4, 8),
        Choices("rule.learnable", (False, True, "channel")),
        Choices("rule.step_size", (1.0, 0.5)),
        Choices("rule.velocity", ("gate", "hidden")),
    )
    assert isinstance(definition.axes[2].low, int)
    values = {"rule.momentum": 0.25, "rule.learnable": "channel", "model.hidden_size": 5}
    recipe = definition.runs(values)[0]
    assert (recipe.rule.momentum, recipe.rule.learnable, recipe.model.hidden_size) == (0.25, "channel", 5)
    assert type(definition).from_json(definition.to_json(), "here") == definition


def test_a_number_of_steps_is_whole_though_it_may_be_infinite():
    over = ["model.rebase_every=1:100"]
    (axis,) = planned_sweep("pmnist-dtriv-170", over, []).axes
    assert axis == Range("model.rebase_every", 1, 100)
    assert isinstance(axis.low, int)
    with pytest.raises(ValueError, match=r"expected a whole number at either end, got '1\.5'"):
        planned_sweep("pmnist-dtriv-170", ["model.rebase_every=1.5:100"], [])


def test_keys_that_only_fit_together():
    over = ["model.num_layers=2,3", "model.dropout=0.1:0.5"]
    assert len(planned_sweep("digits-lstm", over, []).axes) == 2
    with pytest.raises(ValueError, match="acts between stacked layers"):
        planned_sweep("digits-lstm", ["model.num_layers=1,3", "model.dropout=0.1:0.5"], [])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "--over: say what to sweep"),
        (["--over", "rule.momentun=0:0.9"], "did you mean rule.momentum?"),
        (["--over", "rules.momentum=0:0.9"], "did you mean rule?"),
        (["--over", "momentum=0:0.9"], "expected KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=a,b,c"),
        (["--over", "rule.momentum=0.9:0.1"], "expected LOW below HIGH, got '0.9:0.1'"),
        (["--over", "rule.momentum=0.5:0.5"], "expected LOW below HIGH"),
        (["--over", "rule.step_size=0:1:log"], "a logarithmic range begins above 0"),
        (["--over", "rule.step_size=0.1:1:lin"], "expected LOW:HIGH or LOW:HIGH:log"),
        (["--over", "rule.momentum=0:1"], "rule.momentum: expected at least 0 and below 1, got 1.0"),
        (["--over", "rule.momentum=0:nan"], "expected a finite number at either end, got 'nan'"),
        (["--over", "model.hidden_size=4:8.5"], "expected a whole number at either end, got '8.5'"),
        (["--over", "rule.momentum=0.5"], "expected LOW:HIGH or two values or more"),
        (["--over", "rule.momentum=0.5,0.50"], "expected every value once"),
        (["--over", "rule.momentum=0.5,,0.6"], "expected values as a,b,c"),
        (["--over", "model.name=LSTM:GRU"], "it is no number"),
        (["--over", "model.name=MomentumLSTM,MomentumLSTN"], "MomentumLSTN"),
        (["--over", "rule.beta=0.1:0.9"], "MomentumLSTM does not take it"),
        (["--over", "rule.momentum=0:0.5", "rule.momentum=0:0.9"], "expected every key once"),
        (["--over", "training.seed=0,1"], "choose how many with --seeds"),
        (["--over", "data.validation=1,2"], "trials are compared on the same data"),
        ([*OVER, "--set", "rule.momentum=0.5"], "--set fixes it"),
        ([*OVER, "--set", "training.seed=5"], "choose how many with --seeds"),
        ([*OVER, "--seeds", "0"], "--seeds: expected 1 or more, got 0"),
        ([*OVER, "--trials", "0"], "--trials: expected 1 or more, got 0"),
        ([*OVER, "--minutes", "0"], "--minutes: expected a number above 0"),
        ([*OVER, "--sampler", "grid"], "a grid needs its values one by one"),
    ],
)
def test_errors_before_anything_runs(capsys, tmp_path, given, told):
    assert main(["sweep", "digits-momentum-lstm", *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
    assert told in error
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_holds_nothing_out(capsys, tmp_path):
    assert main(["sweep", "mnist-momentum-lstm-128", *OVER, "--set", "data.validation=0"]) == 2
    assert "holds out none; say how many, as in --set data.validation=5000" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_optuna(capsys, monkeypatch):
    for name in list(sys.modules):
        if name.startswith("momentumrnn.cli.sweep"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep", "digits-momentum-lstm", *OVER]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: optuna")
    assert "pip install 'momentumrnn[experiments,sweep]'" in error


# The study, without any run


def quadratic(number, values):
    """A trial as a sweep would record it: some are pruned, some diverge."""
    score = 1 - (values["rule.momentum"] - 0.3) ** 2 - 0.1 * math.log(values["rule.step_size"]) ** 2
    outcome = "diverged" if number % 7 == 3 else "pruned" if number % 5 == 4 else "complete"
    scores = () if outcome == "diverged" else (score,)
    curve = {1: score / 2, 2: score} if scores else {}
    return Trial(number, values, outcome, scores, (2,) * len(scores), 0.5, curve)


@pytest.mark.parametrize(("sampler", "count"), [("tpe", 16), ("random", 5)])
def test_what_is_tried_does_not_depend_on_interruptions(tmp_path, sampler, count):
    definition = planned_sweep("digits-momentum-lstm", OVER[1:], [], sampler=sampler)
    whole, parts = [], []
    with opened_study(tmp_path / "whole", definition) as study:
        for number in range(count):
            whole.append(study.ask())
            study.record(quadratic(number, whole[-1]))
    for number in range(count):
        with opened_study(tmp_path / "parts", definition) as study:
            study.ask()
        with opened_study(tmp_path / "parts", definition) as study:
            parts.append(study.ask())
            study.record(quadratic(number, parts[-1]))
            assert [trial.number for trial in study.trials()] == list(range(number + 1))
            assert study.trials()[-1] == quadratic(number, parts[-1])
    assert parts == whole
    assert len({tuple(values.values()) for values in whole}) == count
    if sampler == "tpe":
        # It has learned where the best is.
        late = [abs(values["rule.momentum"] - 0.3) for values in whole[-4:]]
        assert sum(late) / 4 < sum(abs(values["rule.momentum"] - 0.3) for values in whole[:10]) / 10


def test_a_grid_is_every_point_once(tmp_path):
    over = ["model.hidden_size=2:4", "rule.velocity=gate,hidden"]
    definition = planned_sweep("digits-momentum-lstm", over, [], sampler="grid")
    assert (planned_trials(definition, None), planned_trials(definition, 4)) == (6, 4)
    asked = []
    for number in range(6):
        with opened_study(tmp_path / "grid", definition) as study:
            asked.append(study.ask())
            study.record(Trial(number, asked[-1], "complete", (0.5,), (1,)))
    points = {(values["model.hidden_size"], values["rule.velocity"]) for values in asked}
    assert points == {(size, space) for size in (2, 3, 4) for space in ("gate", "hidden")}


def test_half_a_line_and_a_lock_left_behind(tmp_path, monkeypatch):
    definition = planned_sweep("digits-momentum-lstm", OVER[1:], [])
    with opened_study(tmp_path / "sweep", definition) as study:
        study.record(quadratic(0, study.ask()))
        asked = study.ask()
    journal = tmp_path / "sweep" / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole.splitlines()[-1][:40])
    (tmp_path / "sweep" / "study.journal.lock").touch()
    # What was asked is not asked again, whatever another version of the sampler would say.
    monkeypatch.setattr(study_file.Study, "_suggest", None)
    with opened_study(tmp_path / "sweep", definition) as study:
        assert study.ask() == asked
        study.record(quadratic(1, asked))
    with opened_study(tmp_path / "sweep", definition) as study:
        assert len(study.trials()) == 2


def test_a_folder_of_something_else(tmp_path):
    definition = planned_sweep("digits-momentum-lstm", OVER[1:], [])
    out = tmp_path / "sweep"
    with opened_study(out, definition):
        pass
    others = {
        "--over rule.momentum is 0.0:0.99 there, 0.0:0.5 here": {"over": ["rule.momentum=0:0.5", OVER[2]]},
        "optimizer.lr is 0.02 there, 0.01 here": {"assignments": ["optimizer.lr=0.01"]},
        "--seeds is 1 there, 2 here": {"seeds": 2},
        "--sampler is tpe there, random here": {"sampler": "random"},
        "--prune is False there, True here": {"prune": True},
    }
    for told, change in others.items():
        other = planned_sweep("digits-momentum-lstm", **({"over": OVER[1:], "assignments": []} | change))
        with pytest.raises(CheckpointError, match=re.escape(told)), opened_study(out, other):
            pass
    with (
        FolderLock(out / "sweep.lock"),
        pytest.raises(CheckpointError, match="in use"),
        opened_study(out, definition),
    ):
        pass
    (out / "study.journal").write_text("{\n{}\n")
    with pytest.raises(CheckpointError, match="is damaged"), opened_study(out, definition):
        pass
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").touch()
    with pytest.raises(CheckpointError, match="no sweep"), opened_study(tmp_path / "run", definition):
        pass


def test_who_falls_behind(tmp_path):
    changes = ["training.epochs=10"]
    definition = planned_sweep("digits-momentum-lstm", OVER[1:], changes, prune=True)
    with opened_study(tmp_path / "sweep", definition) as study:
        for number in range(5):
            assert not study.falls_behind(dict.fromkeys(range(1, 9), 0.0))
            curve = dict.fromkeys(range(1, 11), 0.1 * number)
            study.record(Trial(number, study.ask(), "complete", (0.1 * number,), (1,), curve=curve))
        # The median is 0.2; the best until now counts, and the first fifth of the epochs does not.
        assert study.falls_behind({1: 0.1, 2: 0.1, 3: 0.19})
        assert not study.falls_behind({1: 0.1, 2: 0.21, 3: 0.1})
        assert not study.falls_behind({1: 0.0, 2: 0.0})


# Whole sweeps


def test_a_sweep_and_again(undisturbed, capsys):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("trial-*/*")}
    assert main(words(undisturbed)) == 0
    assert {path: path.stat().st_mtime_ns for path in undisturbed.glob("trial-*/*")} == before
    shown = capsys.readouterr().out
    assert "holds 3 of the trials, which are kept" in shown
    table = table_of(undisturbed)
    histories = [read_metrics(undisturbed / folder / "metrics.csv") for folder in table["folders"]]
    best = [best_validation_epoch(history) for history in histories]
    assert list(table["validation_accuracy"]) == pytest.approx([100 * row.validation_metric for row in best])
    assert list(table["best_epochs"]) == [row.epoch for row in best]
    assert list(table["outcome"]) == ["complete"] * 3
    # The first of the best ones, its test, and no other test.
    winner = max(range(3), key=lambda index: best[index].validation_metric)
    assert f"best: trial {winner}, validation accuracy {best[winner].validation_metric:.2%}" in shown
    assert f"test accuracy {best[winner].test_metric:.2%} at its best validation epoch" in shown
    assert shown.count("test accuracy") == 1
    assert not [column for column in table.columns if "test" in column]
    (values,) = re.findall(r"^its values: --set (.*)$", shown, re.M)
    assert shlex.split(values) == [
        f"{key}={float(table[key][winner])!r}" for key in ("rule.momentum", "rule.step_size")
    ]
    for name in ("sweep.png", "sweep.svg", "table.md", "study.journal"):
        assert (undisturbed / name).stat().st_size > 0


def test_the_line_to_train_the_best_trains_it(undisturbed, capsys, tmp_path):
    assert main(words(undisturbed)) == 0
    (line,) = re.findall(r"^to train it: momentumrnn (.*)$", capsys.readouterr().out, re.M)
    assert main([*shlex.split(line), "--out", str(tmp_path / "best"), "--threads", "1"]) == 0
    winner = pd.read_csv(undisturbed / "trials.csv")["folders"][0]
    assert (tmp_path / "best" / "recipe.toml").read_text() == (
        undisturbed / winner / "recipe.toml"
    ).read_text()


KILLED = """
import os, signal, sys
from momentumrnn.cli import main
from momentumrnn.cli.sweeping.progress import Teller
from momentumrnn.training.run_folder import RunFolder

owner, name = {"told": (Teller, "epoch"), "written": (RunFolder, "write_history")}[sys.argv[1]]
original = getattr(owner, name)
def kill(self, given, *more):
    run = self._run if owner is Teller else self.path.name
    row = given if owner is Teller else given[-1] if given else None
    if run == "trial-001" and row is not None and row.epoch == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, given, *more)
setattr(owner, name, kill)
main(sys.argv[2:])
"""


# In the second the checkpoint knows of an epoch that the metrics do not.
@pytest.mark.parametrize(("before", "known"), [("told", 1), ("written", 0)])
def test_killed_and_gone_on_with_is_the_same_sweep(undisturbed, tmp_path, before, known):
    out = tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", KILLED, before, *words(out)], capture_output=True)
    assert done.returncode == -9, done.stderr
    assert len(read_metrics(out / "trial-001" / "metrics.csv")) == known
    assert not (out / "trials.csv").exists()
    assert main(words(out)) == 0
    pd.testing.assert_frame_equal(table_of(out), table_of(undisturbed))
    curves = [
        [trial.intermediate_values for trial in study_file._load(folder / study_file.JOURNAL, None).trials]
        for folder in (out, undisturbed)
    ]
    assert curves[0] == curves[1]
    assert [len(curve) for curve in curves[0]] == [2, 2, 2]
    assert sorted(path.name for path in out.glob("trial-*")) == ["trial-000", "trial-001", "trial-002"]
    for name in ("trial-000", "trial-001", "trial-002"):
        mine, theirs = (read_metrics(folder / name / "metrics.csv") for folder in (out, undisturbed))
        assert [row.train_loss for row in mine] == [row.train_loss for row in theirs]


def test_out_of_time_and_gone_on_with_is_the_same_sweep(undisturbed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_READS", 0.0)
    ticks = iter(range(1000))
    monkeypatch.setattr(command, "Deadline", lambda minutes: Deadline(minutes, lambda: next(ticks)))
    out = tmp_path / "short"
    # Asked before every trial and run, and after every step and epoch: it ends in the second trial's first.
    assert main(words(out, "--minutes", "0.23", trials=2)) == 0
    shown = capsys.readouterr().out
    assert "1 of 2 trials are done; the same command goes on" in shown
    assert "its test follows when all trials are done" in shown
    assert "test accuracy" not in shown
    assert len(table_of(out)) == 1
    assert any((out / "trial-001" / "checkpoints").iterdir())
    assert read_metrics(out / "trial-001" / "metrics.csv") == ()
    monkeypatch.undo()
    # With another trial than before.
    assert main(words(out)) == 0
    assert f"{out} holds 1 of the trials, which are kept" in capsys.readouterr().out
    pd.testing.assert_frame_equal(table_of(out), table_of(undisturbed))


def test_ctrl_c(tmp_path, capsys, monkeypatch):
    def pressed(self, row):
        raise KeyboardInterrupt

    monkeypatch.setattr(Teller, "epoch", pressed)
    assert main(words(tmp_path / "sweep")) == 130
    assert "interrupted" in capsys.readouterr().err


def test_seeds_are_averaged_and_diverged_trials_passed_over(tmp_path, capsys):
    out = tmp_path / "sweep"
    over = ["--over", "optimizer.lr=0.02,1e37"]
    assert main(words(out, "--seeds", "2", "--sampler", "grid", over=over, trials=None)) == 0
    shown = capsys.readouterr().out
    assert "over 2 seeds" in shown
    table = pd.read_csv(out / "trials.csv")
    assert list(table["outcome"]) == ["complete", "diverged"]
    assert list(table["optimizer.lr"]) == [0.02, 1e37]
    assert math.isnan(table["validation_accuracy"][1])
    folders = table["folders"][0].split()
    assert [name[-7:] for name in folders] == ["-seed-0", "-seed-1"]
    best = [best_validation_epoch(read_metrics(out / name / "metrics.csv")) for name in folders]
    mean = sum(100 * row.validation_metric for row in best) / 2
    assert table["validation_accuracy"][0] == pytest.approx(mean)


def test_a_sweep_without_a_trial_that_ran_to_its_end_has_failed(tmp_path, capsys):
    out = tmp_path / "sweep"
    given = words(out, "--sampler", "grid", over=["--over", "optimizer.lr=1e36,1e37"], trials=None)
    # The second time nothing is left to do, and nothing better has come of it.
    for _ in range(2):
        assert main(given) == 2
        told = capsys.readouterr()
        assert "no trial ran to its end" in told.out
        assert told.err.startswith(
            "error: none of the 2 trials ran to its end, so there is no best one: 2 diverged"
        )
        assert len(told.err.splitlines()) == 1
    assert list(table_of(out)["outcome"]) == ["diverged"] * 2
    # One that is stopped before its first good trial may still have one.
    assert main(words(tmp_path / "short", "--minutes", "1e-9", trials=2)) == 0


def test_a_pruned_trial_stops_and_is_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study_file, "PRUNE_AFTER_TRIALS", 1)
    out = tmp_path / "sweep"
    asked = iter([{"optimizer.lr": 0.03}, {"optimizer.lr": 1e-9}])
    monkeypatch.setattr(study_file.Study, "_suggest", lambda self, number: next(asked))
    given = words(
        out, "--prune", "--set", "training.epochs=4", over=["--over", "optimizer.lr=1e-9:0.1:log"], trials=2
    )
    judge = study_file.Study.falls_behind

    def killed_before_judging(self, curve):
        if self.trials():
            raise KeyboardInterrupt
        return judge(self, curve)

    monkeypatch.setattr(study_file.Study, "falls_behind", killed_before_judging)
    assert main(given) == 130
    monkeypatch.setattr(study_file.Study, "falls_behind", judge)
    assert main(given) == 0
    table = table_of(out)
    assert list(table["outcome"]) == ["complete", "pruned"]
    history = read_metrics(out / "trial-001" / "metrics.csv")
    assert len(history) == 1
    assert f"trial 1: pruned after epoch {len(history)}" in capsys.readouterr().out
    assert "best: trial 0" in (out / "table.md").read_text()


def test_data_that_have_changed_since_the_last_trial(tmp_path, capsys):
    folder, out = tmp_path / "texts", tmp_path / "sweep"
    folder.mkdir()
    for part in ("train", "valid", "test"):
        (folder / f"{part}.txt").write_text("a b c d\n" * 40)
    over = ["--over", "training.batch_size=2,3"]
    given = ["sweep", "ptb-small-lstm-200", *over, "--sampler", "grid", "--out", str(out), "--set"]
    given += ["data.name=text", f"data.folder={folder}", "data.vocabulary=5", "model.hidden_size=4"]
    given += ["language.embedding_size=4", "training.epochs=1", "--threads", "1"]
    assert main([*given, "--trials", "1"]) == 0
    kept = (out / "data.txt").read_text()
    (folder / "valid.txt").write_text("d c b a\n" * 40)
    capsys.readouterr()
    assert main(given) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {out / 'data.txt'} is not what the data give now")
    assert len(told.splitlines()) == 1
    assert not (out / "trial-001").exists()
    # What is finished can be looked at again; and with the old data it is gone on with.
    assert main([*given, "--trials", "1"]) == 0
    (folder / "valid.txt").write_text("a b c d\n" * 40)
    assert main(given) == 0
    assert list(table_of(out)["outcome"]) == ["complete"] * 2
    assert (out / "data.txt").read_text() == kept


def test_what_is_told(capsys):
    from rich.console import Console

    now = [0.0]
    teller = Teller(Console(), ACCURACY, trials=4, seeds=1, clock=lambda: now[0])
    first = Trial(0, {"rule.momentum": 0.5}, "complete", (0.25,), (1,))
    with teller:
        teller.trial_begins(0, first.values, None)
        teller.begin("trial-000", epochs=2, steps=5, epoch=1, step=0)
        now[0] = 15.0
        teller.step(1, 5, 2.0, 0.125)
        now[0] = 30.0
        teller.trial_ends(first, first)
    assert capsys.readouterr().out.splitlines() == [
        "trial 0 (1 of 4): rule.momentum=0.5",
        "trial-000: epoch 1/2 step 5/5 loss 2.0000 accuracy 12.50%, 1 min 45 s left",
        "trial 0: validation accuracy 25.00%, best accuracy 25.00% (trial 0), 1 min 30 s left",
    ]


def test_the_time_left_of_a_trial_that_is_gone_on_with(capsys):
    from rich.console import Console

    now = [0.0]
    teller = Teller(Console(), ACCURACY, trials=2, seeds=2, clock=lambda: now[0])
    teller.trial_begins(0, {"rule.momentum": 0.5}, None)
    # Its first seed was finished before; half of the second one was.
    teller.begin("trial-000-seed-1", epochs=2, steps=5, epoch=2, step=0)
    now[0] = 10.0
    teller.epoch(Epoch(2, 10, 2.0, 0.2, 2.0, 0.3, 2.0, 0.9, 1.0))
    assert capsys.readouterr().out.splitlines()[1:] == [
        "trial-000-seed-1: epoch 2/2 loss 2.0000 validation 30.00%, 40 s left"
    ]
