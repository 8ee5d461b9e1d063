import dataclasses
import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from made_runs import history, write_cost, write_plan, write_run
from rich.console import Console

from momentumrnn.results import build_report, find_runs, print_table, to_markdown, write_report
from momentumrnn.results.latex import escape_latex, to_latex
from momentumrnn.results.numbers import show_number
from momentumrnn.results.quantities import quantities_of
from momentumrnn.results.records import to_records
from momentumrnn.results.runs import RunRecord
from momentumrnn.results.table import Table
from momentumrnn.results.time_to_target import minutes_to
from momentumrnn.tasks.contract import ACCURACY, LOSS, MSE, Metric
from momentumrnn.training import load_recipe
from momentumrnn.training.plan import Plan
from momentumrnn.training.sections import PublishedSection


def write_seeds(folder, name, seeds, changes=()):
    """``seeds``: seed → (test metrics as they are shown, held-out ones)."""
    metric = load_recipe(name).task().metric
    for seed, (test, validation) in seeds.items():
        recipe = load_recipe(name).override([*changes, f"training.seed={seed}"])
        write_run(folder / f"{name}-{seed}", recipe, history(metric, test, validation=validation))


def tables(folder, experiments=()):
    report = build_report(find_runs([folder]), experiments)
    return [table for section in report.sections for part in section.parts for table in part.tables]


def row(table, label):
    (found,) = (cells for cells in table.rows if cells[0] == label)
    return found


@pytest.fixture
def mnist(tmp_path):
    """Of 150 epochs, as many as are needed: the others repeat the first."""
    test = {0: [99.0, 98.0], 1: [98.5, 98.9]}
    validation = {0: [97.0, 98.0], 1: [97.0, 98.0]}
    seeds = {
        seed: ([test[seed][0]] * 149 + [test[seed][1]], [validation[seed][0]] * 149 + [98.0]) for seed in test
    }
    write_seeds(tmp_path, "mnist-lstm-128", seeds)
    write_seeds(tmp_path, "mnist-adam-lstm-256", {0: ([98.0] * 12, [98.0] * 12)})
    write_seeds(tmp_path, "mnist-rmsprop-lstm-256", {0: ([99.2] * 150, [99.2] * 150), 1: ([50.0], [50.0])})
    write_seeds(tmp_path, "mnist-sr-lstm-256", {0: ([], [])})
    return tmp_path


def test_both_protocols_beside_the_paper(mnist):
    table = tables(mnist, ["table1"])[0]
    headings = [heading.replace("\n", " ") for heading in table.headings]
    assert headings == [
        "model",
        "seeds",
        "best test accuracy, %",
        "paper",
        "ours − paper's",
        "test accuracy, %",
        "epochs",
    ]
    # Best over epochs: 99.0 and 98.9; at the best validation epoch, the last: 98.0 and 98.9.
    assert row(table, "LSTM 128") == (
        "LSTM 128",
        "2",
        "98.95 ± 0.07",
        "98.70\n97.30",
        "+0.25\n+1.65",
        "98.45 ± 0.64",
        "150",
    )
    adam = row(table, "AdamLSTM 256")
    assert adam[1:] == ("1", "98.00*", "99.09 ± 0.03", "−1.09", "98.00*", "12 of 150")
    # The unfinished seed does not count beside the finished one.
    assert row(table, "RMSPropLSTM 256")[1:] == (
        "1",
        "99.20",
        "99.15 ± 0.06",
        "+0.05",
        "99.20",
        "150\n1 of 150",
    )
    assert row(table, "SRLSTM 256")[1:] == ("0", "nothing yet", "99.01 ± 0.07", "–", "–", "0 of 150")
    assert row(table, "MomentumLSTM 128")[1:] == ("0", "not run", "99.04 ± 0.04", "–", "–", "–")
    notes = " ".join(table.notes)
    assert "over 1 to 2 seed(s)" in notes
    assert "* No run of the model is finished" in notes
    assert "Unfinished runs beside finished ones do not count." in notes
    assert "The paper's numbers: Table 1." in notes
    assert "quotes two sources" in notes


