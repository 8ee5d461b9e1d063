import dataclasses
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from momentumrnn.data.adding import draw_adding
from momentumrnn.errors import CheckpointError, RecipeError
from momentumrnn.results import (
    RunRecord,
    plot_convergence,
    print_table,
    read_runs,
    summarise,
    summary_table,
    to_markdown,
)
from momentumrnn.results.plots import convergence_figure
from momentumrnn.tasks.contract import LOSS, MSE
from momentumrnn.training import load_recipe
from momentumrnn.training.history import Epoch, write_metrics


def run(name, seed, validation, test, seconds=1.0, epochs=None):
    recipe = load_recipe(name).override([f"training.seed={seed}", f"training.epochs={epochs or len(test)}"])
    history = tuple(
        Epoch(number, number * 10, 1.0, 0.5, 1.0, held_out, 1.0, tested, seconds)
        for number, (held_out, tested) in enumerate(zip(validation, test, strict=True), 1)
    )
    return RunRecord(Path(f"{name}-{seed}"), recipe, history, parameters=1234)


@pytest.fixture
def runs():
    return [
        run("digits-lstm", 0, [0.5, 0.92, 0.91], [0.4, 0.90, 0.99], seconds=2.0),
        run("digits-adam-lstm", 0, [0.5, 0.6, 0.7], [0.4, 0.5, 0.6]),
        run("digits-lstm", 1, [0.5, 0.6, 0.95], [0.4, 0.97, 0.94], seconds=4.0),
        run("digits-adam-lstm", 1, [0.5, 0.6, 0.7], [0.4, 0.5, 0.7]),
        run("digits-lstm", 2, [0.5, 0.6, 0.7], [0.1, 0.2, 0.3], seconds=90.0),
    ]


def test_summary_by_hand(runs):
    table = summarise(runs).set_index("model")
    lstm = table.loc["LSTM"]
    # At the best validation epoch: 0.90, 0.94, 0.30; the best over epochs: 0.99, 0.97, 0.30.
    assert lstm["test_accuracy"] == pytest.approx(np.mean([90, 94, 30]))
    assert lstm["test_accuracy_std"] == pytest.approx(np.std([90, 94, 30], ddof=1))
    assert lstm["best_test_accuracy"] == pytest.approx(np.mean([99, 97, 30]))
    assert lstm["best_test_accuracy_std"] == pytest.approx(np.std([99, 97, 30], ddof=1))
    assert (lstm["epochs_to_90"], lstm["reached_90"], lstm["seeds"]) == (2.5, 2, 3)
    assert lstm["seconds_per_epoch"] == 4.0
    assert lstm["parameters"] == 1234
    adam = table.loc["AdamLSTM"]
    assert math.isnan(adam["epochs_to_90"])
    assert adam["reached_90"] == 0


def test_one_seed_has_no_deviation(runs):
    table = summarise(runs[:1])
    assert math.isnan(table.loc[0, "test_accuracy_std"])
    assert "| 90.00 |" in to_markdown(summary_table(table))


def test_settings_are_not_mixed(runs):
    wider = runs[2].recipe.override(["model.hidden_size=99"])
    faster = runs[2].recipe.override(["optimizer.lr=0.5"])
    mixed = [runs[0], dataclasses.replace(runs[2], recipe=wider), dataclasses.replace(runs[2], recipe=faster)]
    table = summarise(mixed)
    assert list(table["seeds"]) == [1, 1, 1]
    assert len(set(table["model"])) == 3
    assert "LSTM 99" in set(table["model"])


def test_markdown(runs):
    text = to_markdown(summary_table(summarise(runs), "LSTMs on digits"))
    assert "| LSTM | 1,234 | 71.33 ± 35.85 | 75.33 ± 39.27 | 2.5 (2/3) | 4.00 |" in text
    assert "| AdamLSTM | 1,234 | 65.00 ± 7.07 | 65.00 ± 7.07 | not reached | 1.00 |" in text
    assert "sample standard deviation over 2 to 3 seed(s)" in text
    assert "not finished" not in text


def test_an_unfinished_run_is_said_to_be_one(runs):
    unfinished = run("digits-lstm", 3, [0.5], [0.4], epochs=9)
    assert "1 run(s) are not finished" in to_markdown(summary_table(summarise([*runs, unfinished])))
    nothing_yet = run("digits-sr-lstm", 0, [], [], epochs=9)
    assert "| SRLSTM | 1,234 | – | – | not reached | – |" in to_markdown(
        summary_table(summarise([*runs, nothing_yet]))
    )


