"""What ``reproduce`` says and guesses, and a row of Fig. 2."""

import dataclasses
import io
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from rich.console import Console

from momentumrnn.analysis import GradientHistory
from momentumrnn.cli import main
from momentumrnn.cli.reproducing import gradients
from momentumrnn.cli.reproducing.at_once import Machine, choose_at_once
from momentumrnn.cli.reproducing.estimates import Estimate, estimate, seconds_left, signature
from momentumrnn.cli.reproducing.jobs import Job, Outcome
from momentumrnn.cli.reproducing.local import LocalExecutor
from momentumrnn.cli.reproducing.options import check_options
from momentumrnn.cli.reproducing.showing import show_plan, stand
from momentumrnn.cli.reproducing.steps import measure_steps
from momentumrnn.cli.reproducing.survey import Run, missing_data, survey
from momentumrnn.cli.reproducing.watching import Watcher
from momentumrnn.tasks.contract import LOSS
from momentumrnn.training import load_recipe
from momentumrnn.training.experiments import Row
from momentumrnn.training.history import Epoch, write_metrics
from momentumrnn.training.plan import Plan
from momentumrnn.training.progress import Silent
from momentumrnn.training.run_folder import RunFolder


@pytest.mark.parametrize(
    ("machine", "threads", "runs", "most_bytes", "expected"),
    [
        (Machine(8, 1e12, gpu=False), 1, 70, 1e9, (8, "8 cores, 1 thread each")),
        (Machine(8, 1e12, gpu=False), 3, 70, 1e9, (2, "8 cores, 3 threads each")),
        (Machine(1, None, gpu=False), 4, 70, 1e9, (1, "1 core, 4 threads each")),
        (Machine(8, 1e12, gpu=False), 1, 3, 1e9, (3, "3 left to be made")),
        (
            Machine(16, 1e10, gpu=False),
            1,
            70,
            1.5e9,
            (4, "the largest takes 2.0 GB, and 10.0 GB are free"),
        ),
        (Machine(16, 8e10, gpu=True), 1, 70, 1e9, (4, "they share the GPU")),
        (
            Machine(16, 1e9, gpu=False),
            1,
            70,
            3e9,
            (1, "the largest takes 3.5 GB, and 1.0 GB are free"),
        ),
    ],
)
def test_how_many_at_once_and_why(machine, threads, runs, most_bytes, expected):
    estimates = [Estimate(1.0, 0.1, 1e6), Estimate(1.0, 0.1, most_bytes)]
    assert choose_at_once(machine, threads, runs, estimates) == expected


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def begin(epochs=10, steps=10, epoch=1, step=0):
    return {"epochs": epochs, "steps": steps, "epoch": epoch, "step": step, "metric": "loss"}


def test_lines_of_many_runs():
    clock, text = Clock(), io.StringIO()
    console = Console(file=text, width=200)
    with Watcher({"one": 100.0, "two": 100.0, "three": None}, 2, console, clock) as watcher:
        clock.now = 5.0
        watcher.tell("one", "begin", begin())
        watcher.tell("two", "begin", begin(epoch=6))
        clock.now = 10.0
        watcher.tell("one", "step", {"epoch": 1, "step": 1, "loss": 0.5, "metric": 0.5})
        clock.now = 30.0
        watcher.tell("one", "step", {"epoch": 4, "step": 5, "loss": 0.5, "metric": 0.5})
        watcher.tell("one", "warning", {"text": "so"})
        watcher.ended("two", Outcome("failed", "the loss is nan"))
        # 65 s since work began, 100 done, 100 left.
        clock.now = 70.0
        watcher.ended("one", Outcome("done", "test loss 0.1"))
        watcher.ended("three", Outcome("stopped"))
    assert text.getvalue().splitlines() == [
        "two: going on in epoch 6 of 10 after step 0 of 10",
        "one: epoch 4/10 step 5/10 loss 0.5000, 46 s left",
        "one: so",
        "1/3 two: failed: the loss is nan",
        "2/3 one: done: test loss 0.1, about 1 min 5 s left in all",
        "three: stopped",
    ]


def test_bars_of_many_runs():
    text = io.StringIO()
    console = Console(file=text, width=120, force_terminal=True, force_interactive=True)
    with Watcher({"one": 100.0, "two": 100.0}, 2, console) as watcher:
        watcher.tell("one", "begin", begin())
        watcher.tell("two", "begin", begin())
        row = Epoch(5, 50, 0.5, 0.5, 0.25, 0.25, 0.4, 0.4, 1.0, LOSS)
        watcher.tell("one", "epoch", {"columns": row.columns(), "metric": "loss"})
        console.print(watcher._bars)
        watcher.ended("one", Outcome("done"))
    shown = text.getvalue()
    assert "50%" in shown
    assert "validation 0.2500" in shown
    assert "25%" in shown
    assert "1/2 one: done" in shown


