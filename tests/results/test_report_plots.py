import numpy as np
import pytest
import torch
from made_runs import history, write_cost, write_plan, write_run
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from momentumrnn.analysis import GradientHistory
from momentumrnn.data.adding import draw_adding
from momentumrnn.results import build_report, find_runs
from momentumrnn.results.gradient_records import gradient_file
from momentumrnn.results.plots import look, render
from momentumrnn.tasks.contract import LOSS
from momentumrnn.training import load_recipe
from momentumrnn.training.experiments import load_experiment
from momentumrnn.training.plan import Plan


def drawings(folder, experiments=()):
    report = build_report(find_runs([folder]), experiments)
    return {
        drawing.name: drawing
        for section in report.sections
        for part in section.parts
        for drawing in part.drawings
    }


def texts(axes):
    return [text.get_text() for text in axes.texts]


def add(folder, name, seed, losses, metric=LOSS, **more):
    recipe = load_recipe(name).override([f"training.seed={seed}"])
    write_run(folder / f"{name}-{seed}", recipe, history(metric, losses, **more))


def adding(folder, losses):
    for seed, values in enumerate(losses):
        add(folder, "adding-100-lstm-128", seed, values, train_loss=values)
    return drawings(folder, ["small"])["small-adding-t-100-curves"]


def test_training_at_the_left_test_at_the_right(tmp_path):
    drawing = adding(tmp_path, [[0.2, 0.1], [0.4, 0.2]])
    left, right = drawing.figure.axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("training loss", "test loss")
    test = draw_adding(1024, 100, (0, 0, 2))[1].double()
    # Each epoch of training draws other sequences; the test is always the same.
    for axes, value in ((left, 1 / 6), (right, (test - 1).square().mean())):
        curve, baseline = axes.lines
        np.testing.assert_allclose(baseline.get_ydata(), value)
        np.testing.assert_allclose(curve.get_ydata(), [0.3, 0.15])
        assert curve.get_label() == "LSTM (2 of 20)"
        assert baseline.get_label() == "always saying 1"
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert band.max() == pytest.approx(0.3 + np.std([0.2, 0.4], ddof=1))
        # Not 0.15 less the deviation: no lower than the lowest seed.
        assert band.min() == pytest.approx(0.1)
        assert axes.get_yscale() == "linear"
    assert "mean of 2 seeds" in drawing.figure.get_suptitle()
    assert "Not run: MomentumLSTM, AdamLSTM" in drawing.text


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_dollar_is_no_mathematics(tmp_path, suffix):
    add(tmp_path, "adding-100-adam-lstm-128", 0, [0.2, 1e-4], train_loss=[0.2, 1e-4])
    figure = adding(tmp_path, [[0.2, 0.1], [0.4, 0.2]]).figure
    figure.suptitle("txt$_$ and cost \\$5$")
    # Twice: the names at a logarithmic axis are mathematics, and made by then.
    drawn = [render(figure, suffix) for _ in range(2)]
    assert len(drawn[0]) == pytest.approx(len(drawn[1]), rel=0.01)
    assert figure.get_suptitle() == r"txt\$_\$ and cost \$5\$"


def test_the_title_says_that_models_have_unequal_numbers_of_seeds(tmp_path):
    add(tmp_path, "adding-100-adam-lstm-128", 0, [0.2, 0.1], train_loss=[0.2, 0.1])
    assert "mean of 1 to 2 seeds" in adding(tmp_path, [[0.2, 0.1], [0.4, 0.2]]).figure.get_suptitle()


def test_losses_that_span_decades_are_on_a_logarithmic_axis(tmp_path):
    left, right = adding(tmp_path, [[1.0, 0.1, 0.001], [1.0, 0.1, 0.0]]).figure.axes
    assert left.get_yscale() == right.get_yscale() == "log"
    # The band of the last epoch reaches zero; the axis ends near the lowest mean.
    assert left.get_ylim()[0] == pytest.approx(0.0005 / 2)


def test_accuracy_has_a_panel_beside_the_losses(tmp_path):
    plan = Plan(("fig3",), seeds=2, overrides=("training.epochs=3",))
    write_plan(tmp_path, plan)
    made = drawings(tmp_path)
    mnist, timit = made.values()
    assert [axes.get_ylabel() for axes in mnist.figure.axes] == [
        "training loss",
        "test loss",
        "test accuracy, %",
    ]
    assert [axes.get_ylabel() for axes in timit.figure.axes] == ["training loss", "test loss"]
    assert {line.get_label() for line in mnist.figure.axes[0].lines} == {"LSTM", "MomentumLSTM"}


