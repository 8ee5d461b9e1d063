"""What a benchmark computes in, and what it asks of a GPU, which stands here as a stub."""

from types import SimpleNamespace

import pytest
import torch

from momentumrnn.cli.benchmarking import measure, options
from momentumrnn.cli.benchmarking.contestants import find_contestants
from momentumrnn.cli.benchmarking.errors import BenchmarkError
from momentumrnn.cli.benchmarking.measurement import Measurement, to_frame
from momentumrnn.cli.benchmarking.options import check_options
from momentumrnn.cli.benchmarking.precision import computing_in
from momentumrnn.cli.benchmarking.shapes import DEFAULT_ON_CUDA, Shape
from momentumrnn.cli.benchmarking.table import grids
from momentumrnn.cli.benchmarking.tasks import planned_tasks
from momentumrnn.cli.benchmarking.turns import clock_of, time_in_turns, wait_for
from momentumrnn.cli.benchmarking.workload import Workload

SMALL = Shape(6, 2, 3, 4)


@pytest.fixture
def a_gpu(monkeypatch):
    monkeypatch.setattr(options.torch.cuda, "is_available", lambda: True)


def test_the_cpu_computes_in_float32_unless_asked_and_never_in_tf32():
    assert check_options().precisions == ("float32",)
    assert check_options(precisions=("bfloat16", "float32")).precisions == ("float32", "bfloat16")
    with pytest.raises(BenchmarkError, match="no TF32"):
        check_options(precisions=("tf32",))


def test_a_gpu_is_measured_in_all_three_at_its_own_shapes(a_gpu):
    asked = check_options(device="cuda", models=("LSTM",))
    assert asked.precisions == ("float32", "tf32", "bfloat16")
    assert asked.shapes == DEFAULT_ON_CUDA
    labels = [task.label for task in planned_tasks(asked)]
    for precision in asked.precisions:
        for quantity in ("train", "inference", "memory", "error"):
            at = "784x128x1x512" if precision == "float32" else f"784x128x1x512 {precision}"
            assert f"{quantity} {at} nn.LSTM, LSTM" in labels
    assert not [task for task in planned_tasks(check_options()) if task.label.startswith("error")]


@pytest.mark.parametrize(("precision", "allowed"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_torch_s_switches_stand_as_asked_inside_and_as_before_outside(precision, allowed):
    def switches():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = switches()
    with computing_in(precision, "cpu"):
        assert switches() == (allowed, allowed)
        assert torch.is_autocast_enabled("cpu") == (precision == "bfloat16")
    assert switches() == before
    assert not torch.is_autocast_enabled("cpu")


def test_errors_grow_with_the_rounding():
    sides = find_contestants(["MomentumLSTM"])
    errors = {}
    for precision in ("float32", "bfloat16"):
        told = []
        (one,) = measure.measure_errors(
            SMALL, sides, lambda told=told: told.append(1), device="cpu", precision=precision
        )
        assert one.precision == precision
        assert len(told) == 1
        errors[precision] = one.value
    assert 0 < errors["float32"] < 1e-6
    assert 1e-4 < errors["bfloat16"] < 0.1


def test_training_steps_run_in_bfloat16():
    (contestant,) = find_contestants(["AdamLSTM"])
    work = Workload(contestant, SMALL, "cpu", "bfloat16")
    seen = []
    work.layer.register_forward_hook(lambda module, args, result: seen.append(result[0].dtype))
    work.side("train")()
    work.side("inference")()
    assert seen == [torch.bfloat16] * 2
    assert all(value.grad is None or value.grad.dtype is torch.float32 for value in work.layer.parameters())
    assert work.backend != "cpu"


def test_the_gpu_s_own_events_are_its_clock(monkeypatch):
    device = SimpleNamespace(now=0.0, asked=[])

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = device.now

        def synchronize(self):
            device.asked.append("event")

        def elapsed_time(self, later):
            return 1000 * (later.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: device.asked.append("all"))

    def side():
        device.now += 0.5

    (taken,) = time_in_turns([side], 3, wait=wait_for("cuda"), clock=clock_of("cuda"))
    assert taken == [0.5] * 3
    assert device.asked == ["all", "all", "event"] * 4


def test_tables_keep_precisions_apart():
    measured = [
        Measurement("train", SMALL, name, "nn.LSTM", value=1e-3, ratio=ratio, precision=precision)
        for precision, ratio in (("float32", 1.5), ("tf32", 1.25))
        for name in ("nn.LSTM", "LSTM")
    ]
    measured.append(Measurement("error", SMALL, "LSTM", "nn.LSTM", value=2e-7, ratio=1.0))
    measured.insert(-1, Measurement("error", SMALL, "nn.LSTM", "nn.LSTM", value=1e-7, ratio=1.0))
    first, second, errors = grids(measured, find_contestants(["LSTM"]), spread=False)
    assert second.title == f"{first.title}, in tf32"
    assert (first.rows[1], second.rows[1]) == (("LSTM", "1.50"), ("LSTM", "1.25"))
    assert errors.rows[1] == ("LSTM", "2.0e-07")
    frame = to_frame(measured)
    assert list(frame["precision"]) == ["float32"] * 2 + ["tf32"] * 2 + ["float32"] * 2
    assert list(frame["unit"]) == ["seconds"] * 4 + ["fraction"] * 2
