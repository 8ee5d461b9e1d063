"""What is measured: turns, ratios, peaks of memory, and what each contestant computes."""

import gc
import sys
from types import SimpleNamespace

import pytest
import torch

import momentumrnn
from momentumrnn.cli.benchmarking import memory_worker
from momentumrnn.cli.benchmarking.contestants import BASELINES, CONTESTANTS, find_contestants
from momentumrnn.cli.benchmarking.errors import BenchmarkError
from momentumrnn.cli.benchmarking.measurement import ratio_with_quartiles
from momentumrnn.cli.benchmarking.memory import UnmeasuredError, peak_memory
from momentumrnn.cli.benchmarking.options import check_options
from momentumrnn.cli.benchmarking.shapes import Shape, parse_shapes
from momentumrnn.cli.benchmarking.tasks import LOOP_REPEATS, planned_tasks
from momentumrnn.cli.benchmarking.turns import SHORTEST_TURN, time_in_turns
from momentumrnn.cli.benchmarking.workload import CELLS, Workload, single_step

LINUX = sys.platform == "linux"
MEGABYTE = 2**20


class Clock:
    """Time passes only when a side is called."""

    def __init__(self, **seconds):
        self.now, self.seconds, self.calls, self.waits = 0.0, seconds, [], 0

    def side(self, name):
        def call():
            self.calls.append(name)
            self.now += self.seconds[name]
            # A machine that slows down while it is measured.
            self.seconds[name] *= 1.01

        return call

    def wait(self):
        self.waits += 1

    def __call__(self):
        return self.now


def test_sides_take_turns():
    clock, told = Clock(a=1.0, b=2.0, c=4.0), []
    taken = time_in_turns(
        [clock.side(name) for name in "abc"], 3, wait=clock.wait, told=lambda: told.append(1), clock=clock
    )
    # Once each to warm up.
    assert "".join(clock.calls) == "abc" * 4
    assert len(told) == 3 * 4
    assert clock.waits == 2 * 12
    for side, first in zip(taken, (1.0, 2.0, 4.0), strict=True):
        assert side == pytest.approx([first * 1.01**k for k in (1, 2, 3)])
    assert ratio_with_quartiles(taken[2], taken[0]) == pytest.approx((4, 4, 4))


def test_a_quick_side_is_called_several_times_a_turn():
    clock = Clock(quick=SHORTEST_TURN / 100, slow=1.0)
    taken = time_in_turns([clock.side("quick"), clock.side("slow")], 2, clock=clock)
    calls = clock.calls.count("quick")
    assert 2 + 2 * 95 <= calls <= 2 + 2 * 100
    assert clock.calls.count("slow") == 3
    assert all(len(side) == 2 for side in taken)
    assert SHORTEST_TURN / 100 < taken[0][0] < SHORTEST_TURN / 30


@pytest.mark.parametrize("fails", [False, True])
def test_garbage_is_not_collected_while_the_clock_runs(fails):
    collecting = []

    def side():
        collecting.append(gc.isenabled())
        if fails and len(collecting) == 4:
            raise RuntimeError

    assert gc.isenabled()
    clock = iter(range(100)).__next__
    if fails:
        with pytest.raises(RuntimeError):
            time_in_turns([side], 5, clock=clock)
    else:
        time_in_turns([side], 5, clock=clock)
    assert not any(collecting[1:])
    assert gc.isenabled()


def test_ratios_are_taken_within_a_round():
    # The ratio of the medians would be 3.
    assert ratio_with_quartiles([1, 10, 3], [1, 5, 1]) == pytest.approx((2, 1.5, 2.5))
    assert ratio_with_quartiles([3.0], [2.0]) == (1.5, 1.5, 1.5)


def test_shapes():
    assert parse_shapes("784x128x1x256, 5X4x3x2,784x128x1x256") == (
        Shape(784, 128, 1, 256),
        Shape(5, 4, 3, 2),
    )
    assert str(Shape(784, 128, 1, 256)) == "784x128x1x256"


