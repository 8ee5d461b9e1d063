import io

import pytest
from rich.console import Console

from momentumrnn.errors import CheckpointError
from momentumrnn.tasks.contract import LOSS, MSE
from momentumrnn.training.history import (
    Epoch,
    best_test_epoch,
    best_validation_epoch,
    first_epoch_at,
    read_metrics,
    write_metrics,
)
from momentumrnn.training.progress import Bars, Lines, describe


def row(epoch, validation, test, seconds=1.0):
    loss = None if validation is None else 1.0
    return Epoch(epoch, 5 * epoch, 0.1 + 0.2, 0.5, loss, validation, 2.0, test, seconds)


HISTORY = (row(1, 0.3, 0.95), row(2, 0.9, 0.7), row(3, 0.9, 0.8), row(4, 0.8, 0.9))


def test_protocols():
    # The honest figure is neither the best test accuracy nor that of the last epoch.
    assert best_validation_epoch(HISTORY).test_accuracy == 0.7
    assert best_test_epoch(HISTORY).epoch == 1
    assert first_epoch_at(HISTORY, 0.9) == 2
    assert first_epoch_at(HISTORY, 0.91) is None
    assert best_validation_epoch([row(1, None, 0.5)]) is None
    assert best_validation_epoch([]) is None


def test_metrics_are_read_as_written(tmp_path):
    history = (*HISTORY, row(5, None, 1 / 3))
    write_metrics(tmp_path / "metrics.csv", history)
    assert read_metrics(tmp_path / "metrics.csv") == history
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]
    assert read_metrics(tmp_path / "none.csv") == ()


@pytest.mark.parametrize("damage", [lambda t: t[7:], lambda t: t[:-15], lambda t: t.replace("0.95", "x")])
def test_damaged_metrics(tmp_path, damage):
    path = tmp_path / "metrics.csv"
    write_metrics(path, HISTORY)
    path.write_text(damage(path.read_text()))
    with pytest.raises(CheckpointError, match=r"metrics\.csv: cannot be read as metrics"):
        read_metrics(path)


def test_plain_lines_are_few():
    now, lines = [0.0], []
    told = Lines(lines.append, clock=lambda: now[0])
    told.begin("run", epochs=100, steps=10, epoch=1, step=0)
    for epoch in range(1, 101):
        now[0] += 1.0
        told.step(epoch, 5, 1.0, 0.5)
        told.epoch(row(epoch, 0.5, 0.5))
    told.end()
    # One every ten seconds, and the last epoch in any case.
    assert len(lines) == 11
    assert lines[-1].startswith("run: epoch 100/100 loss 0.3000 train 50.00% validation 50.00% test 50.00%")


def test_going_on_is_said():
    lines = []
    Lines(lines.append).begin("run", epochs=3, steps=10, epoch=2, step=4)
    assert lines == ["run: going on in epoch 2 of 3 after step 4 of 10"]


def test_bars_on_a_terminal():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Bars(console, runs=2) as bars:
        for run in ("first", "second"):
            bars.begin(run, epochs=2, steps=10, epoch=1, step=0)
            bars.step(1, 5, 1.25, 0.5)
            bars.epoch(row(1, 0.4321, 0.5))
            bars.step(2, 5, 1.25, 0.5)
            bars.epoch(row(2, 0.75, 0.5))
            bars.end()
            bars.run_done()
    shown = screen.getvalue()
    assert "all runs" in shown
    assert "second" in shown
    assert "100%" in shown
    assert "validation 75.00%" in shown


def error_row(epoch, validation, test, metric):
    return Epoch(epoch, 5 * epoch, 0.5, 0.5, validation, validation, test, test, 1.0, metric)


def test_lower_errors_are_better():
    history = [error_row(n, *values, MSE) for n, values in enumerate([(9, 7), (4, 8), (4, 6), (5, 5)], 1)]
    assert best_validation_epoch(history).epoch == 2
    assert best_test_epoch(history).epoch == 4
    # No loss is better than none at all.
    assert best_validation_epoch([error_row(1, 0.0, 1.0, LOSS), error_row(2, 1.0, 1.0, LOSS)]).epoch == 1


@pytest.mark.parametrize("metric", [MSE, LOSS])
def test_metrics_of_other_names_are_read_as_written(tmp_path, metric):
    history = (error_row(1, 2.5, 1 / 3, metric), error_row(2, 2.0, 0.25, metric))
    write_metrics(tmp_path / "metrics.csv", history)
    assert read_metrics(tmp_path / "metrics.csv") == history
    with pytest.raises(AttributeError, match="has no accuracy"):
        print(history[0].test_accuracy)


def test_time_left_and_the_metric_are_told():
    now, lines = [0.0], []
    told = Lines(lines.append, clock=lambda: now[0])
    told.begin("run", epochs=3, steps=10, epoch=2, step=0, metric=MSE)
    now[0] = 100.0
    told.step(2, 5, 1.25, 1.5)
    now[0] = 200.0
    told.epoch(error_row(2, 2.5, 3.5, MSE))
    assert lines == [
        "run: going on in epoch 2 of 3 after step 0 of 10",
        "run: epoch 2/3 step 5/10 loss 1.2500 mse 1.5000, 5 min 0 s left",
        "run: epoch 2/3 loss 0.5000 train 0.5000 validation 2.5000 test 3.5000 (1.0 s), 3 min 20 s left",
    ]
    assert describe(error_row(1, 2.5, 3.5, LOSS)) == "loss 0.5000 validation 2.5000 test 3.5000 (1.0 s)"


def test_bars_show_the_metric():
    screen = io.StringIO()
    # What stands when the bars are closed is drawn in any case.
    with Bars(Console(file=screen, force_terminal=True, width=140)) as bars:
        bars.begin("run", epochs=2, steps=10, epoch=1, step=0, metric=MSE)
        bars.epoch(error_row(1, 2.5, 3.5, MSE))
        bars.step(2, 5, 1.25, 9.75)
    assert "epoch 2/2 step 5/10 loss 1.2500 mse 9.7500 validation 2.5000" in screen.getvalue()


def test_a_line_is_in_the_log_at_once(monkeypatch):
    written = []
    monkeypatch.setattr("builtins.print", lambda *words, **options: written.append(options))
    Lines().begin("run", epochs=3, steps=10, epoch=2, step=4)
    assert written == [{"flush": True}]