def test_the_test_of_speech_is_at_the_best_validation_epoch(tmp_path):
    seeds = {0: ([6.0, 5.0, 4.0], [3.0, 2.0, 2.5]), 1: ([6.0, 7.0, 4.0], [3.0, 2.0, 2.5])}
    write_seeds(tmp_path, "timit-momentum-lstm-158", seeds)
    table = tables(tmp_path, ["table2"])[0]
    assert "best test" not in " ".join(table.headings)
    assert row(table, "MomentumLSTM 158")[2:] == ("6.00 ± 1.41*", "5.67 ± 0.13", "+0.33", "3 of 700")


def test_the_loss_of_training_beside_what_can_be_had_without_learning(tmp_path):
    recipe = load_recipe("adding-750-adam-lstm-128").override(["training.epochs=2"])
    plan = Plan(("response",), seeds=1, overrides=("training.epochs=2",), only=("adding",))
    plan.save(tmp_path)
    made = history(LOSS, [0.1, 0.02], validation=[0.2, 0.3], train_loss=[0.3, 0.0071])
    write_run(tmp_path / "adding-750-adam-lstm-128-seed-0", recipe, made)
    table = tables(tmp_path)[2]
    assert row(table, "AdamLSTM")[1:] == ("1", "0.0071", "0.006", "+0.0011", "0.1000", "2")
    # On the training sequences of the second epoch, and on the test sequences.
    assert row(table, "always saying 1")[1:] == ("–", "0.1688", "–", "–", "0.1532", "–")
    assert row(table, "DTRIV")[2:4] == ("not run", "–")


def test_a_metric_that_the_paper_validates_has_both_its_numbers(monkeypatch):
    keys = {"validation_perplexity", "test_perplexity"}
    monkeypatch.setattr("momentumrnn.results.quantities.PUBLISHED_KEYS", keys)
    metric = Metric("perplexity", higher_is_better=False)
    validation, test = quantities_of(metric)
    assert (validation.key, test.key) == ("validation_perplexity", "test_perplexity")
    assert (validation.published, test.published) == ("validation_perplexity", "test_perplexity")
    epochs = history(metric, [60.0, 58.0, 59.0], validation=[63.0, 62.0, 61.0])
    assert (validation.of(epochs), test.of(epochs)) == (61.0, 59.0)
    assert {quantity.published for quantity in quantities_of(MSE)} <= {
        f.name for f in dataclasses.fields(PublishedSection)
    }


def test_a_seed_that_diverged_does_not_stop_the_report(tmp_path):
    name = "adding-100-lstm-128"
    write_seeds(tmp_path, name, {0: ([0.2] * 20, [0.2] * 20), 1: ([0.2] * 20, [0.2] * 20)})
    path = tmp_path / f"{name}-1" / "metrics.csv"
    lines = path.read_text().splitlines()
    cells = lines[-1].split(",")
    cells[lines[0].split(",").index("train_loss")] = "nan"
    path.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    report = build_report(find_runs([tmp_path]))
    assert write_report(report, tmp_path)
    assert any(f"{name}-1 has diverged" in told for told in report.warnings)
    records = [record for record in to_records(report) if record["row"] == name]
    (final,) = [record for record in records if record["quantity"] == "train_loss"]
    assert (final["mean"], final["std"], final["values"][1]) == (None, None, None)
    assert "None" not in (tmp_path / "results.csv").read_text()


def test_a_diverged_epoch_is_not_the_best():
    best, test = quantities_of(ACCURACY)
    epochs = history(ACCURACY, [math.nan, 90.0, math.nan], validation=[math.nan, 80.0, math.nan])
    assert best.of(epochs) == test.of(epochs) == pytest.approx(90.0)
    assert best.of(epochs[:1]) is None


def test_a_grid_is_a_table_of_its_two_settings(tmp_path):
    plan = Plan(("fig6",), seeds=1, overrides=("training.epochs=1",))
    write_plan(tmp_path, plan, skip=("timit", "momentum-0.9-step_size-0.3"))
    table = tables(tmp_path)[0]
    assert table.headings == ("μ ↓  s →", "0.1", "0.3", "0.6", "0.9", "1")
    assert [cells[0] for cells in table.rows] == ["0", "0.3", "0.6", "0.9", "0.99"]
    assert [cells[2] == "not run" for cells in table.rows] == [False, False, False, True, False]


