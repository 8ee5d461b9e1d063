"""The C++ recurrences against the loop over time in float64, on every instruction set that was built."""

import itertools
import random
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from momentumrnn.kernels import GateInput, reference
from momentumrnn.kernels.extension import extension, forced_isa, missing
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.kernels.plan import Plan, forced, plan
from momentumrnn.kernels.recurrence import recurrence
from momentumrnn.kernels.recurrence_operator import RecurrenceInputs

KERNELS = extension()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=str(missing()))
ISAS = KERNELS.isas() if KERNELS else []

CELLS = ["rnn_tanh", "rnn_relu", "rnn_modrelu", "gru", "lstm", "lstm_without_forget_gate"]
GATES = {"gru": 3, "lstm": 4, "lstm_without_forget_gate": 3}
DTYPES = [torch.float32, torch.float64]
# Split, whether W x is multiplied inside, threads.
WAYS = list(itertools.product(["rows", "units"], [True, False], [1, 2, 3]))
OPTIONS = ["packed", "ready", "bias_ih", "bias_hh"]
OUTPUTS = {torch.float32: 1e-5, torch.float64: 1e-10}
GRADIENTS = {torch.float32: 1e-4, torch.float64: 1e-10}
# An error is measured against the largest value, and against this where all are about to vanish: a
# derivative 1 - tanh² near its zero has no digits of its own.
SMALLEST_SCALE = 0.1
# Nearer than this to where relu bends, float32 may come to lie on the other side of it.
BEND = 2e-5

# T, B, D, H
SHAPES = [
    (1, 1, 1, 1),
    (2, 1, 1, 1),
    (1, 3, 2, 1),
    (3, 2, 1, 7),
    (1, 1, 5, 8),
    (5, 3, 2, 7),
    (4, 2, 3, 8),
    (9, 1, 1, 33),
    (6, 5, 2, 15),
    (5, 2, 7, 16),
    (4, 6, 4, 17),
    (7, 3, 1, 31),
    (3, 7, 8, 32),
    (4, 13, 17, 40),
    (6, 30, 3, 16),
    (40, 9, 3, 48),
    (2, 40, 2, 5),
    (60, 1, 1, 3),
    (60, 2, 2, 9),
    (33, 4, 6, 12),
    (12, 12, 12, 12),
    (13, 13, 13, 13),
    (5, 24, 15, 24),
    (5, 25, 16, 25),
    (3, 26, 40, 20),
    (8, 11, 33, 47),
    (10, 8, 9, 63),
    (10, 7, 31, 64),
    (9, 6, 1, 65),
    (6, 12, 5, 31),
    (7, 37, 3, 10),
    (2, 6, 16, 100),
    (3, 1, 40, 128),
    (1, 40, 40, 33),
    (17, 5, 10, 4),
    (25, 3, 21, 6),
    (11, 16, 2, 2),
    (30, 10, 1, 8),
    (20, 14, 20, 11),
    (4, 4, 4, 4),
    (3, 3, 39, 3),
    (1, 2, 1, 129),
    (15, 20, 6, 14),
    (60, 6, 1, 17),
]


class Inputs(NamedTuple):
    """The tensors of a recurrence in the operator's order."""

    features: Tensor
    weight_ih: Tensor | None
    bias_ih: Tensor | None
    weight_hh: Tensor
    bias_hh: Tensor | None
    modrelu_bias: Tensor | None
    h_0: Tensor
    c_0: Tensor | None

    def to(self, dtype):
        return Inputs(*(None if t is None else t.to(dtype) for t in self))


class Case(NamedTuple):
    """A recurrence to run and what comes in from behind it, in float64 though representable in float32."""

    cell: str
    inputs: Inputs
    batch_sizes: Tensor | None
    grads: tuple[Tensor, ...]


