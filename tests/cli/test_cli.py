import gzip
import os
import shutil
import subprocess
import sys
import warnings
from importlib.metadata import version

import pandas as pd
import pytest
import torch

from momentumrnn.cli import main
from momentumrnn.cli.compare import MODELS
from momentumrnn.training import load_recipe
from momentumrnn.training.history import read_metrics

pytestmark = pytest.mark.usefixtures("elsewhere")

TINY = ["--set", "model.hidden_size=4", "training.epochs=1", "training.batch_size=512", "--threads", "1"]


def error_of(capsys, *words):
    assert main(words) == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    assert told.err.startswith("error: ")
    assert len(told.err.splitlines()) == 1
    return told.err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"momentumrnn {version('momentumrnn')}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ["train", "compare", "report", "data"]),
        (["train"], ["RECIPE", "--set KEY=VALUE", "--out FOLDER", "--data-folder", "--device", "--threads"]),
        (["compare", "digits"], ["--seeds", "--set KEY=VALUE", "--out FOLDER"]),
        (["data"], ["list", "fetch", "check"]),
    ],
)
def test_help(capsys, words, expected):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for word in expected:
        assert word in shown


def test_help_imports_nothing_heavy():
    code = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "from momentumrnn.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "heavy = loaded & {'lightning_fabric', 'pandas', 'matplotlib', 'sklearn', 'tensorboard'}\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("words", [["trian"], ["train"], ["train", "digits-lstm", "--epochs", "3"]])
