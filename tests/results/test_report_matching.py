import dataclasses
from pathlib import Path

import pytest
from made_runs import VERSIONS, history, write_cost, write_plan, write_run

from momentumrnn.errors import CheckpointError
from momentumrnn.results import build_report, default_out, find_runs
from momentumrnn.results.match import Setting, experiments_to_show, match_runs
from momentumrnn.results.report import _tag
from momentumrnn.results.runs import setting_of
from momentumrnn.tasks.contract import ACCURACY
from momentumrnn.training import load_recipe
from momentumrnn.training.experiments import Row
from momentumrnn.training.plan import Plan
from momentumrnn.training.run_folder import RunFolder

MNIST = load_recipe("mnist-lstm-128").override(["training.epochs=2"])


def epochs(*values):
    return history(ACCURACY, values)


def names(report):
    return [section.name for section in report.sections]


def rows_of(report, section, panel=0):
    (found,) = (each for each in report.sections if each.name == section)
    return {row.row.name if row.row else row.label: row for row in found.results[panel].rows}


def test_runs_are_found_however_deep_and_once(tmp_path):
    write_run(tmp_path / "deep" / "deeper" / "a", MNIST, epochs(90, 91))
    write_run(tmp_path / "b", MNIST.override(["training.seed=1"]), ())
    (tmp_path / "b" / "checkpoints").mkdir()
    write_run(tmp_path / ".trash" / "c", MNIST.override(["training.seed=2"]), ())
    (tmp_path / "notes.txt").write_text("")
    found = find_runs([tmp_path, tmp_path / "b", tmp_path / "notes.txt"])
    assert sorted(run.folder.name for run in found.runs) == ["a", "b"]
    assert found.runs[0].starts[0]["torch"] == VERSIONS["torch"]
    assert default_out([tmp_path]) == default_out([tmp_path / "b"]) == tmp_path / "report"


def test_where_nothing_is(tmp_path):
    with pytest.raises(CheckpointError, match=r"elsewhere: there is no such folder; a run folder is what"):
        find_runs([tmp_path / "elsewhere"])
    with pytest.raises(CheckpointError, match=r"found none; a run folder is .* it holds recipe\.toml"):
        find_runs([tmp_path])
    (tmp_path / "metrics.csv").write_text("epoch\n")
    with pytest.raises(CheckpointError, match=r"it holds metrics\.csv, but no recipe\.toml"):
        find_runs([tmp_path])


def test_what_is_damaged_is_left_out_with_its_name(tmp_path):
    for name in ("sound", "metrics", "recipe"):
        write_run(tmp_path / name, MNIST, epochs(90, 91))
    (tmp_path / "metrics" / "metrics.csv").write_text("epoch,step\n1,nonsense\n")
    write_run(tmp_path / "long", MNIST, epochs(90, 91))
    (tmp_path / "long" / "metrics.csv").write_text("x" * 200_000)
    (tmp_path / "recipe" / "recipe.toml").write_text("[data]\nname = 'mnist'\n")
    (tmp_path / "plan.toml").write_text("[plan]\nseeds = 'many'\n")
    found = find_runs([tmp_path])
    assert [run.folder.name for run in found.runs] == ["sound"]
    told = " | ".join(found.warnings)
    assert "metrics is left out" in told
    assert "recipe.toml: missing section model" in told
    assert "plan.toml is damaged" in told
    assert [run.folder.name for run in build_report(found).runs] == ["sound"]


def test_a_run_without_a_plan_is_known_by_its_recipe(tmp_path):
    row = load_recipe("mnist-lstm-128").override(["training.seed=7", "training.checkpoint_seconds=5"])
    # What the paper says of it may have been corrected since.
    row = dataclasses.replace(row, published=load_recipe("mnist-lstm-256").published)
    write_run(tmp_path / "mine", row, epochs(97.0))
    write_run(tmp_path / "shorter", MNIST, epochs(95.0))
    report = build_report(find_runs([tmp_path]))
    assert names(report) == ["table1", "other"]
    rows = rows_of(report, "table1")
    assert [run.seed for run in rows["mnist-lstm-128"].runs] == [7]
    assert rows["mnist-lstm-128"].recipe.published.test_accuracy == (98.7, 97.3)
    assert not rows["mnist-lstm-256"].runs
    (other,) = rows_of(report, "other").values()
    assert other.runs[0].folder.name == "shorter"


