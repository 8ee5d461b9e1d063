"""The recurrences in Triton, in its interpreter or on a GPU, against the reference loop in float64."""

from contextlib import contextmanager

import pytest
import torch
from torch.autograd import grad

from momentumrnn.errors import BackendError
from momentumrnn.kernels import reference
from momentumrnn.kernels.cuda import availability, recurrence_operator
from momentumrnn.kernels.cuda.recurrence import recurrence
from momentumrnn.kernels.cuda.tiling import Device, Tiling, forced
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.packed import PackedRows

pytest.importorskip("triton", reason=str(availability.missing()))
from programs_at_once import programs_at_once

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GATES = {"rnn_tanh": 1, "rnn_relu": 1, "rnn_modrelu": 1, "gru": 3, "lstm": 4, "lstm_without_forget_gate": 3}
CELLS = list(GATES)
# Two tiles of units and of a sum, the second of each all but empty.
HIDDEN = 18
WAYS = {"U resident": Tiling(True, 16, 16, 2, 16), "a launch a step": Tiling(False, 16, 16, 1, 16)}
SIZES = torch.tensor([3, 3, 1])
# Of the largest value. One rounding in bfloat16 is 4e-3.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 8e-2}


@pytest.fixture(autouse=True)
def _float32_in_full():
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def inputs_of(cell, sizes, T=3, B=3, hidden=HIDDEN, dtype=torch.float64):
    """Everything a cell runs on, in float64, holding what ``dtype`` can; ``None`` for what it has not."""

    def make(*shape):
        return (0.5 * torch.randn(*shape, dtype=torch.float64)).to(dtype).double().requires_grad_()

    width = GATES[cell] * hidden
    rows = (T, B) if sizes is None else (int(sizes.sum()),)
    return [
        make(*rows, width),
        make(width, hidden),
        make(width),
        make(hidden) if cell == "rnn_modrelu" else None,
        make(B, hidden),
        make(B, hidden) if cell.startswith("lstm") else None,
    ]


def by_reference(cell, inputs, sizes):
    d, weight_hh, bias_hh, modrelu_bias, h_0, c_0 = inputs
    gates = GateInput(d, packed=None if sizes is None else PackedRows(sizes, d.device))
    if cell == "gru":
        return reference.gru(gates, h_0, weight_hh, bias_hh)
    if c_0 is not None:
        return reference.lstm(gates, h_0, c_0, weight_hh, bias_hh, None, cell == "lstm")
    return reference.rnn(gates, h_0, weight_hh, bias_hh, cell.removeprefix("rnn_"), modrelu_bias)


def by_triton(cell, inputs, sizes, dtype=torch.float64):
    wide = torch.promote_types(dtype, torch.float32)
    types = [*[dtype] * 5, wide]
    moved = [None if t is None else t.to(DEVICE, kind) for t, kind in zip(inputs, types, strict=True)]
    output, h_n, c_n = (t.cpu().double() for t in recurrence(cell, *moved, sizes))
    return (output, h_n, c_n) if cell.startswith("lstm") else (output, h_n)


def everything(run, cell, inputs, sizes, **options):
    """The outputs, and the gradient of each input for random gradients of all outputs."""
    outputs = run(cell, inputs, sizes, **options)
    generator = torch.Generator().manual_seed(1)
    total = sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outputs)
    return [*outputs, *grad(total, [t for t in inputs if t is not None])]