def make_case(
    cell, T, B, D, H, packed=False, ready=False, bias_ih=True, bias_hh=True, lengths=None, seed=0, scale=1.0
):
    source = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return (torch.randn(*shape, generator=source) * scale).double()

    batch_sizes, rows = None, (T, B)
    if packed:
        if lengths is None:
            lengths = [T, *torch.randint(1, T + 1, (B - 1,), generator=source).tolist()]
        lengths = sorted(lengths, reverse=True)
        batch_sizes = torch.tensor([sum(n > t for n in lengths) for t in range(T)])
        rows = (sum(lengths),)
    gates = GATES.get(cell, 1) * H
    inputs = Inputs(
        normal(*rows, gates if ready else D, scale=scale),
        None if ready else normal(gates, D, scale=D**-0.5),
        normal(gates) if bias_ih and not ready else None,
        normal(gates, H, scale=H**-0.5),
        normal(gates) if bias_hh else None,
        normal(H, scale=0.3) if cell == "rnn_modrelu" else None,
        normal(B, H),
        normal(B, H) if cell.startswith("lstm") else None,
    )
    return Case(cell, inputs, batch_sizes, (normal(*rows, H), normal(B, H), normal(B, H)))


def loop(case, inputs):
    """The plain loop's output, h_n and, from an LSTM, c_n."""
    x, weight_ih, bias_ih, weight_hh, bias_hh, modrelu_bias, h_0, c_0 = inputs
    packed = None if case.batch_sizes is None else PackedRows(case.batch_sizes, torch.device("cpu"))
    d = GateInput(x, weight_ih, bias_ih, packed=packed)
    if case.cell == "gru":
        return reference.gru(d, h_0, weight_hh, bias_hh)
    if case.cell.startswith("lstm"):
        return reference.lstm(d, h_0, c_0, weight_hh, bias_hh, None, case.cell == "lstm")
    return reference.rnn(d, h_0, weight_hh, bias_hh, case.cell.removeprefix("rnn_"), modrelu_bias)


def cpp(case, inputs):
    """The same in C++."""
    results = recurrence(RecurrenceInputs(case.cell, *inputs, case.batch_sizes))
    return results if case.cell.startswith("lstm") else results[:2]


def run(function, case, dtype):
    """All results, and the gradient of every tensor, by name."""
    inputs = Inputs(*(None if t is None else t.detach().requires_grad_() for t in case.inputs.to(dtype)))
    results = function(case, inputs)
    torch.autograd.backward(results, [g.to(dtype) for g in case.grads[: len(results)]])
    gradients = {name: t.grad for name, t in inputs._asdict().items() if t is not None}
    return dict(zip(["output", "h_n", "c_n"], (r.detach() for r in results), strict=False)), gradients


def error(got, expected):
    assert got.shape == expected.shape
    scale = max(expected.abs().max().item(), SMALLEST_SCALE)
    return (got.double() - expected).abs().max().item() / scale


def bends_near_a_value(case, outputs):
    """Whether a unit's sum lies so near to where relu or modrelu bends that float32 cannot tell the side."""
    if case.cell not in ("rnn_relu", "rnn_modrelu"):
        return False
    x, weight_ih, bias_ih, weight_hh, bias_hh, modrelu_bias, h_0, _ = case.inputs
    d = GateInput(x, weight_ih, bias_ih).multiplied()
    steps = x.shape[0] if case.batch_sizes is None else case.batch_sizes.shape[0]
    sizes = [h_0.shape[0]] * steps if case.batch_sizes is None else case.batch_sizes.tolist()
    h, nearest = h_0, torch.inf
    for d_t, after in zip(d.flatten(0, -2).split(sizes), outputs.flatten(0, -2).split(sizes), strict=True):
        sums = d_t + h[: d_t.shape[0]] @ weight_hh.T + (0.0 if bias_hh is None else bias_hh)
        distance = sums.abs() if modrelu_bias is None else (sums.abs() + modrelu_bias).abs()
        if modrelu_bias is not None:
            distance = torch.minimum(distance, sums.abs())
        nearest, h = min(nearest, distance.min().item()), after
    return nearest < BEND * max(1.0, outputs.abs().max().item())