@pytest.mark.parametrize("name", [*BASELINES, *CONTESTANTS])
def test_every_contestant_trains_and_infers(name):
    (contestant,) = find_contestants([name]) if name in CONTESTANTS else [BASELINES[name]]
    if not contestant.installed:
        pytest.skip(f"{contestant.package} is not installed")
    work = Workload(contestant, Shape(5, 3, 2, 4), "cpu")
    assert work.x.shape == (5, 3, 2)
    assert not work.x.requires_grad
    step = work.side("train")
    step()
    first = [value.grad.clone() for value in work.layer.parameters()]
    step()
    for value, gradient in zip(work.layer.parameters(), first, strict=True):
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(value.grad, gradient)
    work.layer.zero_grad()
    work.side("inference")()
    assert not work.layer.training
    assert all(value.grad is None for value in work.layer.parameters())


def test_contestants_do_what_their_baseline_does():
    shape = Shape(5, 3, 2, 4)
    theirs = Workload(BASELINES["nn.LSTM"], shape, "cpu")
    ours = Workload(CONTESTANTS["LSTM"], shape, "cpu")
    assert torch.equal(theirs.x, ours.x)
    assert torch.equal(theirs.gradient, ours.gradient)
    ours.layer.load_state_dict(theirs.layer.state_dict())
    theirs.side("train")()
    ours.side("train")()
    for expected, value in zip(theirs.layer.parameters(), ours.layer.parameters(), strict=True):
        torch.testing.assert_close(value.grad, expected.grad)


def test_the_reference_loop_runs_on_the_reference(monkeypatch):
    ran = []
    original = momentumrnn.kernels.reference.lstm
    monkeypatch.setattr(momentumrnn.kernels.reference, "lstm", lambda *a: ran.append(1) or original(*a))
    loop = Workload(CONTESTANTS["reference-loop"], Shape(3, 2, 1, 4), "cpu")
    assert loop.backend == "reference"
    loop.side("train")()
    loop.side("inference")()
    assert len(ran) == 2


def test_backends_are_named():
    shape = Shape(3, 2, 1, 4)
    assert Workload(BASELINES["nn.GRU"], shape, "cpu").backend == "torch.nn"
    ours = CONTESTANTS["MomentumGRU"]
    with momentumrnn.backend("torch"):
        chosen = momentumrnn.explain(momentumrnn.MomentumGRU(1, 4), torch.zeros(3, 2, 1))
    assert "l0: torch," in chosen
    known = {backend.name for backend in momentumrnn.kernels.dispatch.BACKENDS}
    assert Workload(ours, shape, "cpu").backend in known


@pytest.mark.parametrize("name", CELLS)
def test_single_steps_need_no_gradient(name):
    with torch.autograd.set_detect_anomaly(True):
        single_step(name, "cpu")()


def planned(**options):
    return [task.label for task in planned_tasks(check_options(**options))]


def test_python_loops_run_apart_and_only_where_they_are_short():
    models = ("LSTM", "reference-loop", "MomentumRNN")
    labels = planned(shapes="100x100x1x8,101x100x1x8", models=models, memory=False)
    apart = [label for label in labels if "reference-loop" in label]
    assert apart == [f"{q} 100x100x1x8 nn.LSTM, reference-loop" for q in ("train", "inference")]
    assert "train 101x100x1x8 nn.LSTM, LSTM" in labels
    assert "train 101x100x1x8 nn.RNN, MomentumRNN" in labels
    everywhere = planned(shapes="101x100x1x8", models=models, memory=False, reference=True)
    assert "train 101x100x1x8 nn.LSTM, reference-loop" in everywhere


def test_turns_are_counted_for_the_bar():
    options = check_options(shapes="4x2x1x3", models=("LSTM", "reference-loop"), repeats=5, memory=False)
    for task in planned_tasks(options):
        told = []
        task.run(lambda told=told: told.append(1))
        assert len(told) == task.turns
        assert task.seconds > 0
    sides = next(task for task in planned_tasks(options) if "reference-loop" in task.label)
    assert sides.turns == 2 * (LOOP_REPEATS + 1)


def test_memory_where_asked():
    asked = planned(shapes="4x2x1x3,5x2x1x3", models=("LSTM",))
    assert [label for label in asked if label.startswith("memory")] == [
        "memory 4x2x1x3 nn.LSTM, LSTM",
        "memory 5x2x1x3 nn.LSTM, LSTM",
    ]
    assert not [label for label in planned(models=("LSTM",), memory=False) if label.startswith("memory")]
    assert not [label for label in planned(models=("LSTM",), quick=True) if label.startswith("memory")]