def test_numbers_are_whole_on_a_terminal_of_80_columns(runs, capsys):
    print_table(summary_table(summarise(runs), "LSTMs on digits"), Console(width=80))
    shown = capsys.readouterr().out
    for whole in (
        "AdamLSTM",
        "an epoch",
        "accuracy, %",
        "to 90 %",
        "71.33 ± 35.85",
        "2.5 (2/3)",
        "not reached",
        "1,234",
    ):
        assert whole in shown
    assert "…" not in shown


def test_plot(runs, tmp_path):
    figure = convergence_figure(runs, "LSTMs on digits")
    (axes,) = figure.axes
    first = axes.lines[0]
    assert first.get_label() == "LSTM"
    assert list(first.get_xdata()) == [1, 2, 3]
    np.testing.assert_allclose(first.get_ydata(), [50, (92 + 60 + 60) / 3, (91 + 95 + 70) / 3])
    band = axes.collections[0].get_paths()[0].vertices
    spread = np.std([92, 60, 60], ddof=1)
    assert np.isclose(band[:, 1], (92 + 60 + 60) / 3 - spread).any()
    assert len({line.get_color() for line in axes.lines}) == len(axes.lines) == 2
    assert "3 seeds" in axes.get_title()
    files = plot_convergence(runs, "LSTMs on digits", tmp_path / "convergence")
    assert matplotlib.image.imread(files[0]).std() > 0
    assert ElementTree.parse(files[1]).getroot().tag.endswith("svg")


def test_run_folders_are_read(tmp_path, runs):
    (tmp_path / "recipe.toml").write_text(runs[0].recipe.to_toml())
    write_metrics(tmp_path / "metrics.csv", runs[0].history)
    (record,) = read_runs([tmp_path])
    assert (record.recipe, record.history, record.finished) == (runs[0].recipe, runs[0].history, True)
    h = record.recipe.model.hidden_size
    assert record.parameters == 4 * h * (1 + h + 2) + 10 * h + 10
    with pytest.raises(CheckpointError, match="no run folder"):
        read_runs([tmp_path / "other"])


def error_run(name, seed, errors, metric):
    recipe = load_recipe(name).override([f"training.seed={seed}", f"training.epochs={len(errors)}"])
    history = tuple(
        Epoch(number, number * 10, 1.0, 1.0, held_out, held_out, tested, tested, 1.0, metric)
        for number, (held_out, tested) in enumerate(errors, 1)
    )
    return RunRecord(Path(f"{name}-{seed}"), recipe, history, parameters=1234)


def test_errors_are_summarised_by_the_lowest():
    runs = [
        error_run("timit-lstm-84", 0, [(9.0, 8.0), (5.0, 6.0), (7.0, 4.0)], MSE),
        error_run("timit-lstm-84", 1, [(5.0, 8.0), (6.0, 7.0), (7.0, 9.0)], MSE),
    ]
    (row,) = summarise(runs).to_dict("records")
    assert row["test_mse"] == pytest.approx(np.mean([6, 8]))
    assert row["test_mse_std"] == pytest.approx(np.std([6, 8], ddof=1))
    assert row["best_test_mse"] == pytest.approx(np.mean([4, 7]))
    assert row["validation_mse"] == 5.0
    assert not [name for name in row if "accuracy" in name or "90" in name]
    text = to_markdown(summary_table(summarise(runs), "Speech"))
    assert (
        "| model | parameters | test mse | best test mse | seconds an epoch |\n|---|---:|---:|---:|---:|"
        in text
    )
    assert "| LSTM | 1,234 | 7.00 ± 1.41 | 5.50 ± 2.12 | 1.00 |" in text
    assert "as the paper reports" not in text
    assert "90 %" not in text


def test_what_can_be_had_without_learning_is_in_the_plot():
    runs = [error_run("adding-750-lstm-128", 0, [(0.17, 0.17), (0.1, 0.1)], LOSS)]
    assert "| LSTM | 1,234 | 0.1000 | 0.1000 | 1.00 |" in to_markdown(summary_table(summarise(runs)))
    (axes,) = convergence_figure(runs, "adding").axes
    curve, baseline = axes.lines
    np.testing.assert_allclose(curve.get_ydata(), [0.17, 0.1])
    validation = draw_adding(1024, 750, (0, 0, 1))[1].double()
    np.testing.assert_allclose(baseline.get_ydata(), (validation - 1).square().mean())
    assert baseline.get_label() == "always saying 1"
    assert axes.get_ylabel() == "validation loss"


def test_what_is_judged_differently_is_not_mixed(runs):
    with pytest.raises(RecipeError, match="judged by one metric, got accuracy, mse"):
        summarise([*runs, error_run("timit-lstm-84", 0, [(9.0, 8.0)], MSE)])