def test_a_plan_shows_what_was_not_run(tmp_path):
    plan = Plan(("fig3",), seeds=3, overrides=("training.epochs=2",))
    write_plan(tmp_path, plan, skip=("timit", "seed-2"))
    report = build_report(find_runs([tmp_path]))
    assert names(report) == ["fig3"]
    assert report.sections[0].title.endswith("with training.epochs=2")
    lstm = rows_of(report, "fig3")["mnist-lstm-256"]
    assert (len(lstm.runs), lstm.planned, lstm.show_seeds()) == (2, 3, "2 of 3")
    assert not any(row.runs for row in rows_of(report, "fig3", panel=1).values())
    # A single run brings the plan beside it.
    single = build_report(find_runs([tmp_path / "mnist-lstm-256-seed-0"]))
    assert names(single) == ["fig3"]
    assert len(rows_of(single, "fig3")["mnist-lstm-256"].runs) == 1


def test_a_plan_without_runs_is_shown(tmp_path):
    Plan(("table4",)).save(tmp_path)
    report = build_report(find_runs([tmp_path]))
    assert names(report) == ["table4"]
    assert not report.runs


def test_the_name_of_a_row_is_not_enough(tmp_path):
    Plan(("fig3",), seeds=1).save(tmp_path)
    write_run(tmp_path / "mnist-lstm-256-seed-0", load_recipe("mnist-lstm-128"), epochs(97.0))
    report = build_report(find_runs([tmp_path]))
    assert not rows_of(report, "fig3")["mnist-lstm-256"].runs
    assert rows_of(report, "table1")["mnist-lstm-128"].runs
    assert any("has the name of a planned run, but another recipe" in told for told in report.warnings)


def test_shrunk_runs_stand_apart_from_results(tmp_path):
    write_plan(tmp_path / "smoke", Plan(("fig3",), seeds=1, smoke=True))
    write_plan(tmp_path / "real", Plan(("fig3",), seeds=1), skip=("mnist",))
    report = build_report(find_runs([tmp_path]))
    real, smoke = report.sections
    assert smoke.title.startswith("SMOKE TEST, NO RESULTS")
    assert "SMOKE" not in real.title
    # Shrunk, both sizes are the same recipe, and each has its own run.
    assert [row.runs[0].folder.name for row in smoke.results[0].rows] == [
        "mnist-lstm-256-seed-0",
        "mnist-momentum-lstm-256-seed-0",
    ]
    assert not any(row.runs for row in real.results[0].rows)
    assert all(len(row.runs) == 1 for row in real.results[1].rows)


def test_only_what_is_asked_for(tmp_path):
    write_plan(tmp_path, Plan(("fig3", "table5"), seeds=1, overrides=("training.epochs=2",)))
    report = build_report(find_runs([tmp_path]), ["table1", "fig6", "table2"])
    # Its runs are rows of Table 1 as well; the timit ones of Table 2; none is of Table 4.
    assert set(names(report)) == {"table1", "table2", "fig6"}
    assert rows_of(report, "table1")["mnist-lstm-256"].runs
    assert any("4 of 8 runs are not shown" in told for told in report.warnings)
    (table4,) = build_report(find_runs([tmp_path]), ["table4"]).sections
    assert table4.setting == Setting()


def test_a_cell_of_a_grid_may_be_a_row_of_a_table(tmp_path):
    write_run(tmp_path / "a", load_recipe("mnist-momentum-lstm-256"), epochs(97.0))
    matched = match_runs(find_runs([tmp_path]))
    (placed,) = matched.placed
    cell = Row("mnist-momentum-lstm-256", ("rule.momentum=0.6", "rule.step_size=0.6"))
    assert [run.folder.name for run in placed.runs_of(cell, cell.load())] == ["a"]
    assert {name for _, name in experiments_to_show(matched, [])} >= {"table1", "fig3"}


def test_the_same_run_twice_is_one_seed_outside_of_tables_too(tmp_path):
    own = load_recipe("digits-lstm").override(["optimizer.lr=0.123"])
    for name, measured in (("a", epochs(90.0)), ("b", epochs(90.0, 91.0)), ("c", epochs(90.0))):
        write_run(tmp_path / name, own, measured)
    matched = match_runs(find_runs([tmp_path]))
    assert [run.folder.name for run in matched.others] == ["b"]
    assert sum("is the same run, seed 0" in told for told in matched.warnings) == 2


def test_a_report_from_inside_a_run_goes_beside_it(tmp_path, monkeypatch):
    write_run(tmp_path / "a", load_recipe("digits-lstm"), epochs(90.0))
    monkeypatch.chdir(tmp_path / "a")
    assert default_out([Path()]) == tmp_path / "report"


def test_of_the_same_run_twice_the_longer_one_counts(tmp_path):
    row = load_recipe("mnist-lstm-128")
    write_run(tmp_path / "a" / "x", row, epochs(90.0))
    write_run(tmp_path / "b" / "x", row, epochs(90.0, 91.0))
    report = build_report(find_runs([tmp_path]))
    (run,) = rows_of(report, "table1")["mnist-lstm-128"].runs
    assert run.folder == tmp_path / "b" / "x"
    assert any("is the same run, seed 0, with 2 epochs beside 1" in told for told in report.warnings)


