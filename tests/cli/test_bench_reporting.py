"""What is shown: tables, the page, plots."""

import dataclasses
import io
import math
import xml.etree.ElementTree as ElementTree

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from momentumrnn.cli.benchmarking import measure
from momentumrnn.cli.benchmarking.contestants import BASELINES, CONTESTANTS, find_contestants
from momentumrnn.cli.benchmarking.measurement import Measurement, to_frame, without_repetition
from momentumrnn.cli.benchmarking.memory import UnmeasuredError
from momentumrnn.cli.benchmarking.options import check_options
from momentumrnn.cli.benchmarking.plots import figures, write_plots
from momentumrnn.cli.benchmarking.progress import Watcher
from momentumrnn.cli.benchmarking.report import to_page
from momentumrnn.cli.benchmarking.shapes import DEFAULT, Shape
from momentumrnn.cli.benchmarking.table import grids, print_tables, to_markdown
from momentumrnn.cli.benchmarking.tasks import Task

SHAPE, OTHER = Shape(784, 128, 1, 128), Shape(64, 64, 1, 256)


def timed(name, ratio, shape=SHAPE, quantity="train", along="", seconds=1.5):
    baseline = CONTESTANTS[name].baseline if name in CONTESTANTS else name
    low, high = (ratio * 0.9, ratio * 1.2)
    return Measurement(quantity, shape, name, baseline, "cpu", 11, ratio * seconds, ratio, low, high, along)


@pytest.fixture
def options():
    return check_options(models=("LSTM", "reference-loop", "MomentumGRU"))


@pytest.fixture
def measured():
    return [
        timed("nn.LSTM", 1.0),
        timed("LSTM", 0.75),
        timed("nn.GRU", 1.0, seconds=0.0123),
        timed("MomentumGRU", 0.9),
        timed("nn.LSTM", 1.0, OTHER, seconds=2e-5),
        timed("LSTM", 0.8, OTHER),
        timed("reference-loop", 12.34, OTHER),
    ]


def test_markdown(measured, options):
    (grid,) = grids(measured, options.contestants, spread=True)
    assert to_markdown(grid).splitlines() == [
        "## Time of a training step: forward and backward",
        "",
        "|  | T 784, B 128, d 1, h 128 | T 64, B 64, d 1, h 256 |",
        "|---|---:|---:|",
        "| nn.LSTM | 1.50 s | 20.0 µs |",
        "| LSTM | 0.75 (0.68–0.90) | 0.80 (0.72–0.96) |",
        "| reference-loop | – | 12.3 (11.1–14.8) |",
        "| nn.GRU | 12.3 ms | – |",
        "| MomentumGRU | 0.90 (0.81–1.08) | – |",
    ]


def test_a_sweep_has_a_table_of_its_own(options):
    rows = [timed(name, 1.0, Shape(T, 8, 1, 9), along="T") for T in (10, 20) for name in ("nn.LSTM", "LSTM")]
    (grid,) = grids(rows, options.contestants, spread=False)
    assert grid.title == "Time of a training step: forward and backward, along T; B 8, d 1, h 9"
    assert grid.headings == [["T 10"], ["T 20"]]


def test_memory_and_steps():
    memory = dataclasses.replace(timed("nn.LSTM", 1.0, quantity="memory"), value=52.6e6)
    step = Measurement("step", Shape(1, 1, 1, 256), "LSTMCell", "nn.LSTMCell", "", 5, 9.8e-6, 1.1, 1.0, 1.2)
    first, second = grids([memory, step], [], spread=True)
    assert first.rows == [("nn.LSTM", "52.6 MB")]
    assert second.rows == [("LSTMCell", "9.80 µs", "1.10 (1.00–1.20)")]


@pytest.mark.parametrize("quantity", ["train", "memory"])
def test_the_usual_shapes_fit_a_terminal_of_80_columns(capsys, quantity):
    rows = [
        dataclasses.replace(
            timed(name, 23.4, shape, quantity=quantity), value=0.0123 if quantity == "train" else 1.234e9
        )
        for shape in DEFAULT
        for name in ("nn.LSTM", "reference-loop", "torchrecurrent")
    ]
    print_tables(rows, find_contestants(["reference-loop", "torchrecurrent"]), Console(width=80))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.count("T 784") == 3
    assert shown.count("Time of" if quantity == "train" else "Peak memory") == 1
    assert "h 1150" in shown


def test_more_shapes_than_fit_go_into_more_tables(capsys):
    shapes = [Shape(T, 128, 1, 128) for T in range(1000, 1012)]
    print_tables([timed("nn.LSTM", 1.0, shape, seconds=0.0123) for shape in shapes], [], Console(width=80))
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert shown.count("12.3 ms") == len(shapes)
    assert shown.count("Time of a training step") == 2


def test_what_is_not_installed_is_said_to_be(measured, capsys):
    absent = dataclasses.replace(CONTESTANTS["torchrecurrent"], package="no_such_package")
    options = dataclasses.replace(check_options(), contestants=(CONTESTANTS["LSTM"], absent))
    page = to_page(measured, options, {})
    assert "| torchrecurrent (not installed) | – | – |" in page
    assert "torchrecurrent is not installed: pip install no_such_package" in page
    assert not options.takes_part(absent, OTHER)