def test_a_model_keeps_its_colour_when_another_was_not_run(tmp_path):
    add(tmp_path, "adding-100-momentum-lstm-128", 0, [0.2])
    axes = drawings(tmp_path)["small-adding-t-100-curves"].figure.axes[0]
    assert axes.lines[0].get_color() == look(1)[0]
    # A single epoch has no line.
    assert axes.lines[0].get_marker() == "o"
    looks = [look(index) for index in range(49)]
    assert len(set(map(str, looks))) == 49


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    plan = Plan(("fig6",), seeds=1, overrides=("training.epochs=2",))
    write_plan(folder, plan, skip=("momentum-0.99", "timit"), unfinished=("momentum-0.3-step_size-0.9",))
    # One setting that learns nothing.
    spoilt = folder / "mnist-momentum-lstm-256-momentum-0.0-step_size-0.1-seed-0" / "metrics.csv"
    lines = spoilt.read_text().splitlines()
    for number in (1, 2):
        cells = lines[number].split(",")
        cells[lines[0].split(",").index("test_accuracy")] = "0.1"
        lines[number] = ",".join(cells)
    spoilt.write_text("\n".join(lines) + "\n")
    (name,) = [name for name in drawings(folder) if "mnist-n-256-grid" in name]
    assert name.startswith("fig6-training.epochs-2-")
    return drawings(folder)[name]


def test_every_cell_of_a_grid_says_its_value(grid):
    axes = grid.figure.axes[0]
    told = texts(axes)
    assert len(told) == 25
    assert told.count("not run") == 5
    assert told[0] == "10.00"
    assert told[8].endswith("*\n1 of 2")
    hatched = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_hatch()]
    assert {patch.get_y() for patch in hatched} == {4}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "0.3", "0.6", "0.9", "1"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("s", "μ")
    assert "Not run: 5 of 25 cells" in grid.text


def test_a_setting_that_learns_nothing_does_not_take_all_colours(grid):
    (mesh,) = (each for each in grid.figure.axes[0].collections if each.get_array() is not None)
    values = mesh.get_array().compressed()
    assert mesh.norm.vmax == pytest.approx(values.max())
    assert values.min() < 11
    assert mesh.norm.vmin > 20
    assert "higher is better" in grid.figure.axes[1].get_ylabel()


def test_a_dot_where_the_target_is_reached(tmp_path):
    add(
        tmp_path,
        "pmnist-lstm-256",
        0,
        [90.0, 92.3, 95.0],
        load_recipe("pmnist-lstm-256").task().metric,
        seconds=120,
    )
    (axes,) = drawings(tmp_path, ["response"])["response-time-to-92.29-on-pmnist-n-256-time"].figure.axes
    course, dot, target = axes.lines
    np.testing.assert_allclose(course.get_xdata(), [2, 4, 6])
    np.testing.assert_allclose(course.get_ydata(), [90, 92.3, 95])
    np.testing.assert_allclose([dot.get_xdata()[0], dot.get_ydata()[0]], [4, 92.3])
    np.testing.assert_allclose(target.get_ydata(), 92.29)


def test_bars_are_relative_to_the_first_row(tmp_path):
    write_cost(tmp_path, skip=("mnist-sr-lstm-256",))
    made = drawings(tmp_path)
    mnist, timit = made["cost-mnist-n-256"].figure, made["cost-timit-n-158"].figure
    time, memory = mnist.axes
    assert time.get_xlabel() == "time of a step, relative to LSTM"
    assert [bar.get_width() for bar in time.patches[:4]] == pytest.approx([1, 1.13, 1.26, 1.39])
    assert texts(time).count("not measured") == 2
    assert "memory" in memory.get_xlabel()
    assert len(timit.axes) == 1


def test_gradients_that_were_drawn_are_taken_over(tmp_path):
    Plan(("fig2",)).save(tmp_path)
    (tmp_path / "gradients").mkdir()
    rows = [row.name for panel in load_experiment("fig2").panels for row in panel.all_rows()]
    for row, last in zip(rows, (300, 120), strict=False):
        norms = GradientHistory(10, iterations=[0, last], norms=[torch.ones(5).double()] * 2)
        norms.save(gradient_file(tmp_path, row))
    gradient_file(tmp_path, rows[2]).write_bytes(b"none")
    figure = Figure()
    figure.savefig(tmp_path / "fig2.png")
    report = build_report(find_runs([tmp_path]))
    (part,) = report.sections[0].parts
    assert [cells[1] for cells in part.tables[0].rows] == ["recorded", "120 of 300 steps", "not run"]
    assert any(rows[2] in told for told in report.warnings)
    (drawing,) = part.drawings
    assert drawing.content("png") == (tmp_path / "fig2.png").read_bytes()