def test_words_that_are_no_command(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_errors_are_one_message_and_code_2(capsys, tmp_path):
    assert "did you mean 'digits-lstm'?" in error_of(capsys, "train", "digit-lstm")
    assert "no such recipe file" in error_of(capsys, "train", "./mine.toml")
    assert "did you mean model.hidden_size?" in error_of(
        capsys, "train", "digits-lstm", "--set", "model.hiden_size=3"
    )
    assert "momentumrnn data fetch mnist" in error_of(capsys, "train", "pmnist-lstm-128")
    assert "did you mean 'mnist'?" in error_of(capsys, "data", "check", "minst")
    assert "train-images-idx3-ubyte was not found" in error_of(capsys, "data", "check", "mnist")
    assert "expected 1 or more, got 0" in error_of(capsys, "compare", "digits", "--seeds", "0")
    assert "choose how many with --seeds" in error_of(capsys, "compare", "digits", "--set", "training.seed=3")
    assert "rule.beta: LSTM does not take it" in error_of(
        capsys, "compare", "digits", "--set", "rule.beta=0.1"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "finds no CUDA device" in error_of(capsys, "train", "digits-lstm", "--device", "cuda")


def test_damaged_data_is_an_error(capsys, tmp_path):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(b"nothing")[:-4])
    words = ["train", "mnist-lstm-128", "--data-folder", str(tmp_path / "data")]
    assert "expected a complete gzip file" in error_of(capsys, *words)


def test_missing_extra():
    code = (
        "import sys\n"
        "sys.modules['tyro'] = None\n"
        "from momentumrnn.cli import main\n"
        "sys.exit(main(['train', 'digits-lstm']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: tyro is not installed")
    assert "pip install 'momentumrnn[experiments]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_module_missing_for_another_reason_is_a_bug(monkeypatch):
    def broken(words):
        raise ModuleNotFoundError("No module named 'momentumrnn.gone'", name="momentumrnn.gone")

    monkeypatch.setattr("momentumrnn.cli.commands.run_command", broken)
    with pytest.raises(ModuleNotFoundError):
        main(["train", "digits-lstm"])


def test_warnings_are_a_line(capsys, monkeypatch):
    def warned(words):
        warnings.warn("it is late", stacklevel=1)

    monkeypatch.setattr("momentumrnn.cli.commands.run_command", warned)
    assert main(["train", "digits-lstm"]) == 0
    assert capsys.readouterr().err == "warning: it is late\n"


def test_what_the_system_refuses_is_no_traceback(capsys, tmp_path, monkeypatch):
    def refused(words):
        (tmp_path / "none" / "file").write_text("")

    monkeypatch.setattr("momentumrnn.cli.commands.run_command", refused)
    assert "No such file or directory" in error_of(capsys, "train", "digits-lstm")


@pytest.mark.parametrize(
    "raised",
    [
        MemoryError("no room"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB\nand more"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_no_traceback(capsys, monkeypatch, raised):
    def failed(words):
        raise raised

    monkeypatch.setattr("momentumrnn.cli.commands.run_command", failed)
    told = error_of(capsys, "train", "digits-lstm")
    assert "out of memory" in told
    assert "make the batch, the sequences or the model smaller" in told


def test_another_error_of_torch_is_a_bug(monkeypatch):
    def failed(words):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr("momentumrnn.cli.commands.run_command", failed)
    with pytest.raises(RuntimeError, match="shapes"):
        main(["train", "digits-lstm"])


@pytest.mark.parametrize("words", [("data", "list"), ("report", "here")])
def test_a_reader_that_has_gone_and_a_terminal_without_dashes(words, tmp_path):
    """Neither costs a file or ends in a traceback."""
    run = tmp_path / "here" / "digits-lstm"
    run.mkdir(parents=True)
    (run / "recipe.toml").write_text(load_recipe("digits-lstm").to_toml(), encoding="utf-8")
    command = [sys.executable, "-m", "momentumrnn.cli", *words]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "here" / "report", ignore_errors=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        process.stdout.close()
        told = process.stderr.read()
    assert process.returncode != 0
    assert b"Traceback" not in told
    assert b"Exception ignored" not in told
    if words[0] == "report":
        assert (tmp_path / "here" / "report" / "tables.md").exists()


def test_interrupt_is_code_130(capsys, monkeypatch):
    def pressed(words):
        raise KeyboardInterrupt("stopped in epoch 3")

    monkeypatch.setattr("momentumrnn.cli.commands.run_command", pressed)
    assert main(["train", "digits-lstm"]) == 130
    assert capsys.readouterr().err == "interrupted: stopped in epoch 3\n"


def test_train_and_again(capsys, tmp_path):
    words = ["train", "digits-sr-lstm", *TINY]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "at the best validation epoch, 1" in shown
    assert "as the paper reports" in shown
    folder = tmp_path / "runs" / "digits-sr-lstm"
    (row,) = read_metrics(folder / "metrics.csv")
    assert f"test accuracy {row.test_accuracy:.2%}" in shown
    assert main(words) == 0
    assert "finished; nothing was done" in capsys.readouterr().out
    # The resolved recipe of a run is a recipe, and in the same folder the same run.
    assert main(["train", str(folder / "recipe.toml"), "--out", str(folder)]) == 0
    assert "finished; nothing was done" in capsys.readouterr().out
    changed = [*words, "--set", "optimizer.lr=0.5"]
    assert "optimizer.lr is" in error_of(capsys, *changed)


def test_compare_goes_on_where_it_stopped(capsys, tmp_path, monkeypatch):
    import momentumrnn.cli.compare as compare

    words = ["compare", "digits", "--seeds", "2", "--out", "out", *TINY]
    original, calls = compare.train, []

    def train(*arguments, **more):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments, **more)

    monkeypatch.setattr(compare, "train", train)
    assert main(words) == 130
    monkeypatch.setattr(compare, "train", original)
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "3 of 10 runs were finished before and are reused" in shown
    for name in ("LSTM", "MomentumLSTM", "AdamLSTM", "RMSPropLSTM", "SRLSTM"):
        assert name in shown
    out = tmp_path / "out"
    table = pd.read_csv(out / "results.csv")
    assert list(table["model"]) == ["LSTM", "MomentumLSTM", "AdamLSTM", "RMSPropLSTM", "SRLSTM"]
    assert list(table["seeds"]) == [2] * len(MODELS)
    for name in ("convergence.png", "convergence.svg", "table.md"):
        assert (out / name).stat().st_size > 0


def test_compare_names_the_data_it_used(capsys, tmp_path, monkeypatch):
    import momentumrnn.cli.compare as compare

    titles = []
    monkeypatch.setattr(compare, "plot_convergence", lambda runs, title, path: titles.append(title) or [])
    words = ["compare", "digits", "--seeds", "1", "--out", "out", *TINY]
    changes = ["--set", "data.name=adding", "data.length=8", "training.steps_per_epoch=1"]
    assert main([*words, *changes]) == 0
    assert titles == ["LSTMs on adding, T = 8"]
    assert "LSTMs on adding, T = 8" in capsys.readouterr().out
    assert (tmp_path / "out" / "table.md").read_text().startswith("# LSTMs on adding, T = 8\n")


@pytest.fixture
def no_text(tmp_path):
    """A name that is no text, as a file system may hold it."""
    try:
        name = os.fsdecode(b"run-\xff")
        (tmp_path / name).mkdir()
        (tmp_path / name).rmdir()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes text alone for names")
    return name


def test_names_that_are_no_text_are_refused_where_they_cannot_be_had(capsys, tmp_path, no_text):
    expected = "--out 'run-\\udcff': expected a name in UTF-8"
    assert expected in error_of(capsys, "train", "digits-lstm", "--out", no_text, *TINY)
    assert list(tmp_path.iterdir()) == []
    expected = "--out 'run-\\udcff/digits-lstm-seed-0': expected a name in UTF-8"
    assert expected in error_of(capsys, "compare", "digits", "--out", no_text, *TINY)
    expected = "--out 'run-\\udcff': expected a name in UTF-8"
    assert expected in error_of(capsys, "reproduce", "fig2", "--smoke", "--out", no_text)
    words = ["train", "timit-lstm-84", "--set", "data.name=speech", f"data.folder={no_text}"]
    assert "data.folder: expected a name in UTF-8" in error_of(capsys, *words)


def test_a_report_of_names_that_are_no_text(capsys, tmp_path, no_text):
    assert main(["train", "digits-lstm", "--out", "run", *TINY]) == 0
    (tmp_path / "all").mkdir()
    (tmp_path / "run").rename(tmp_path / "all" / no_text)
    assert main(["report", "all"]) == 0
    for name in ("report.html", "results.csv", "results.json"):
        assert "run-\\udcff" in (tmp_path / "all" / "report" / name).read_text(encoding="utf-8")
    assert main(["report", "all", "--out", no_text, "--formats", "markdown", "png"]) == 0
    assert (tmp_path / no_text / "tables.md").exists()


def test_a_sweep_of_a_recipe_whose_name_is_no_text(tmp_path, no_text):
    pytest.importorskip("optuna")
    recipe = load_recipe("digits-lstm").to_toml()
    (tmp_path / f"{no_text}.toml").write_text(recipe, encoding="utf-8")
    words = ["sweep", f"{no_text}.toml", "--over", "optimizer.lr=0.01,0.02", "--trials", "1", "--out", "out"]
    assert main([*words, *TINY]) == 0
    table = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert table.splitlines()[0] == r"# Sweep of run-\\udcff: 1 trials"


def test_data_commands(capsys, tmp_path):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert str(tmp_path / "cache" / "momentumrnn") in shown
    assert "1077 training, 360 validation and 360 test images" in shown
    assert "not here; to get it: `momentumrnn data fetch mnist`" in shown
    assert main(["data", "check", "digits"]) == 0
    assert main(["data", "fetch", "digits"]) == 0
    assert "nothing to fetch" in capsys.readouterr().out


def test_data_fetch_goes_where_it_is_told(capsys, monkeypatch, tmp_path):
    from momentumrnn.data import mnist

    monkeypatch.setattr(mnist, "MIRRORS", ("http://127.0.0.1:9/",))
    assert main(["data", "fetch", "mnist", "--data-folder", str(tmp_path / "there")]) == 2
    told = capsys.readouterr().err
    assert "train-images-idx3-ubyte.gz could not be fetched" in told
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz" in told
    assert str(tmp_path / "there" / "mnist") in told


def test_data_that_cannot_be_fetched(capsys, tmp_path):
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert "not here; to get it: LDC93S1 of the Linguistic Data Consortium" in shown
    assert "not here; to get it: Debian's asterisk-core-sounds-en-wav" in shown
    assert "drawn as it is needed" in shown
    for name, origin in {"timit": "LDC93S1", "ptb": "LDC99T42"}.items():
        assert main(["data", "fetch", name]) == 2
        told = capsys.readouterr()
        assert f"{name}: nothing to fetch; " in told.out
        assert told.err.startswith("error: ")
        assert origin in told.err
    assert main(["data", "fetch", "adding"]) == 0
    capsys.readouterr()
    assert "looked for the LDC tree" in error_of(capsys, "train", "timit-lstm-84")
    assert "asterisk-core-sounds-en-wav" in error_of(capsys, "data", "check", "prompts")
    assert "did you mean 'timit-lstm-84'?" in error_of(capsys, "train", "timit-lstm-48")
    assert not (tmp_path / "runs").exists()