def test_minutes_to_the_target(tmp_path):
    # 92.29 is reached in the third epoch by the one seed, by the other never.
    write_seeds(tmp_path, "pmnist-lstm-256", {0: ([90.0, 92.0, 92.3] + [80.0] * 147, None)})
    write_seeds(tmp_path, "pmnist-momentum-lstm-256", {0: ([90.0, 95.0], None), 1: ([90.0], None)})
    table = tables(tmp_path, ["response"])[-1]
    assert row(table, "LSTM")[1:] == ("3.0", "1 of 1", "699", "1.00", "1.00", "150")
    assert row(table, "MomentumLSTM")[1:] == ("2.0", "1 of 2", "416", "0.67", "0.60", "1–2 of 150")
    assert row(table, "RMSPropLSTM")[1:] == ("not run", "–", "403", "–", "0.58", "–")
    assert "another machine" in table.notes[0]


def test_a_metric_at_the_target_has_reached_it():
    """To the last digit that is shown, whichever way the factor of percent was rounded."""
    run = RunRecord(None, None, history(ACCURACY, [90.0, 92.29, 95.0], seconds=60.0), 0)
    assert minutes_to(run, 92.29, ACCURACY) == 2.0
    assert minutes_to(run, 92.28, ACCURACY) == 2.0
    assert minutes_to(run, 92.3, ACCURACY) == 3.0
    assert minutes_to(run, 95.01, ACCURACY) is None
    run = RunRecord(None, None, history(MSE, [0.5, 0.25, 0.125], seconds=60.0), 0)
    assert minutes_to(run, 0.25, MSE) == 2.0
    assert minutes_to(run, 0.24, MSE) == 3.0
    assert minutes_to(run, 0.12, MSE) is None
    for correct in range(10001):
        (epoch,) = history(ACCURACY, [50.0], seconds=60.0)
        run = RunRecord(None, None, (dataclasses.replace(epoch, test_metric=correct / 10000),), 0)
        target = float(f"{correct / 100:.2f}")
        assert minutes_to(run, target, ACCURACY) == 1.0
        assert minutes_to(run, target + 0.01, ACCURACY) is None


def test_cost_beside_the_first_row(tmp_path):
    write_cost(tmp_path, skip=("mnist-sr-lstm-256",))
    mnist, timit, _ = tables(tmp_path)
    assert row(mnist, "MomentumLSTM")[1:] == ("226.0", "1.13", "56.5", "1.13", "144.6 (1.13)", "36.2 (1.13)")
    assert row(mnist, "SRLSTM")[1] == "not measured"
    assert row(timit, "SRLSTM")[-2:] == ("–", "–")
    assert "processor a processor; threads 1; torch 2.13.0" in mnist.notes[1]


def test_records_hold_unrounded_numbers(mnist):
    write_seeds(mnist, "pmnist-lstm-256", {0: ([90.0, 92.5], None)})
    report = build_report(find_runs([mnist]), ["table1", "response"])
    (mnist / "out").mkdir()
    write_report(report, mnist / "out", ["csv", "json"])
    frame = pd.read_csv(mnist / "out" / "results.csv")
    told = json.loads((mnist / "out" / "results.json").read_text())
    assert len(frame) == len(told["results"]) == len(to_records(report))
    (first,) = frame[
        (frame["row"] == "mnist-lstm-128") & (frame["quantity"] == "best_test_accuracy")
    ].to_dict("records")
    assert first["mean"] == pytest.approx(98.95)
    assert first["std"] == pytest.approx(np.std([99.0, 98.9], ddof=1))
    assert (first["published"], first["seeds"], first["status"]) == ("98.7; 97.3", "0; 1", "finished")
    states = frame.drop_duplicates("row").set_index("row")["status"]
    assert states["mnist-adam-lstm-256"] == "unfinished"
    assert states["mnist-sr-lstm-256"] == "nothing yet"
    assert states["mnist-momentum-lstm-128"] == "not run"
    (minutes,) = (
        record
        for record in told["results"]
        if record["quantity"] == "minutes_to_92.29" and record["row"] == "pmnist-lstm-256"
    )
    assert minutes["mean"] == 2.0
    assert minutes["difference"] == [-697.0]
    assert told["warnings"] == report.warnings


