"""The command: what it writes, what it refuses, what it keeps when it is stopped."""

import dataclasses

import pandas as pd
import pytest
import torch

from momentumrnn.cli import bench, main
from momentumrnn.cli.benchmarking import turns
from momentumrnn.cli.benchmarking.shapes import QUICK_SWEEPS
from momentumrnn.kernels import extension

SMALL = ["--shapes", "6x2x1x4,5x1x2x3", "--models", "LSTM", "MomentumGRU", "--repeats", "2", "--no-memory"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No test writes into the folder the tests are started in, or times anything for long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(turns, "SHORTEST_TURN", 1e-6)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def error_of(capsys, *words):
    assert main(["bench", *words]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert len(told.err.splitlines()) == 1
    return told.err


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for word in ("--shapes", "--models", "--sweep", "--isa", "--no-memory", "--reference", "--out FOLDER"):
        assert word in shown


def test_what_it_writes(capsys, tmp_path):
    assert main(["bench", *SMALL, "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "Time of a training step" in shown
    table = pd.read_csv(tmp_path / "bench" / "results.csv")
    layers = table[table["quantity"] != "step"]
    assert set(zip(layers["T"], layers["B"], layers["d"], layers["h"], strict=True)) == {
        (6, 2, 1, 4),
        (5, 1, 2, 3),
    }
    for _, group in layers.groupby(["quantity", "T"]):
        assert list(group["contestant"]) == ["nn.LSTM", "LSTM", "nn.GRU", "MomentumGRU"]
        assert list(group["baseline"]) == ["nn.LSTM", "nn.LSTM", "nn.GRU", "nn.GRU"]
    assert set(layers["quantity"]) == {"train", "inference"}
    assert (table["value"] > 0).all()
    assert (table["repeats"] == 2).all()
    assert (table.loc[table["contestant"] == table["baseline"], "ratio"] == 1).all()
    assert list(table.loc[table["quantity"] == "step", "contestant"]) == [
        "nn.LSTMCell",
        "LSTMCell",
        "LSTMCell, HeavyBall",
    ]
    page = (tmp_path / "bench" / "results.md").read_text()
    for word in (
        "processor",
        "threads: 1",
        torch.__version__,
        "repeats: 2",
        "instruction set",
        "MomentumGRU",
    ):
        assert word in page
    names = {path.name for path in (tmp_path / "bench").iterdir()}
    plots = {f"{name}.{suffix}" for name in ("train", "inference") for suffix in ("png", "svg")}
    assert names == {"results.csv", "results.md", *plots}


def test_sweep(tmp_path):
    assert main(["bench", "--sweep", "--quick", "--models", "LSTM", "--repeats", "1", "--out", "there"]) == 0
    table = pd.read_csv(tmp_path / "there" / "sweep.csv")
    assert set(table["quantity"]) == {"train"}
    for along, shapes in QUICK_SWEEPS.items():
        points = table[(table["along"] == along) & (table["contestant"] == "LSTM")]
        assert list(points[along]) == [getattr(shape, along) for shape in shapes]
        assert (tmp_path / "there" / f"sweep-{along}.svg").exists()
    assert not (tmp_path / "there" / "results.csv").exists()


def test_memory_is_measured_where_it_is_asked_for(monkeypatch, tmp_path):
    peaks = {"nn.LSTM": 1000, "LSTM": 750, "AdamLSTM": 4000}

    def peak_memory(contestant, shape, **settings):
        assert settings == {"device": "cpu", "threads": None, "isa": None, "precision": "float32"}
        return peaks[contestant.name]

    monkeypatch.setattr("momentumrnn.cli.benchmarking.measure.peak_memory", peak_memory)
    words = ["bench", "--shapes", "6x2x1x4", "--models", "AdamLSTM", "LSTM", "--repeats", "1"]
    assert main(words) == 0
    table = pd.read_csv(tmp_path / "bench" / "results.csv")
    memory = table[table["quantity"] == "memory"].set_index("contestant")
    assert memory["value"].to_dict() == peaks
    assert memory["ratio"].to_dict() == {"nn.LSTM": 1.0, "LSTM": 0.75, "AdamLSTM": 4.0}
    assert set(memory["unit"]) == {"bytes"}
    assert (tmp_path / "bench" / "memory.png").exists()


@pytest.mark.parametrize(
    ("pressed", "code", "told"),
    [
        (KeyboardInterrupt, 130, "what was measured before is in bench"),
        (RuntimeError, 2, "out of memory"),
        (AssertionError, None, ""),
    ],
)
def test_what_was_measured_is_kept(monkeypatch, capsys, tmp_path, pressed, code, told):
    def plan(options):
        first, second, *rest = original(options)

        def stop(_):
            raise pressed("out of memory")

        return [first, dataclasses.replace(second, run=stop), *rest]

    original = bench.planned_tasks
    monkeypatch.setattr(bench, "planned_tasks", plan)
    if code is None:
        with pytest.raises(pressed):
            main(["bench", *SMALL])
    else:
        assert main(["bench", *SMALL]) == code
    assert told in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "bench" / "results.csv")
    assert list(table["contestant"]) == ["nn.LSTM", "LSTM"]
    assert "nn.LSTM" in (tmp_path / "bench" / "results.md").read_text()


def test_stopped_before_anything_was_measured(monkeypatch, capsys, tmp_path):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("momentumrnn.cli.benchmarking.tasks.time_layers", stop)
    assert main(["bench", *SMALL]) == 130
    assert "nothing was measured yet" in capsys.readouterr().err
    assert list((tmp_path / "bench").iterdir()) == []


def test_errors(capsys, monkeypatch, tmp_path):
    for shapes in ("784x128x1", "784x128x1x0", "axbxcxd", "", "1x1x1x1,"):
        told = error_of(capsys, "--shapes", shapes)
        assert "expected TxBxdxh" in told
        assert repr(shapes.split(",")[-1]) in told
    assert "--repeats: expected 1 or more, got 0" in error_of(capsys, "--repeats", "0")
    assert "--threads: expected 1 or more, got -1" in error_of(capsys, "--threads", "-1")
    assert "did you mean MomentumLSTM?" in error_of(capsys, "--models", "MomentLSTM")
    assert "drop one" in error_of(capsys, "--sweep", "--shapes", "1x1x1x1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "use --device cpu" in error_of(capsys, "--device", "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "expected --device cpu, got cuda" in error_of(capsys, "--device", "cuda", "--isa", "avx2")
    with monkeypatch.context() as patch:
        # As where every model that was named is another library's, which is not installed.
        patch.setattr("momentumrnn.cli.bench.planned_tasks", lambda options: [])
        assert "nothing to measure" in error_of(capsys, "--sweep", "--quick", "--models", "LSTM")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert "--out file: expected a folder" in error_of(capsys, *SMALL, "--out", "file")


def test_a_device_that_does_not_exist(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--device", "tpu"])
    assert caught.value.code == 2
    assert "cuda" in capsys.readouterr().err


def test_an_instruction_set(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "write_plots", lambda rows, out: [])
    kernels = extension.extension()
    if kernels is None:
        pytest.skip("there are no C++ kernels")
    before = kernels.isa()
    told = error_of(capsys, *SMALL, "--isa", "mmx")
    assert "--isa mmx: " in told
    assert "got 'mmx'" in told
    assert list(tmp_path.iterdir()) == []
    words = ["--shapes", "6x2x1x4", "--models", "LSTM", "--repeats", "1", "--no-memory"]
    assert main(["bench", *words, "--isa", "baseline"]) == 0
    assert "momentumrnn baseline" in (tmp_path / "bench" / "results.md").read_text()
    assert kernels.isa() == before


def test_an_instruction_set_without_kernels(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(extension, "extension", lambda: None)
    told = error_of(capsys, *SMALL, "--isa", "avx2")
    assert "--isa avx2: expected C++ kernels" in told
    assert list(tmp_path.iterdir()) == []
