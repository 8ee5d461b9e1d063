"""``momentumrnn reproduce`` as a whole, on runs of seconds, and what it refuses."""

import csv
import json

import pytest
import torch

from momentumrnn.cli import main
from momentumrnn.cli.reproducing import cost, cost_worker
from momentumrnn.training import train
from momentumrnn.training.history import read_metrics
from momentumrnn.training.plan import Plan, load_plan


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No test writes into the folder the tests are started in, or finds the machine's data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOMENTUMRNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def losses(folder):
    return [(row.train_loss, row.test_loss) for row in read_metrics(folder / "metrics.csv")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "name tables or figures: table1"),
        (["tabel1"], "there is no table or figure 'tabel1': did you mean 'table1'?"),
        (["table1", "--seeds", "0"], "--seeds: expected 1 or more, got 0"),
        (["table1", "--minutes", "0"], "--minutes: expected more than 0"),
        (["table1", "--jobs", "0"], "--jobs: expected 1 or more"),
        (["table1", "--only", "mnist-gru"], "--only mnist-gru: no row of table1 is named so"),
        (
            ["fig3", "--set", "rule.momentum=0.5"],
            "mnist-lstm-256: --set rule.momentum=0.5 training.seed=0: rule.momentum: LSTM does not take it",
        ),
        (["fig3", "--set", "training.seed=1"], "choose how many with --seeds"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(capsys, tmp_path, words, expected):
    assert main(["reproduce", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert expected in told
    assert len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_plan_says_what_lacks_data_and_how_to_get_it(capsys, tmp_path):
    assert main(["reproduce", "table2", "--only", "timit-lstm-84", "--seeds", "2", "--plan"]) == 0
    shown = capsys.readouterr().out
    assert "2 without data" in shown
    assert "LDC93S1" in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["file", "file/inside"])
@pytest.mark.parametrize("more", [["--plan"], []])
def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_is_measured(
    capsys, tmp_path, out, more
):
    (tmp_path / "file").write_text("something")
    assert main(["reproduce", "small", "--only", "adding-100-lstm", "--out", out, *more]) == 2
    told = capsys.readouterr()
    expected = f"error: --out {out}: expected a folder, or a place for one, got the file file; name another\n"
    assert (told.out, told.err) == ("", expected)
    assert (tmp_path / "file").read_text() == "something"


def test_the_whole_path_and_that_a_second_call_finds_it_done(capsys, tmp_path):
    words = ["reproduce", "small", "response", "table2", "--smoke"]
    words += ["--only", "adding-100-rmsprop-lstm", "timit-lstm-84", "--out", "here"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "1 at once (1 left to be made)" in shown
    assert "1/1 adding-100-rmsprop-lstm-128-seed-0: done: test loss" in shown
    assert "1 of 2 runs are done, 1 have no data here; to see them: momentumrnn report here" in shown
    plan = load_plan(tmp_path / "here")
    assert plan is not None
    assert (plan.experiments, plan.seeds, plan.smoke) == (("small", "response", "table2"), 1, True)
    folder = tmp_path / "here" / "adding-100-rmsprop-lstm-128-seed-0"
    (row,) = [row for row in plan.rows() if row.recipe == "adding-100-rmsprop-lstm-128"]
    threads = torch.get_num_threads()
    train(plan.recipe(row), tmp_path / "alone", threads=1)
    torch.set_num_threads(threads)
    assert losses(folder) == losses(tmp_path / "alone")
    assert json.loads((folder / "versions.json").read_text())["starts"][0]["threads"] == 1

    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "to be made" not in shown
    assert "1 of 2 runs are done" in shown
    assert main([*words, "--set", "training.epochs=1"]) == 2
    assert "--set: training.epochs=1 now, not given when the folder was begun" in capsys.readouterr().err


def test_a_run_that_fails_is_told_and_the_others_go_on(capsys):
    words = ["reproduce", "small", "--smoke", "--only", "adding-100-lstm", "adding-100-dtriv"]
    assert main([*words, "--set", "optimizer.lr=1e38", "--jobs", "1"]) == 2
    told = capsys.readouterr()
    assert "1/2 adding-100-lstm-128-seed-0: failed: " in told.out
    assert "2/2 adding-100-dtriv-128-seed-0: failed: " in told.out
    assert "2 of 2 runs failed: adding-100-lstm-128-seed-0, adding-100-dtriv-128-seed-0" in told.err


def test_no_time_is_no_failure(capsys, tmp_path):
    words = ["reproduce", "small", "--smoke", "--only", "adding-100-lstm", "--minutes", "1e-9"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "minutes are over; the same command goes on" in shown
    assert "0 of 1 runs are done, 1 are left" in shown


def test_the_cost_of_a_step_is_measured_once(capsys, tmp_path, monkeypatch):
    # In a process of its own it is the same, and takes seconds to start.
    monkeypatch.setattr(cost, "peak_told_by", lambda module, job, what: cost_worker.measure(job))
    words = ["reproduce", "cost", "--smoke", "--only", "timit-momentum-lstm", "--out", "here"]
    assert main(words) == 0
    assert "cost: TIMIT, N = 158, 2 models side by side" in capsys.readouterr().out
    with (tmp_path / "here" / "cost.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["row"] for line in lines] == ["timit-lstm-158", "timit-momentum-lstm-158"]
    assert all(float(line[column]) > 0 for line in lines for column in ("train_seconds", "eval_seconds"))
    assert float(lines[0]["train_ratio"]) == float(lines[0]["eval_ratio"]) == 1
    assert "torch" in json.loads((tmp_path / "here" / "cost.json").read_text())
    assert main(words) == 0
    assert "side by side" not in capsys.readouterr().out
    words[words.index("timit-momentum-lstm")] = "timit-sr-lstm"
    assert main(words) == 0
    assert "3 models side by side" in capsys.readouterr().out
    with (tmp_path / "here" / "cost.csv").open() as stream:
        rows = [line["row"] for line in csv.DictReader(stream)]
    assert rows == ["timit-lstm-158", "timit-momentum-lstm-158", "timit-sr-lstm-158"]


def test_plans_of_one_folder_are_joined():
    first = Plan(("table1",), seeds=2, only=("mnist",))
    both = Plan(("fig3", "table1"), seeds=1, only=("timit",)).joined(first)
    assert (both.experiments, both.seeds, both.only) == (("table1", "fig3"), 2, ("mnist", "timit"))
    assert Plan(("fig3",)).joined(first).only == ()
    with pytest.raises(ValueError, match="--smoke: True now, not given when the folder was begun"):
        Plan(("fig3",), smoke=True).joined(first)