def allocate(megabytes):
    return torch.ones(megabytes * MEGABYTE // 4)


@pytest.mark.skipif(not memory_worker.CLEAR.exists(), reason="needs /proc")
def test_growth_of_the_peak():
    # A higher peak from before must not hide the growth.
    allocate(300)
    growth = memory_worker.growth_of_peak(lambda: allocate(100), "cpu")
    assert growth == pytest.approx(100 * MEGABYTE, rel=0.1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
def test_growth_where_no_peak_can_be_forgotten(monkeypatch, tmp_path):
    monkeypatch.setattr(memory_worker, "CLEAR", tmp_path / "no" / "proc")
    kept = []
    before = memory_worker._peak_since_the_start()()
    # Higher than anything this process has held before.
    enough = before // MEGABYTE + 100
    assert memory_worker.growth_of_peak(lambda: kept.append(allocate(enough)), "cpu") >= 90 * MEGABYTE


def test_growth_where_the_platform_keeps_no_peak(monkeypatch, tmp_path):
    monkeypatch.setattr(memory_worker, "CLEAR", tmp_path / "no" / "proc")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory_worker.growth_of_peak(lambda: pytest.fail("for nothing"), "cpu") is None


@pytest.mark.skipif(not LINUX, reason="elsewhere the peak of importing torch hides small growth")
def test_peak_memory_in_a_process_of_its_own():
    shape = Shape(200, 64, 1, 64)
    peak = peak_memory(CONTESTANTS["reference-loop"], shape, device="cpu", threads=1)
    # Gates, cell and hidden state of every step are kept for backward.
    kept = 4 * shape.T * shape.B * 6 * shape.h
    assert kept < peak < 10 * kept


def test_memory_that_cannot_be_measured_says_why(monkeypatch):
    def told(code, out, err):
        done = SimpleNamespace(returncode=code, stdout=out, stderr=err)
        monkeypatch.setattr("momentumrnn.cli.benchmarking.memory.subprocess.run", lambda *a, **k: done)
        with pytest.raises(UnmeasuredError) as caught:
            peak_memory(CONTESTANTS["LSTM"], Shape(1, 2, 3, 4), device="cpu")
        return str(caught.value)

    assert told(1, "", "Traceback\nRuntimeError: why\n") == "LSTM at 1x2x3x4: RuntimeError: why"
    assert "killed by signal 9, perhaps for want of memory" in told(-9, "", "")
    assert "this platform does not tell" in told(0, "null\n", "")


def flash_loop(gates, weight_hh, bias_hh, function, backend, dtype):
    """What the package flashrnn says it does: (B, T, 4, 1, h) to all and the last (h, c), (2, B, T, 1, h)."""
    assert (function, backend, dtype) == ("lstm", "vanilla", "float32")
    B, T, _, _, h = gates.shape
    h_t, c_t, found = torch.zeros(B, h), torch.zeros(B, h), []
    for t in range(T):
        product = torch.einsum("bp,ghp->bgh", h_t, weight_hh[:, 0])
        i, f, g, o = (gates[:, t, :, 0] + product + bias_hh[:, 0]).unbind(1)
        c_t = f.sigmoid() * c_t + i.sigmoid() * g.tanh()
        h_t = o.sigmoid() * c_t.tanh()
        found.append(torch.stack([h_t, c_t]))
    states = torch.stack(found, 2).unsqueeze(3)
    return states, states[:, :, -1:]


def test_flashrnn_is_given_the_lstm_of_torch(monkeypatch):
    """Against the package itself where it is installed."""
    if not CONTESTANTS["flashrnn"].installed:
        monkeypatch.setitem(sys.modules, "flashrnn", SimpleNamespace(flashrnn=flash_loop))
    layer, x = CONTESTANTS["flashrnn"].build(3, 4), torch.randn(5, 2, 3)
    torch.testing.assert_close(layer(x)[0], layer.like(x)[0])


def test_what_is_for_cuda_alone_is_refused_elsewhere_and_usual_there(monkeypatch):
    with pytest.raises(BenchmarkError, match="flashrnn: expected --device cuda"):
        check_options(models=("LSTM", "flashrnn"))
    assert "flashrnn" not in [one.name for one in check_options().contestants]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert {"flashrnn", "MomentumDTRIV"} <= {one.name for one in check_options(device="cuda").contestants}