def test_small_losses_are_not_rounded_to_nothing():
    assert show_number(0.00003, 4) == "3.0e-05"
    assert show_number(0.0, 4) == "0.0000"


def test_a_narrow_terminal_loses_no_number(mnist, capsys):
    print_table(tables(mnist, ["table1"])[0], Console(width=60))
    shown = capsys.readouterr().out
    assert "…" not in shown
    # Each number is in one line, however long lines become.
    for whole in ("98.95 ± 0.07", "12 of 150", "accuracy,", "MomentumLSTM", "not run"):
        assert whole in shown
    assert "MomentumLSTM 128" not in shown


HOSTILE = r"a_b & 50% of \x {y} #1 ~ ^ $ <t> ± − – μ ↓ 中 1.2e-04"


def test_latex_is_escaped_and_whole(mnist):
    made = [
        *tables(mnist, ["table1", "fig6"]),
        Table(HOSTILE, ("x", "a\nb_c"), ((HOSTILE, "[1]"),), (HOSTILE,)),
    ]
    text = to_latex(made)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == len(made)
    for block in re.findall(r"\\begin{tabular}.*?\\end{tabular}", text, re.DOTALL):
        columns = re.match(r"\\begin{tabular}{(l r*)}".replace(" ", ""), block)[1]
        body = block.split(r"\toprule")[1].split(r"\bottomrule")[0].replace(r"\midrule", "").strip()
        for line in body.split("\n"):
            if line:
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
                assert line.endswith(r"\\")
    bare = re.sub(r"\\[&%$#_{}]", "", text.replace(r"\\", ""))
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search("[#^~](?!{-)", re.sub(r"\\text\w+{}|10\^|\$\^2\$", "", bare))
    assert [line for line in bare.splitlines() if "%" in line] == ["% Needs \\usepackage{booktabs}."]
    assert text.isascii()
    assert r"98.95 $\pm$ 0.07" in text
    assert escape_latex("中") == "?"


def shown_by_markdown(text):
    """The texts that a reader of Markdown sees, a heading, a cell or a paragraph each."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    shown = []
    for token in parser.parse(text):
        if token.type == "inline":
            assert not {child.type for child in token.children} & {
                "code_inline",
                "html_inline",
                "em_open",
                "link_open",
            }
            shown.append("".join(child.content for child in token.children))
    return shown


MARKED = r"a|b \| `c` <b> *d* _e_ f_g [h](i) ~~j~~ &lt; \\"


def test_markdown_keeps_its_columns():
    text = to_markdown(Table("", ("a|b", "n"), (("x | y", "1*\n2*"),)))
    assert text.splitlines()[0] == r"| a\|b | n |"
    assert text.splitlines()[2] == r"| x \| y | 1\*, 2\* |"


def test_markdown_shows_names_as_they_are():
    text = to_markdown(Table(MARKED, (MARKED, "n"), ((MARKED, "1"), ("x", MARKED)), (MARKED,)))
    assert shown_by_markdown(text) == [MARKED, MARKED, "n", MARKED, "1", "x", MARKED, MARKED]


def test_a_report_in_markdown_shows_names_as_they_are(tmp_path):
    recipe = load_recipe("timit-lstm-84").override(["data.name=speech", f"data.folder={MARKED}"])
    # Some of MARKED no file system of Windows takes.
    name = "_e_ `c` [h](i) &lt; f_g"
    write_run(tmp_path / name, recipe, history(MSE, [0.5]))
    write_report(build_report(find_runs([tmp_path])), tmp_path, ["markdown"])
    shown = shown_by_markdown((tmp_path / "tables.md").read_text())
    assert f"speech, {MARKED}" in shown
    assert any(f"{name} (1 of" in line for line in shown)