def run(name="adding-100-lstm-128", standing="missing", history=(), **more):
    return Run(
        name=f"{name}-seed-0",
        row=Row(name),
        recipe=load_recipe(name),
        place=Path("nowhere"),
        standing=standing,
        history=history,
        **more,
    )


def epoch(number, seconds=3.0):
    return Epoch(number, number * 100, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, seconds, LOSS)


def test_where_the_runs_of_a_row_stand():
    begun = run(standing="begun", history=(epoch(1), epoch(2)))
    members = [run(standing="done"), run(standing="done"), begun, run()]
    assert stand(members, lacking=False) == "2 done, 1 begun after epoch 2 of 20, 1 to be made"
    assert stand([run()], lacking=True) == "1 without data"
    text = io.StringIO()
    estimates = {"adding-100-lstm-128": Estimate(3.0)}
    show_plan(members, {begun.recipe.data: "why not"}, estimates, Console(file=text, width=100))
    assert "1 min 54 s" in text.getvalue()  # 18 and 20 epochs of 3 s
    assert "not here: adding. why not" in text.getvalue()


def test_the_settings_of_a_grid_share_a_line(tmp_path):
    text = io.StringIO()
    show_plan(survey(Plan(("fig6",), seeds=1), tmp_path), {}, {}, Console(file=text, width=100))
    assert "mnist-momentum-lstm-256, 25 settings" in text.getvalue()
    assert "25 to be made" in text.getvalue()


def test_what_is_left_of_a_run():
    known = {"adding-100-lstm-128": Estimate(3.0, 0.5)}
    assert seconds_left(run(standing="done"), {}) == 0
    assert seconds_left(run(), {}) is None
    assert seconds_left(run(standing="begun", history=(epoch(1),)), known) == 57
    assert seconds_left(run(gradients=True), known) == pytest.approx(165)


def test_what_takes_the_same_time_is_measured_once():
    recipe = load_recipe("mnist-momentum-lstm-256")
    same = ["rule.momentum=0.3", "training.seed=4", "training.epochs=1", "optimizer.lr=1"]
    for change in same:
        assert signature(recipe.override([change]), "cpu", 1) == signature(recipe, "cpu", 1)
    for change in ("model.hidden_size=128", "training.batch_size=64", "data.subset=8"):
        assert signature(recipe.override([change]), "cpu", 1) != signature(recipe, "cpu", 1)
    assert signature(recipe, "cpu", 2) != signature(recipe, "cpu", 1)


def test_own_epochs_count_more_than_a_guess(tmp_path, monkeypatch):
    plan = Plan(("small",), seeds=2, only=("adding-100-lstm",))
    recipe = plan.recipe(plan.rows()[0], 0)
    folder = RunFolder(tmp_path / "adding-100-lstm-128-seed-0")
    with folder.opened(recipe, {}):
        write_metrics(folder.path / "metrics.csv", [epoch(1, 4.0), epoch(2, 6.0)])
    runs = survey(plan, tmp_path)
    assert [one.standing for one in runs] == ["begun", "missing"]
    # With no command at all nothing can be measured; nothing has to be.
    monkeypatch.setattr("momentumrnn.cli.reproducing.estimates.LocalExecutor", None)
    found = estimate(runs, runs, options(plan, tmp_path), None, None)
    assert found == {"adding-100-lstm-128": Estimate(5.0)}


def options(plan, out):
    return dataclasses.replace(
        check_options(
            names=("small",),
            only=(),
            seeds=1,
            minutes=None,
            overrides=(),
            smoke=False,
            plan_only=False,
            jobs=None,
            executor="local",
            out=out,
            data=None,
            device="cpu",
            threads=1,
        ),
        plan=plan,
    )


def test_a_few_steps_say_what_an_epoch_takes():
    recipe = load_recipe("digits-lstm").override(["model.hidden_size=8", "training.batch_size=256"])
    measured = measure_steps(recipe, None, "cpu")
    # Five steps, then as many sequences again, half of them in each part.
    assert measured["epoch_seconds"] > 5 * measured["step_seconds"] > 0
    assert measured["bytes"] >= 0