@contextmanager
def nothing_uninitialised_is_a_number():
    """Have torch fill memory with NaN that nobody has written yet."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def assert_same(got, expected, dtype):
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= TOLERANCES[dtype] * max(1.0, other.abs().max().item())


@pytest.mark.parametrize(
    ("way", "sizes"), [("U resident", SIZES), ("a launch a step", None)], ids=["packed", "dense"]
)
@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_is_the_reference_with_all_gradients(cell, way, sizes):
    inputs = inputs_of(cell, sizes)
    with forced(WAYS[way]):
        got = everything(by_triton, cell, inputs, sizes)
    assert_same(got, everything(by_reference, cell, inputs, sizes), torch.float64)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="there is a GPU: programs do wait for one another on it")
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("cell", "sizes"), [("rnn_modrelu", None), ("gru", SIZES), ("lstm", None)])
def test_programs_that_wait_for_one_another_give_the_same_bits(cell, sizes, seed, monkeypatch):
    """The interpreter runs a program after another, a launch a step; here they run at once, in one launch."""
    inputs = inputs_of(cell, sizes, hidden=40)
    with forced(WAYS["U resident"]):
        one_by_one = everything(by_triton, cell, inputs, sizes)
        monkeypatch.setattr(recurrence_operator, "interpreted", lambda: False)
        with programs_at_once(monkeypatch, seed), nothing_uninitialised_is_a_number():
            at_once = everything(by_triton, cell, inputs, sizes)
    assert all(torch.equal(one, other) for one, other in zip(one_by_one, at_once, strict=True))


@pytest.mark.parametrize(("cell", "sizes"), [("lstm", None), ("gru", torch.tensor([35, 35, 17]))])
def test_more_programs_than_can_run_at_once_run_in_turns(cell, sizes, monkeypatch):
    """Of three groups of sequences two go at a time."""
    monkeypatch.setattr(recurrence_operator, "device_of", lambda index: Device(4, 227 << 10))
    inputs = inputs_of(cell, sizes, B=35)
    with forced(WAYS["U resident"]):
        got = everything(by_triton, cell, inputs, sizes)
    assert_same(got, everything(by_reference, cell, inputs, sizes), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("cell", ["rnn_modrelu", "gru", "lstm"])
def test_other_numbers_are_summed_in_float32(cell, dtype):
    inputs = inputs_of(cell, None, B=2, hidden=5, dtype=dtype)
    got = everything(by_triton, cell, inputs, None, dtype=dtype)
    assert_same(got, everything(by_reference, cell, inputs, None), dtype)


def test_c_does_not_lose_what_bfloat16_would():
    """A thousandth added 16 times to 1 is lost where c is rounded at each step."""
    T, hidden = 16, 1
    d = torch.zeros(T, 1, 3 * hidden)
    d[..., 0], d[..., 1], d[..., 2] = 100.0, 0.001, 100.0
    weight_hh, h_0 = torch.zeros(3, hidden), torch.zeros(1, hidden)
    low = [t.to(DEVICE, torch.bfloat16) for t in (d, weight_hh, h_0)]
    c_0 = torch.ones(1, hidden, device=DEVICE)
    _, _, c_n = recurrence("lstm_without_forget_gate", *low[:2], None, None, low[2], c_0, None)
    assert c_n.dtype is torch.float32
    assert c_n.item() == pytest.approx(1.016, rel=1e-3)


@pytest.mark.parametrize("cell", CELLS)
def test_one_step_of_one_sequence_without_biases(cell):
    inputs = inputs_of(cell, None, T=1, B=1, hidden=3)
    inputs[2] = None
    got = everything(by_triton, cell, inputs, None)
    assert_same(got, everything(by_reference, cell, inputs, None), torch.float64)


def test_more_sequences_than_a_program_takes():
    inputs = inputs_of("rnn_modrelu", None, T=2, B=17, hidden=3)
    got = everything(by_triton, "rnn_modrelu", inputs, None)
    assert_same(got, everything(by_reference, "rnn_modrelu", inputs, None), torch.float64)


@pytest.mark.parametrize("cell", ["rnn_relu", "lstm"])
def test_without_gradients_nothing_is_kept_and_the_result_is_the_same(cell):
    inputs = [None if t is None else t.detach() for t in inputs_of(cell, None, hidden=3)]
    d, *rest = (None if t is None else t.to(DEVICE) for t in inputs)
    operator = torch.ops.momentumrnn.triton_recurrence
    trained, plain = (operator(cell, d, *rest, None, train) for train in (True, False))
    assert all(torch.equal(one, other) for one, other in zip(trained[:3], plain[:3], strict=True))
    assert plain[3].numel() == plain[4].numel() == 0
    # A wrong guess costs time and nothing else.
    incoming = (torch.ones_like(plain[0]), None, None)
    backward = torch.ops.momentumrnn.triton_recurrence_backward
    first, second = (backward(cell, d, *rest, None, out[0], *out[3:], *incoming) for out in (trained, plain))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("cell", ["rnn_tanh", "gru", "lstm"])
def test_a_second_derivative_is_the_reference_s(cell):
    inputs = inputs_of(cell, None, T=2, B=1, hidden=2)
    leaves = [t for t in inputs if t is not None]
    slopes = []
    for run in (by_triton, by_reference):
        output, *_ = run(cell, inputs, None)
        first = grad(output.square().sum(), leaves, create_graph=True)
        slopes.append(grad(sum(each.square().sum() for each in first), leaves))
    assert_same(*slopes, torch.float64)


def test_an_empty_batch_gives_nothing_and_zero_gradients():
    inputs = inputs_of("lstm", None, B=0, hidden=3)
    output, *rest = everything(by_triton, "lstm", inputs, None)
    assert output.shape == (3, 0, 3)
    assert all(torch.equal(t, torch.zeros_like(t)) for t in rest)


@pytest.mark.parametrize(("cell", "sizes"), [("rnn_modrelu", None), ("lstm", SIZES)])
def test_recurrences_are_well_formed_operators(cell, sizes):
    inputs = [
        None if t is None else t.detach().to(DEVICE).requires_grad_()
        for t in inputs_of(cell, sizes, T=2, hidden=2)
    ]
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    # Compiled with unknown sizes once, which takes the longest.
    more = ("test_aot_dispatch_dynamic",) if sizes is None else ()
    forward = torch.ops.momentumrnn.triton_recurrence.default
    torch.library.opcheck(forward, (cell, *inputs, sizes, True), test_utils=(*tests, *more))
    output, h_n, c_n, gates, cells = (t.detach() for t in forward(cell, *inputs, sizes, True))
    incoming = (torch.randn_like(output), torch.randn_like(h_n), c_n if cell == "lstm" else None)
    arguments = (cell, *(None if t is None else t.detach() for t in inputs), sizes, output, gates, cells)
    backward = torch.ops.momentumrnn.triton_recurrence_backward.default
    torch.library.opcheck(backward, (*arguments, *incoming), test_utils=tests)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="there is a GPU: nothing is interpreted")
def test_outside_the_interpreter_the_cpu_is_refused(monkeypatch):
    monkeypatch.setattr(availability, "interpreted", lambda: False)
    with pytest.raises(BackendError, match="expected tensors on CUDA, got cpu"):
        by_triton("rnn_tanh", inputs_of("rnn_tanh", None, hidden=2), None)


@pytest.mark.parametrize("cell", ["rnn_relu", "rnn_modrelu"])
def test_what_is_no_number_stays_none(cell):
    """A network that has diverged must not look like one that says zero."""
    inputs = inputs_of(cell, None, T=2, B=3, hidden=4)
    with torch.no_grad():
        inputs[0][0, 1] = float("nan")
        got, expected = by_triton(cell, inputs, None)[0], by_reference(cell, inputs, None)[0]
    assert got[0, 1].isnan().all()
    assert torch.equal(got.isnan(), expected.isnan())