def compare(case, expected, dtype):
    """Hold what the kernels compute, as they are set now, to the loop's results; return the worst errors."""
    outputs, gradients = run(cpp, case, dtype)
    with torch.no_grad():
        inference = cpp(case, case.inputs.to(dtype))
    for name, result in zip(outputs, inference, strict=True):
        assert torch.equal(result, outputs[name]), f"{name} is another without gradients"
    worst = [0.0, 0.0]
    assert outputs.keys() == expected[0].keys()
    for name, result in outputs.items():
        worst[0] = max(worst[0], error(result, expected[0][name]))
        assert error(result, expected[0][name]) <= OUTPUTS[dtype], name
    if dtype == torch.float32 and bends_near_a_value(case, expected[0]["output"]):
        return worst
    assert gradients.keys() == expected[1].keys()
    for name, gradient in gradients.items():
        worst[1] = max(worst[1], error(gradient, expected[1][name]))
        assert error(gradient, expected[1][name]) <= GRADIENTS[dtype], f"the gradient of {name}"
    return worst


def drawn(cell, shape):
    """A case of these sizes and the ways in which to run it: always the same ones, but mixed."""
    draw = random.Random(f"{cell} {shape}")
    options = {name: draw.random() < 0.5 for name in OPTIONS}
    possible = [way for way in WAYS if way[1] or not options["ready"]]
    ways = []
    for isa, dtype in itertools.product(ISAS, DTYPES):
        ways += [(isa, dtype, *way) for way in draw.sample(possible, -(-3 // len(ISAS)))]
    return make_case(cell, *shape, **options, seed=draw.randrange(1 << 31)), ways


def worst_of(cell, shape):
    """Compare, and return the worst errors for each instruction set and dtype."""
    case, ways = drawn(cell, shape)
    expected = run(loop, case, torch.float64)
    worst = {}
    for isa, dtype, split, fused, threads in ways:
        with forced_isa(isa), forced(split, fused, threads):
            errors = compare(case, expected, dtype)
        worst[isa, dtype] = [max(pair) for pair in zip(errors, worst.get((isa, dtype), errors), strict=True)]
    return worst


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_at_every_size_equals_the_loop(cell, shape):
    worst_of(cell, shape)


@pytest.mark.parametrize("cell", CELLS)
def test_the_sizes_above_meet_every_way_to_run(cell):
    met = set()
    for shape in SHAPES:
        case, ways = drawn(cell, shape)
        tensors = (case.batch_sizes, case.inputs.weight_ih, case.inputs.bias_ih, case.inputs.bias_hh)
        kinds = list(zip(OPTIONS, (t is not None for t in tensors), strict=True))
        met |= {(*way[2:], *kind) for way in ways for kind in kinds}
    every = {(*way, name, there) for way in WAYS for name in OPTIONS for there in (True, False)}
    # Ready gate inputs come without a weight, which then cannot be multiplied before.
    assert {e for e in every if e[1] or e[3:] != ("ready", False)} <= met


# What only large recurrences reach: gates, and gradients of ready ones, written past the cache, in rows of
# whole lines or of other lengths, weights that do not fit into it, more rows than one chunk of the backward
# pass, a step of so many that its chunk is cut, more units than a strip of the gradient of U.
@pytest.mark.parametrize(
    ("cell", "shape", "packed", "ready"),
    [
        ("lstm", (60, 40, 1, 96), False, False),
        ("lstm", (60, 40, 1, 96), True, False),
        ("lstm", (60, 48, 1, 77), True, False),
        ("lstm", (70, 40, 1, 96), False, True),
        ("lstm", (73, 48, 1, 77), True, True),
        ("lstm", (70, 40, 1, 95), False, True),
        ("gru", (99, 40, 1, 97), True, True),
        ("lstm_without_forget_gate", (5, 3, 2, 65), False, False),
        ("gru", (70, 40, 2, 96), False, False),
        ("gru", (60, 60, 2, 70), False, False),
        ("gru", (3, 30, 5, 272), False, False),
        ("lstm_without_forget_gate", (2, 3, 2, 300), True, False),
        ("rnn_tanh", (40, 14, 2, 520), False, False),
        ("lstm", (3, 530, 2, 20), False, False),
        ("rnn_modrelu", (3, 530, 3, 20), True, False),
    ],
)
@pytest.mark.parametrize("isa", ISAS)
def test_large_sizes(cell, shape, packed, ready, isa):
    T, B, _, _ = shape
    lengths = [T] * (B - 2) + [T - 1, 1] if packed else None
    case = make_case(cell, *shape, packed=packed, lengths=lengths, ready=ready)
    expected = run(loop, case, torch.float64)
    for dtype, way in zip(DTYPES, [("rows", True, 2), ("units", False, 3)], strict=True):
        with forced_isa(isa), forced(*way):
            compare(case, expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_a_large_gradient_of_u_has_nothing_between_its_rows(isa, dtype):
    """It is added up where it belongs, and 601 elements are no whole vectors: behind a row is the next."""
    case = make_case("gru", 3, 50, 1, 601)
    expected = run(loop, case, torch.float64)
    for way in (("units", True, 2), ("rows", True, 1), ("rows", True, 2)):
        with forced_isa(isa), forced(*way):
            compare(case, expected, dtype)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "lengths",
    [[9, 1, 1, 1, 1, 1, 1], [9, 9, 9, 9, 9, 9, 9], [9, 8, 7, 6, 5, 4, 3], [9, 9, 9, 2, 2, 1, 1], [9]],
    ids=str,
)
def test_packed_batches_of_every_form(cell, lengths):
    """Shares of the batch differ in length, and with one long sequence most threads have nothing to do."""
    case = make_case(cell, 9, len(lengths), 2, 9, packed=True, lengths=lengths)
    expected = run(loop, case, torch.float64)
    for split, threads in itertools.product(["rows", "units"], [2, 3, 8]):
        with forced(split, True, threads):
            compare(case, expected, torch.float64)


@given(
    cell=st.sampled_from(CELLS),
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 30), st.integers(1, 20), st.integers(1, 70)),
    dtype=st.sampled_from(DTYPES),
    way=st.sampled_from(WAYS),
    options=st.fixed_dictionaries(
        {name: st.booleans() for name in ("packed", "ready", "bias_ih", "bias_hh")}
    ),
    seed=st.integers(0, 1 << 30),
    data=st.data(),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_any_recurrence_equals_the_loop(cell, sizes, dtype, way, options, seed, data):
    isa = data.draw(st.sampled_from(ISAS))
    lengths = None
    if options["packed"]:
        T, B, _, _ = sizes
        lengths = [T, *data.draw(st.lists(st.integers(1, T), min_size=B - 1, max_size=B - 1))]
    case = make_case(cell, *sizes, **options, lengths=lengths, seed=seed)
    with forced_isa(isa), forced(*way):
        compare(case, run(loop, case, torch.float64), dtype)


def swapped(tensor, one, other, gates):
    """The tensor with two gates' rows in each other's place."""
    order = list(range(gates))
    order[one], order[other] = order[other], order[one]
    return tensor.unflatten(0, (gates, -1))[order].flatten(0, 1)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", GATES)
def test_gates_in_another_order_would_be_seen(cell, isa):
    """With two gates swapped in any one of the parameters the result is another, and again the loop's."""
    gates = GATES[cell]
    case = make_case(cell, 4, 3, 5, 19)
    with forced_isa(isa), torch.no_grad():
        before = cpp(case, case.inputs)[0]
        for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh"):
            for one, other in itertools.combinations(range(gates), 2):
                part = swapped(getattr(case.inputs, name), one, other, gates)
                inputs = case.inputs._replace(**{name: part})
                after = cpp(case, inputs)[0]
                assert error(after, before) > 1e-2
                assert error(after, loop(case, inputs)[0]) < 1e-10


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", CELLS)
def test_no_two_parts_of_the_gradients_are_alike(cell, isa):
    """Blocks of the loop's gradients are far apart, so that one in another's place is an error."""
    gates = GATES.get(cell, 1)
    case = make_case(cell, 4, 3, 19, 19)
    with forced_isa(isa):
        gradients = run(cpp, case, torch.float64)[1]
    blocks = [
        part[:, :19]
        for name in ("weight_ih", "weight_hh")
        for part in gradients[name].unflatten(0, (gates, -1)).unbind()
    ]
    for one, other in itertools.combinations(blocks, 2):
        assert error(one, other) > 1e-2


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_each_gradient_alone_is_the_one_that_comes_with_all(cell, ready, packed):
    case = make_case(cell, 5, 4, 18, 11, packed=packed, ready=ready)
    for split, fused in itertools.product(["rows", "units"], [True, False]):
        with forced(split, fused, 2):
            _, together = run(cpp, case, torch.float32)
            for name, expected in together.items():
                inputs = case.inputs.to(torch.float32)
                alone = getattr(inputs, name).requires_grad_()
                results = cpp(case, inputs)
                given = [g.float() for g in case.grads[: len(results)]]
                (got,) = torch.autograd.grad(results, alone, given)
                assert torch.equal(got, expected), name


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_each_result_alone_can_be_differentiated(cell, packed):
    case = make_case(cell, 5, 4, 3, 11, packed=packed)
    results = {}
    for function in (loop, cpp):
        inputs = Inputs(*(None if t is None else t.clone().requires_grad_() for t in case.inputs))
        tensors = [t for t in inputs if t is not None]
        outputs = function(case, inputs)
        results[function] = [
            torch.autograd.grad(output, tensors, grad, retain_graph=True, materialize_grads=True)
            for output, grad in zip(outputs, case.grads, strict=False)
        ]
    for ours, theirs in zip(results[cpp], results[loop], strict=True):
        for got, expected in zip(ours, theirs, strict=True):
            assert error(got, expected) < 1e-10


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_how_the_tensors_lie_in_memory_does_not_matter(cell, ready):
    """Transposed, expanded and strided tensors give the bits that contiguous ones do."""
    case = make_case(cell, 5, 4, 6, 9, ready=ready)

    def scattered(tensor):
        if tensor is None:
            return None
        wide = torch.full((*tensor.shape[:-1], tensor.shape[-1], 2), torch.nan, dtype=tensor.dtype)
        wide[..., 0] = tensor
        return (
            wide[..., 0] if tensor.dim() == 1 else wide[..., 0].transpose(0, 1).contiguous().transpose(0, 1)
        )

    apart = Case(cell, Inputs(*map(scattered, case.inputs)), None, tuple(map(scattered, case.grads)))
    assert not apart.inputs.weight_hh.is_contiguous()
    for way in (("rows", True, 1), ("rows", False, 2), ("units", True, 2)):
        with forced(*way):
            pairs = zip(run(cpp, apart, torch.float64), run(cpp, case, torch.float64), strict=True)
            for got, expected in pairs:
                assert all(torch.equal(got[name], expected[name]) for name in expected)
    flat = case._replace(grads=tuple(torch.ones_like(g) for g in case.grads))
    spread = case._replace(grads=tuple(torch.ones(()).double().expand_as(g) for g in case.grads))
    expected, got = run(cpp, flat, torch.float64)[1], run(cpp, spread, torch.float64)[1]
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("cell", CELLS)
def test_a_bias_beside_ready_gate_inputs_is_added(cell):
    case = make_case(cell, 4, 3, 1, 10, ready=True)
    bias = torch.randn(GATES.get(cell, 1) * 10, dtype=torch.float64)
    got = cpp(case, case.inputs._replace(bias_ih=bias))
    expected = loop(case, case.inputs._replace(features=case.inputs.features + bias))
    assert error(got[0], expected[0]) < 1e-12


def bits(case, dtype, *way):
    with forced(*way):
        outputs, gradients = run(cpp, case, dtype)
    return [*outputs.values(), *gradients.values()]


def same_bits(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_same_call_gives_the_same_bits(cell, packed, dtype):
    case = make_case(cell, 12, 25, 3, 35, packed=packed)
    for isa, way in zip(itertools.cycle(ISAS), WAYS[1::2], strict=False):
        with forced_isa(isa):
            first = bits(case, dtype, *way)
            for _ in range(2):
                assert same_bits(bits(case, dtype, *way), first)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_shared_out_by_units_the_bits_hang_on_no_number_of_threads(cell, packed, isa):
    case = make_case(cell, 12, 25, 3, 35, packed=packed)
    with forced_isa(isa):
        alone = bits(case, torch.float32, "units", True, 1)
        assert same_bits(bits(case, torch.float32, "rows", True, 1), alone)
        for threads in (2, 3, 7):
            assert same_bits(bits(case, torch.float32, "units", True, threads), alone)


# Steps, sequences, features and units of an LSTM, and how two threads are to run it.
PLANS = [
    ((5, 24, 4, 48), Plan("rows", 2, True)),
    ((8, 8, 4, 64), Plan("rows", 2, True)),
    ((9, 7, 4, 64), Plan("units", 2, True)),
    ((31, 2, 4, 64), Plan("rows", 2, True)),
    ((2, 2, 4, 8), Plan("rows", 1, True)),
    ((2, 1, 17, 320), Plan("rows", 1, False)),
    ((3, 2, 17, 320), Plan("units", 2, False)),
    ((2, 24, 17, 320), Plan("rows", 2, False)),
    ((2, 23, 17, 320), Plan("units", 2, False)),
]


@pytest.mark.parametrize(("shape", "expected"), PLANS, ids=str)
def test_the_plan_that_is_chosen_gives_the_same_results(shape, expected):
    T, B, D, H = shape
    case = make_case("lstm", T, B, D, H)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert plan(T, B, D, H, 4, 4) == expected
        compare(case, run(loop, case, torch.float64), torch.float32)
    finally:
        torch.set_num_threads(before)


def test_a_forced_plan_ends_with_its_block():
    usual = plan(5, 3, 2, 4, 4, 4)
    with forced("units", False, 3):
        assert plan(5, 3, 2, 4, 4, 4) == Plan("units", 3, False)
        with forced("rows"):
            assert plan(5, 3, 2, 4, 4, 4) == Plan("rows", torch.get_num_threads(), True)
        assert plan(5, 3, 2, 4, 4, 4) == Plan("units", 3, False)
    with pytest.raises(KeyError), forced("units", False, 3):
        raise KeyError
    assert plan(5, 3, 2, 4, 4, 4) == usual


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_nan_stays_in_its_sequence(cell, isa, dtype):
    """From the step where it comes in on; and no other sequence, before or behind it, is touched."""
    healthy = make_case(cell, 5, 15, 3, 19)
    x = healthy.inputs.features.clone()
    x[2, 7, 1] = torch.nan
    ill = healthy._replace(inputs=healthy.inputs._replace(features=x))
    with forced_isa(isa):
        for way in (("rows", True, 1), ("rows", False, 2), ("units", True, 2)):
            with forced(*way):
                outputs, gradients = run(cpp, ill, dtype)
                expected, slopes = run(cpp, healthy, dtype)
            assert outputs["output"][2:, 7].isnan().all()
            assert outputs["h_n"][7].isnan().all()
            outputs["output"][2:, 7] = expected["output"][2:, 7]
            for name, result in outputs.items():
                others = result if name == "output" else result[[*range(7), *range(8, 15)]]
                wanted = expected[name] if name == "output" else expected[name][[*range(7), *range(8, 15)]]
                assert torch.equal(others, wanted), name
            for name in ("features", "h_0"):
                axis = gradients[name].dim() - 2
                others = [torch.tensor([*range(7), *range(8, 15)])]
                got, wanted = (g.index_select(axis, *others) for g in (gradients[name], slopes[name]))
                assert torch.equal(got, wanted), name
            assert not any(t.isinf().any() for t in (*outputs.values(), *gradients.values()))
            assert gradients["weight_ih"].isnan().any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", CELLS)
def test_large_values_saturate(cell, isa, dtype):
    case = make_case(cell, 5, 7, 1, 19, ready=True)
    case = case._replace(inputs=case.inputs._replace(features=case.inputs.features.sign() * 1e4))
    with forced_isa(isa):
        compare(case, run(loop, case, torch.float64), dtype)
        if case.inputs.c_0 is not None:
            case = case._replace(inputs=case.inputs._replace(c_0=case.inputs.c_0.sign() * 1e4))
        outputs, gradients = run(cpp, case, dtype)
    for name, expected in run(loop, case, torch.float64)[0].items():
        assert error(outputs[name], expected) <= OUTPUTS[dtype], name
    assert all(t.isfinite().all() for t in (*outputs.values(), *gradients.values()))
    if cell not in ("rnn_relu", "rnn_modrelu"):
        assert outputs["output"].abs().max() <= max(1.0, case.inputs.h_0.abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("cell", ["rnn_tanh", *GATES])
def test_an_infinite_gate_input_closes_or_opens_its_gate(cell, isa, dtype):
    case = make_case(cell, 3, 4, 1, 19, ready=True)
    infinite = case.inputs._replace(features=case.inputs.features.sign() * torch.inf)
    with forced_isa(isa), torch.no_grad():
        for got, expected in zip(cpp(case, infinite.to(dtype)), loop(case, infinite), strict=True):
            assert error(got, expected) <= OUTPUTS[dtype]


@pytest.mark.parametrize("isa", ISAS)
def test_the_squashing_functions_keep_their_digits_near_zero(isa):
    """h_1 = tanh(d), for d from 1e-30 to 30, to a relative error of float32's rounding."""
    d = torch.logspace(-30, 1.5, 4000)
    d = torch.cat([d, -d]).reshape(1, -1, 1)
    zeros = torch.zeros(d.shape[1], 1)
    for dtype, tolerance in ((torch.float32, 4e-7), (torch.float64, 1e-15)):
        x, h_0, u = d.to(dtype), zeros.to(dtype), torch.zeros(1, 1, dtype=dtype)
        wide = x.double()
        with forced_isa(isa), torch.no_grad():
            inputs = RecurrenceInputs("rnn_tanh", x, None, None, u, None, None, h_0, None, None)
            tanh = recurrence(inputs)[0]
            assert ((tanh.double() - wide.tanh()) / wide.tanh()).abs().max() < tolerance
            # z of a GRU whose n is 1 and whose h_0 is 0: h = 1 - z.
            gates = torch.cat([x, -x, torch.full_like(x, 100.0)], dim=2)
            u = torch.zeros(3, 1, dtype=dtype)
            h = recurrence(inputs._replace(cell="gru", features=gates, weight_hh=u))[0]
            assert (h.double() - wide.sigmoid()).abs().max() < tolerance


def keeps_denormals():
    """Whether denormal numbers survive a multiplication here and on torch's other threads."""
    return bool((torch.full((1 << 18,), 1e-40) * 0.5 != 0).all())


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("split", ["rows", "units"])
@pytest.mark.parametrize("isa", ISAS)
def test_how_the_caller_treats_denormals_is_left_as_it_was(isa, split, flush):
    if not torch.set_flush_denormal(flush):
        pytest.skip("this processor cannot flush denormals")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.set_flush_denormal(flush)
        kept = bool(torch.tensor(1e-40) * 0.5 != 0), keeps_denormals()
        assert kept[0] is not flush
        for cell in ("lstm", "rnn_modrelu"):
            with forced_isa(isa), forced(split, True, 2):
                run(cpp, make_case(cell, 5, 6, 3, 33), torch.float32)
            assert (bool(torch.tensor(1e-40) * 0.5 != 0), keeps_denormals()) == kept
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


@pytest.mark.parametrize("cell", CELLS)
def test_a_vanishing_gradient_becomes_zero_and_no_denormal(cell):
    """From a gradient at the edge of float32 comes zero or a normal number, through any number of steps."""
    case = make_case(cell, 12, 3, 2, 9, bias_ih=False, bias_hh=False)
    case = case._replace(grads=tuple(g * 1e-37 for g in case.grads))
    _, gradients = run(cpp, case, torch.float32)
    for name in ("features", "h_0"):
        tiny = gradients[name].abs()
        assert not ((tiny > 0) & (tiny < torch.finfo(torch.float32).tiny)).any(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_a_batch_of_nobody(cell, dtype):
    case = make_case(cell, 3, 0, 2, 9)
    outputs, gradients = run(cpp, case, dtype)
    assert outputs["output"].shape == (3, 0, 9)
    assert outputs["h_n"].shape == (0, 9)
    for name, gradient in gradients.items():
        assert torch.equal(gradient, torch.zeros_like(getattr(case.inputs, name), dtype=dtype)), name