def test_what_a_reader_is_warned_of(tmp_path):
    write_run(tmp_path / "a", MNIST, epochs(90.0, 91.0))
    write_run(
        tmp_path / "b", MNIST.override(["training.seed=1"]), epochs(90.0), {**VERSIONS, "torch": "2.11"}
    )
    write_run(tmp_path / "c", MNIST.override(["training.seed=2"]), epochs(90.0, float("nan")), None)
    write_run(tmp_path / "d", MNIST.override(["training.seed=3"]), epochs(90.0))
    RunFolder(tmp_path / "d").mark_diverged("the loss is not finite at step 7 of epoch 2")
    told = build_report(find_runs([tmp_path])).warnings
    assert "1 of 4 runs are not finished: b (1 of 2 epochs)" in told
    assert "c has diverged: not every number of epoch 2 is finite" in told
    assert "d has diverged: the loss is not finite at step 7 of epoch 2" in told
    assert "runs differ in torch: 2.13.0+cpu (2 runs), 2.11 (1 run)" in told
    assert "what they were made with is not known of c" in told
    assert not any("threads" in each for each in told)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ("training.seed=5", True),
        ("training.checkpoint_seconds=7", True),
        ("training.epochs=3", False),
        ("model.dropout=0.4", False),
        ("rule.step_size=0.5", False),
        ("language.output_dropout=0.3", False),
        ("optimizer.lr=2", False),
        ("data.vocabulary=5", False),
    ],
)
def test_runs_are_of_one_setting_where_their_numbers_are_comparable(change, same):
    text = ["data.name=text", "data.folder=a", "data.vocabulary=9"]
    recipe = load_recipe("ptb-small-momentum-lstm-200").override(text)
    assert (setting_of(recipe) == setting_of(recipe.override([change]))) == same


def test_seeds_are_planned_for_the_rows_of_a_plan_alone(tmp_path):
    Plan(("table1",), seeds=5, only=("mnist-lstm",)).save(tmp_path)
    (tmp_path / "other").mkdir()
    Plan(("fig6",), seeds=1).save(tmp_path / "other")
    report = build_report(find_runs([tmp_path]))
    assert rows_of(report, "table1")["mnist-lstm-128"].planned == 5
    assert rows_of(report, "table1")["mnist-momentum-lstm-256"].planned is None
    assert {row.planned for row in rows_of(report, "fig6").values()} == {1}


def test_names_of_plots_are_short_and_tell_changes_apart():
    many = tuple(f"training.epochs={number}" for number in range(100))
    assert len("-".join(_tag(Setting(many, smoke=True)))) < 60
    assert _tag(Setting(("rule.step_size=1",))) != _tag(Setting(("rule.step_size=-1",)))


def test_measurements_without_runs_are_shown(tmp_path):
    write_cost(tmp_path)
    report = build_report(find_runs([tmp_path]))
    assert names(report) == ["cost"]
    (tmp_path / "cost.csv").write_text("panel,row\nx,y\n")
    report = build_report(find_runs([tmp_path]))
    assert any("cost.csv: expected the columns panel, row, train_seconds" in told for told in report.warnings)


def test_runs_on_other_data_are_no_rows_of_one_table(tmp_path):
    """Errors of words out of two vocabularies, or of other examples, cannot be compared."""
    changes = ((), ("data.subset=64",), ("data.validation=0",))
    for number, change in enumerate(changes):
        for name in ("mnist-lstm-128", "mnist-momentum-lstm-128"):
            recipe = load_recipe(name).override([*change, "training.epochs=2"])
            write_run(tmp_path / f"{name}-{number}", recipe, epochs(90, 91))
    (section,) = build_report(find_runs([tmp_path])).sections
    titles = [result.title for result in section.results]
    assert sorted(titles) == [
        "mnist, 0 held out",
        "mnist, 5,000 held out",
        "mnist, 64 sequences of each part",
    ]
    labels = [[row.label for row in result.rows] for result in section.results]
    assert labels == [["LSTM", "MomentumLSTM"]] * 3


def test_runs_without_a_plan_bring_no_empty_tables():
    runs = Path(__file__).parents[2] / "docs" / "runs" / "adding-750"
    found = find_runs([runs])
    (section,) = build_report(found).sections
    assert [part.title for part in section.parts] == ["Adding, T = 750"]
    # Asked for by its name, a table is shown with what is missing.
    (section,) = build_report(found, ["response"]).sections
    assert len(section.parts) == 4