def test_the_page_says_how_it_was_measured(measured, options):
    failed = Measurement("memory", SHAPE, "LSTM", "nn.LSTM", note="not measured: no room")
    page = to_page([*measured, failed], options, {"processor": "an abacus"})
    for told in (
        "- processor: an abacus",
        "- repeats: 11",
        "the quartiles",
        "reference-loop left out where T·B > 10,000",
        "Backends: LSTM on cpu; MomentumGRU on cpu; reference-loop on cpu.",
        "- not measured: no room",
    ):
        assert told in page


def test_memory_without_a_number(monkeypatch):
    def peak_memory(contestant, shape, **settings):
        if contestant.name == "LSTM":
            raise UnmeasuredError("no room")
        return 100

    monkeypatch.setattr(measure, "peak_memory", peak_memory)
    sides, told = [BASELINES["nn.LSTM"], *find_contestants(["LSTM", "SRLSTM"])], []
    rows = measure.measure_memory(SHAPE, sides, lambda: told.append(1), device="cpu", threads=None, isa=None)
    assert [row.note for row in rows] == ["", "not measured: no room", ""]
    assert [row.ratio for row in rows] == pytest.approx([1, math.nan, 1], nan_ok=True)
    assert len(told) == 3
    (grid,) = grids(rows, sides[1:], spread=True)
    assert grid.rows[1] == ("LSTM", "–")


def test_a_baseline_that_ran_in_two_groups_counts_once():
    rows = without_repetition([timed("nn.LSTM", 1.0), timed("LSTM", 0.5), timed("nn.LSTM", 2.0)])
    assert [(row.contestant, row.ratio) for row in rows] == [("nn.LSTM", 1.0), ("LSTM", 0.5)]
    frame = to_frame(rows)
    assert list(frame["h"]) == [128, 128]
    assert list(frame["unit"]) == ["seconds", "seconds"]


def test_ratios_are_drawn_where_they_are(measured):
    ((name, figure),) = figures(measured)
    assert name == "train"
    lstm, gru = figure.axes
    assert (lstm.get_xlabel(), gru.get_xlabel()) == ("ratio to nn.LSTM", "ratio to nn.GRU")
    assert lstm.get_xscale() == "log"
    dots = {container.get_label(): container.lines[0] for container in lstm.containers}
    assert list(dots["LSTM"].get_xdata()) == [0.75, 0.8]
    assert list(dots["reference-loop"].get_xdata()) == [12.34]
    # Each in the band of its shape, and none on another.
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in dots.values()])
    assert len(set(heights)) == 3
    assert list(np.round(heights)) == [0, 1, 1]
    assert any(list(line.get_xdata()) == [1.0, 1.0] for line in lstm.lines)
    assert {text.get_text() for text in lstm.texts} == {"0.75", "0.80", "12.3"}
    low, high = lstm.get_xlim()
    assert low < 0.75 * 0.9
    assert high > 12.34 * 1.2
    assert len({line.get_color() for line in dots.values()}) == 2


def test_a_sweep_is_drawn_along_its_axis():
    rows = [
        timed(name, 1.0 if name == "nn.LSTM" else T / 10, Shape(T, 8, 1, 9), along="T", seconds=T * 1e-6)
        for T in (20, 10)
        for name in ("nn.LSTM", "LSTM")
    ]
    ((name, figure),) = figures(rows)
    assert name == "sweep-T"
    left, right = figure.axes
    ratios = {line.get_label(): line for line in left.lines}
    assert list(ratios["LSTM"].get_xdata()) == [10, 20]
    assert list(ratios["LSTM"].get_ydata()) == [1.0, 2.0]
    assert "nn.LSTM" not in ratios
    a_step = {line.get_label(): list(line.get_ydata()) for line in right.lines}
    assert a_step["nn.LSTM"] == pytest.approx([1, 1])
    assert a_step["LSTM"] == pytest.approx([1, 2])


def test_plots_are_written_and_nothing_beside_them(measured, tmp_path):
    files = write_plots(measured, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert matplotlib.image.imread(files[0]).std() > 0
    assert ElementTree.parse(files[1]).getroot().tag.endswith("svg")


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_ends_full(capsys, terminal):
    tasks = [
        Task("train 6x2x1x4 nn.LSTM, LSTM", 3, 5.0, lambda told: []),
        Task("second", 2, 0.5, lambda told: []),
    ]
    shown = io.StringIO()
    with Watcher(tasks, Console(file=shown, force_terminal=terminal, width=80)) as watcher:
        for task in tasks:
            told = watcher.begin(task)
            for _ in range(task.turns):
                told()
    if terminal:
        assert "100%" in shown.getvalue()
        assert "second" in shown.getvalue()
    else:
        assert capsys.readouterr().out == "1/2 train 6x2x1x4 nn.LSTM, LSTM\n2/2 second\n"


def test_nothing_but_baselines_draws_nothing():
    assert list(figures([timed("nn.LSTM", 1.0)])) == []


def test_a_terminal_that_is_wide_enough_shows_the_quartiles(measured, options, capsys):
    print_tables(measured, options.contestants, Console(width=80))
    assert "0.75 (0.68–0.90)" in capsys.readouterr().out
    print_tables(measured, options.contestants, Console(width=40))
    shown = capsys.readouterr().out
    assert "0.75" in shown
    assert "–0.90" not in shown