def test_missing_data_are_found_by_section(tmp_path):
    runs = [run("timit-lstm-84"), run("timit-lstm-120"), run("adding-100-lstm-128")]
    problems = missing_data(runs, tmp_path)
    assert list(problems) == [runs[0].recipe.data]
    assert "LDC93S1" in problems[runs[0].recipe.data]


class PressesCtrlC(Silent):
    def step(self, epoch, step, loss, metric):
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)


def test_gradients_go_on_inside_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "SECONDS_BETWEEN_REPORTS", 0.0)
    recipe = load_recipe("digits-momentum-lstm").override(
        ["model.hidden_size=4", "training.batch_size=256", "data.subset=512"]
    )

    def job(name):
        place = gradients.gradient_file(tmp_path, name)
        return Job(
            kind="gradients",
            name=name,
            recipe=recipe,
            place=place,
            data=None,
            device="cpu",
            threads=1,
            smoke=True,
        )

    gradients.record_gradients(job("whole"), Silent())
    with pytest.raises(KeyboardInterrupt):
        gradients.record_gradients(job("stopped"), PressesCtrlC())
    assert not gradients.is_recorded(job("stopped").place, smoke=True)
    gradients.record_gradients(job("stopped"), Silent())
    whole, stopped = (GradientHistory.load(job(name).place) for name in ("whole", "stopped"))
    assert whole.iterations == [0, 2, 4, 6]
    assert stopped.iterations == whole.iterations
    assert torch.equal(stopped.matrix(), whole.matrix())
    assert whole.matrix().shape == (4, 64)
    assert sorted(path.name for path in (tmp_path / "gradients").iterdir()) == [
        "stopped.safetensors",
        "whole.safetensors",
    ]


def test_the_figure_is_drawn_of_what_is_recorded(tmp_path):
    plan = Plan(("fig2",), smoke=True)
    rows = gradients.gradient_rows(plan)["fig2"]
    assert len(rows) == 3
    assert gradients.plot_gradients(plan, tmp_path) == []
    history = GradientHistory(2, iterations=[0, 2, 4, 6], norms=[torch.rand(20).double()] * 4)
    (tmp_path / "gradients").mkdir()
    history.save(gradients.gradient_file(tmp_path, rows[1].name))
    files = gradients.plot_gradients(plan, tmp_path)
    assert [file.name for file in files] == ["fig2.png", "fig2.svg"]
    assert all(file.stat().st_size > 1000 for file in files)
    assert gradients.describe_row(plan.recipe(rows[1])) == "MomentumDTRIV, μ 0.999, s 0.6"


@pytest.mark.parametrize("smoke", [True, False])
def test_the_figure_of_a_smoke_run_says_so(tmp_path, monkeypatch, smoke):
    titles = []
    monkeypatch.setattr(
        gradients, "plot_gradient_norms", lambda found, path, title: titles.append(title) or []
    )
    plan = Plan(("fig2",), smoke=smoke)
    history = GradientHistory(2, iterations=[0, 300], norms=[torch.rand(20).double()] * 2)
    (tmp_path / "gradients").mkdir()
    history.save(gradients.gradient_file(tmp_path, gradients.gradient_rows(plan)["fig2"][0].name))
    gradients.plot_gradients(plan, tmp_path)
    assert titles == [
        ("SMOKE TEST, NO RESULTS: " if smoke else "") + "Fig. 2: gradients that reach back in time"
    ]


def test_a_plan_measures_nothing_and_says_what_is_not_known(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOMENTUMRNN_DATA", raising=False)

    def refuse(*arguments):
        raise AssertionError("--plan started a process")

    monkeypatch.setattr(LocalExecutor, "run", refuse)
    words = ["reproduce", "small", "--only", "adding", "--plan", "--out", "out"]
    began = time.process_time()
    assert main(words) == 0
    # After the imports; generous, as two seconds are what a user waits for at most.
    assert time.process_time() - began < 4
    assert "not known yet, how long a run takes of any row" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    # Finished epochs are times that are known.
    recipe = dataclasses.replace(load_recipe("adding-100-lstm-128"))
    folder = tmp_path / "out" / "adding-100-lstm-128-seed-0"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    write_metrics(folder / "metrics.csv", [epoch(1, 60.0)])
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "20 min 0 s" in shown
    (unknown,) = [line for line in shown.splitlines() if line.startswith("not known yet")]
    assert "adding-100-adam-lstm-128" in unknown
    assert "of adding-100-lstm-128" not in unknown
    assert "about" not in shown
