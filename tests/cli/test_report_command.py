import subprocess
import sys

import pytest

from momentumrnn.cli import main
from momentumrnn.tasks.contract import ACCURACY
from momentumrnn.training import load_recipe
from momentumrnn.training.history import Epoch, write_metrics


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    recipe = load_recipe("mnist-lstm-128")
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    write_metrics(folder / "metrics.csv", [Epoch(1, 421, 0.5, 0.9, 0.3, 0.95, 0.3, 0.96, 60.0, ACCURACY)])
    return tmp_path / "runs"


def test_tables_files_and_warnings(runs, capsys):
    assert main(["report", "runs", "--experiment", "table1", "--formats", "csv", "latex"]) == 0
    told = capsys.readouterr()
    assert "Table 1: MNIST and permuted MNIST, pixel by pixel: PMNIST" in told.out
    assert "96.00*" in told.out
    assert "1 of 150" in told.out
    assert "warning: 1 of 1 runs are not finished: mine (1 of 150 epochs)" in told.err
    assert told.out.splitlines()[-2:] == ["wrote runs/report/results.csv", "wrote runs/report/tables.tex"]
    assert {path.name for path in (runs / "report").iterdir()} == {"results.csv", "tables.tex"}


def test_what_a_shell_makes_of_a_star(runs, capsys):
    (runs / "plan.toml").write_text('[plan]\nexperiments = ["table1"]\n', encoding="utf-8")
    words = [str(path) for path in sorted(runs.iterdir())]
    assert main(["report", *words, "--formats", "html"]) == 0
    assert f"wrote {runs / 'report' / 'report.html'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected one or more folders, got none; a run folder is what"),
        (["elsewhere"], "elsewhere: there is no such folder; a run folder is what"),
        (["runs", "--experiment", "tabel1"], "did you mean 'table1'?"),
        (["runs", "--out", "runs/mine/recipe.toml"], "expected a folder, or a place for one"),
    ],
)
def test_errors_come_before_any_work(runs, capsys, words, message):
    assert main(["report", *words]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert len(told.err.splitlines()) == 1
    assert not told.out
    assert not (runs / "report").exists()


def test_help_says_what_there_is(capsys):
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    shown = capsys.readouterr().out
    for word in ("RUNS", "--experiment", "--out FOLDER", "--formats"):
        assert word in shown


def test_help_of_a_report_draws_nothing():
    code = (
        "import sys\n"
        "from momentumrnn.cli import main\n"
        "try: main(['report', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'matplotlib', 'pandas', 'lightning_fabric'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
