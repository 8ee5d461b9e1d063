"""Which kernels run on CUDA, and what ``explain`` says of it: a GPU is not needed for the choice."""

import itertools

import pytest
import torch
from torch.autograd import grad
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

from cases import CELLS, RULES, flat, make_layer
from momentumrnn import backend, explain
from momentumrnn.errors import BackendError
from momentumrnn.kernels import choose, fused, observed, reasons
from momentumrnn.kernels.cuda import availability, recurrence_operator
from momentumrnn.kernels.cuda import backend as triton_backend
from momentumrnn.kernels.cuda.launch import precision
from momentumrnn.kernels.cuda.tiling import Device
from momentumrnn.kernels.problem import Problem

pytest.importorskip("triton", reason=str(availability.missing()))

CUDA = torch.device("cuda")
interpreted = pytest.mark.skipif(
    torch.cuda.is_available(), reason="there is a GPU: tensors on the CPU are not interpreted"
)


@pytest.fixture
def as_if_on_cuda(monkeypatch):
    """Have the choice fall as for tensors on CUDA, while they stay where they are."""
    describe = Problem.of
    monkeypatch.setattr(
        Problem, "of", lambda *args, **options: describe(*args, **options)._replace(device=CUDA)
    )


def on_cuda(cell, factored, hidden, dtype=torch.float32, **options):
    return Problem(cell, factored, CUDA, dtype, hidden=hidden, **options)


@pytest.mark.parametrize(
    ("cell", "hidden", "batch", "dtype", "expected"),
    [
        ("lstm", 128, 128, torch.float32, "torch"),
        ("lstm", 129, 128, torch.float32, "triton"),
        ("lstm", 128, 512, torch.float32, "triton"),
        ("lstm", 64, 512, torch.float32, "torch"),
        ("lstm", 32, 8, torch.bfloat16, "triton"),
        ("lstm", 256, 128, torch.float64, "torch"),
        # 24 programs share 32 sequences, and 132 run at once: four lots.
        ("lstm", 384, 512, torch.float32, "torch"),
        ("lstm", 512, 128, torch.float32, "triton"),
        ("lstm", 513, 1, torch.float32, "torch"),
        ("gru", 256, 512, torch.float32, "triton"),
        ("gru", 128, 0, torch.float16, "torch"),
        ("rnn_tanh", 256, 128, torch.float32, "torch"),
        ("rnn_tanh", 512, 512, torch.float32, "triton"),
        ("rnn_relu", 256, 512, torch.float32, "triton"),
    ],
)
def test_after_a_linear_rule_the_faster_one_runs(cell, hidden, batch, dtype, expected):
    problem = on_cuda(cell, True, hidden, dtype, batch=batch)
    assert choose(problem).name == expected


@pytest.mark.parametrize(
    ("cell", "factored", "hidden", "dtype", "expected"),
    [
        ("lstm", False, 512, torch.float32, "triton"),
        ("lstm", False, 513, torch.float32, "torch"),
        ("lstm", False, 528, torch.bfloat16, "triton"),
        ("lstm", False, 529, torch.bfloat16, "torch"),
        ("lstm", False, 264, torch.float64, "triton"),
        ("lstm", False, 265, torch.float64, "torch"),
        ("gru", False, 512, torch.float32, "triton"),
        ("gru", False, 513, torch.float32, "torch"),
        ("rnn_tanh", False, 1024, torch.float32, "triton"),
        ("rnn_tanh", False, 1025, torch.float32, "torch"),
        ("lstm_without_forget_gate", True, 512, torch.float32, "triton"),
        ("lstm_without_forget_gate", False, 1150, torch.float32, "torch"),
        ("rnn_modrelu", True, 16, torch.float64, "triton"),
        ("rnn_modrelu", False, 4096, torch.float16, "triton"),
    ],
)
def test_what_cudnn_does_not_know_goes_by_the_size_of_u(cell, factored, hidden, dtype, expected):
    problem = on_cuda(cell, factored, hidden, dtype)
    assert choose(problem).name == expected
    against = dict(reasons(problem))
    assert "Python loop" in against["reference"]
    assert "CPU" in against["cpu"]
    if expected == "torch":
        assert "too large" in against["triton"]


@pytest.mark.parametrize(
    ("problem", "expected", "reason"),
    [
        (on_cuda("rnn_modrelu", True, 16, one_step=True), "reference", "many steps"),
        (on_cuda("lstm", False, 16, one_step=True), "reference", "many steps"),
        (on_cuda("rnn_modrelu", True, 16, forward_mode=True), "reference", "forward-mode"),
        (on_cuda("lstm", False, 16, projected=True), "torch", "projection"),
        (on_cuda("rnn_modrelu", True, 16, torch.complex64), "reference", "complex64"),
    ],
)
def test_what_triton_cannot_run_or_should_not_it_leaves_and_says_why(problem, expected, reason):
    assert choose(problem).name == expected
    assert reason in dict(reasons(problem))["triton"]


def test_without_triton_the_others_run_and_the_reason_names_it(monkeypatch):
    monkeypatch.setattr(triton_backend, "missing", lambda: "Triton is not installed")
    for cell, expected in (("lstm", "torch"), ("rnn_modrelu", "reference")):
        problem = on_cuda(cell, False, 16)
        assert choose(problem).name == expected
        assert dict(reasons(problem))["triton"] == "Triton is not installed"
    with backend("triton"), pytest.raises(BackendError, match="not installed"):
        choose(on_cuda("lstm", False, 16))


@interpreted
def test_on_the_cpu_it_runs_where_it_is_asked_for_and_interpreted_alone(monkeypatch):
    problem = on_cuda("lstm", False, 16)._replace(device=torch.device("cpu"))
    assert choose(problem).name != "triton"
    assert "tests" in dict(reasons(problem))["triton"]
    with backend("triton"):
        assert choose(problem).name == "triton"
        monkeypatch.setattr(triton_backend, "interpreted", lambda: False)
        with pytest.raises(BackendError, match="run on CUDA"):
            choose(problem)


@pytest.mark.parametrize(
    ("cell", "rule", "expected"),
    [
        ("lstm", "heavy_ball", "torch, over [x, 1] filtered by the rule (4 channels)"),
        ("lstm", "none", "torch, over x (3 channels)"),
        ("lstm", "adam", "triton, over the rule's result by triton in gate space (20 channels)"),
        ("rnn_modrelu", "rmsprop", "triton, over the rule's result by triton in gate space (5 channels)"),
        ("orthogonal", "heavy_ball", "triton, over x filtered by the rule (3 channels)"),
        ("lstm_original", "none", "triton, over x (3 channels)"),
    ],
)
def test_explain_says_so(cell, rule, expected, as_if_on_cuda):
    text = explain(make_layer(cell, rule), torch.zeros(4, 2, 3, dtype=torch.float64))
    assert f"l0: {expected}\n" in text
    assert ("not torch:" if expected.startswith("triton") else "not triton:") in text
    assert "not cpu: the C++ kernels run on the CPU" in text


def results_of(layer, x, state=None):
    outputs = flat(layer(x, state))
    floating = [out for out in outputs if out.is_floating_point()]
    leaves = [*layer.parameters(), *([x] if isinstance(x, torch.Tensor) and x.requires_grad else [])]
    return [*outputs, *grad(sum(out.square().sum() for out in floating), leaves, allow_unused=True)]


def assert_as_the_reference(layer, x, name, state=None, **tolerances):
    with backend(name):
        got = results_of(layer, x, state)
    with backend("reference"):
        expected = results_of(layer, x, state)
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other, **tolerances)


PAIRS = [
    *((cell, "adam") for cell in CELLS if cell not in ("lstm_projected", "orthogonal_cayley")),
    *(("lstm_original", rule) for rule in ["none", *RULES] if rule != "adam"),
]


@interpreted
@pytest.mark.parametrize(("cell", "rule"), PAIRS)
def test_a_layer_is_the_reference(cell, rule):
    layer = make_layer(cell, rule, learnable=rule != "none" and "channel")
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert_as_the_reference(layer, x, "triton")


@interpreted
@pytest.mark.parametrize("rule", ["nesterov", "adam"])
def test_a_packed_stack_of_both_directions_that_carries_its_momentum(rule):
    layer = make_layer(
        "rnn_modrelu", rule, "hidden", num_layers=2, bidirectional=True, carry_momentum=True, hidden_size=2
    )
    x = pack_padded_sequence(torch.randn(3, 2, 3, dtype=torch.float64), torch.tensor([3, 1]))
    _, (h, momentum) = layer(x)
    state = (h.detach(), type(momentum)(*(t.detach() for t in momentum)))
    assert_as_the_reference(layer, x, "triton", state)


@interpreted
@pytest.mark.parametrize("cell", ["lstm", "rnn_modrelu"])
def test_autocast_runs_in_its_dtype(cell):
    layer = make_layer(cell, "adam", dtype=torch.float32)
    x = torch.randn(3, 2, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        with backend("triton"):
            outputs = flat(layer(x))
        assert all(out.dtype is torch.bfloat16 for out in outputs)
        assert_as_the_reference(layer, x, "triton", rtol=0.1, atol=0.1)


@interpreted
def test_the_choice_for_cuda_is_what_runs(as_if_on_cuda, monkeypatch):
    """Each recurrence and each rule, by the names of the functions that they end in."""
    calls = []

    def count(owner, function, name):
        original = getattr(owner, function)
        monkeypatch.setattr(owner, function, lambda *args: (calls.append(name), original(*args))[1])

    count(triton_backend, "recurrence", "triton")
    count(torch, "lstm", "torch")
    for (cell, rule), expected in {
        ("lstm", "heavy_ball"): ["torch"],
        ("lstm", "adam"): ["triton"],
        ("orthogonal", "heavy_ball"): ["triton"],
        ("lstm_original", "none"): ["triton"],
    }.items():
        calls.clear()
        layer = make_layer(cell, rule)
        x = torch.randn(2, 1, 3, dtype=torch.float64, requires_grad=True)
        assert_as_the_reference(layer, x, "auto")
        assert calls == expected


@interpreted
@pytest.mark.parametrize("rule", ["adam", "heavy_ball"])
@pytest.mark.parametrize(("cell", "in_place"), [("lstm", True), ("lstm_original", True), ("gru", False)])
def test_gates_take_the_place_of_gate_inputs_and_gradients_that_of_gates(cell, in_place, rule, monkeypatch):
    places = []

    def watch(name, given, found):
        run = getattr(recurrence_operator, name)

        def watched(*args):
            results = run(*args)
            places.append((name, args[given].data_ptr() == results[found].data_ptr()))
            return results

        monkeypatch.setattr(recurrence_operator, name, watched)

    # d and the gates; the gates and d's gradient.
    watch("forward_over_d", 1, 3)
    watch("backward_over_gates", 9, 0)
    layer, x = make_layer(cell, rule), torch.randn(3, 2, 3, dtype=torch.float64)
    with backend("triton"):
        results_of(layer, x)
    assert places == [("forward_over_d", in_place), ("backward_over_gates", in_place)]


@interpreted
@pytest.mark.parametrize(
    ("cell", "rule"),
    [("lstm", "adam"), ("gru", "adam"), ("rnn_modrelu", "adam"), ("lstm", "heavy_ball"), ("lstm", "none")],
)
def test_a_graph_that_is_kept_misses_nothing_that_was_overwritten(cell, rule):
    layer = make_layer(cell, rule)
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    leaves = [*layer.parameters(), x]
    found = []
    for name in ("triton", "reference"):
        with backend(name):
            total = layer(x)[0].square().sum()
            slopes = [grad(total, leaves, retain_graph=True) for _ in range(2)]
            first = grad(total, leaves, create_graph=True)
            second = grad(sum(slope.square().sum() for slope in first), leaves, retain_graph=True)
            found.append([*slopes, first, second, grad(total, leaves)])
    assert_close(*found)
    once, again, _, _, last = found[0]
    assert all(
        torch.equal(one, other) for rest in (again, last) for one, other in zip(once, rest, strict=True)
    )


def twice(layer, x, name, autocast=False):
    """Gradients of gradients, the second pass outside of autocast, in float64."""
    leaves = [x, *layer.parameters()]
    with backend(name), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output, _ = layer(x)
    first = grad(output.double().square().sum(), leaves, create_graph=True)
    second = grad(sum(slope.double().square().sum() for slope in first), leaves)
    return [slope.double() for slope in (*first, *second)]


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("cell", "rule"), [("lstm", "none"), ("gru", "none"), ("lstm", "heavy_ball")])
def test_second_derivatives_in_few_bits(cell, rule, dtype):
    layer, x = make_layer(cell, rule), torch.randn(4, 2, 3, dtype=torch.float64)
    x = x.to(dtype).requires_grad_()
    found = twice(layer.to(dtype), x, "triton")
    wide = twice(layer.double(), x.detach().double().requires_grad_(), "reference")
    worst = max((one - other).abs().max() / other.abs().max() for one, other in zip(found, wide, strict=True))
    assert worst < (0.1 if dtype is torch.bfloat16 else 0.02)
    with backend("triton"):
        output, _ = layer.to(dtype)(x)
    rows = torch.eye(output.numel(), dtype=dtype).reshape(-1, *output.shape)
    many = grad(output, x, rows, is_grads_batched=True, retain_graph=True)[0]
    one_by_one = torch.stack([grad(output, x, row, retain_graph=True)[0] for row in rows])
    assert_close(many, one_by_one, atol=0.02, rtol=0.1)


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(
    ("cell", "rule"), [("lstm", "none"), ("gru", "none"), ("rnn_modrelu", "none"), ("gru", "heavy_ball")]
)
def test_second_derivatives_of_what_ran_under_autocast(cell, rule, num_layers, dtype):
    """What was multiplied in fewer bits then has to be multiplied once more when autocast is over."""
    layer = make_layer(cell, rule, num_layers=num_layers).float()
    x = torch.randn(4, 2, 3, dtype=torch.float64).to(dtype).requires_grad_()
    found = twice(layer, x, "triton", autocast=True)
    wide = twice(layer.double(), x.detach().double().requires_grad_(), "reference")
    worst = max((one - other).abs().max() / other.abs().max() for one, other in zip(found, wide, strict=True))
    assert worst < 0.15


@interpreted
def test_who_looks_on_finds_the_gate_inputs_as_they_were():
    layer, x = make_layer("lstm", "adam"), torch.randn(3, 2, 3, dtype=torch.float64)
    before, after = [], []

    def observer(run, recurrence, args):
        before.append(args[0].features.detach().clone())
        results = run(*args)
        after.append(args[0].features)
        return results

    with backend("triton"), observed(observer):
        layer(x)
    assert_close(after, before)


@interpreted
@pytest.mark.parametrize("rule", ["heavy_ball", "adam"])
def test_torch_func_runs_on_the_same_kernels(rule):
    layer = make_layer("lstm", rule, hidden_size=2)
    x = torch.randn(2, 2, 1, 3, dtype=torch.float64)

    def total(x):
        return layer(x)[0].square().sum()

    found = []
    for name in ("triton", "reference"):
        with backend(name):
            found.append([torch.func.grad(total)(x[0]), torch.func.vmap(torch.func.grad(total))(x)])
            one = x[0].clone().requires_grad_()
            first, *_ = layer(one)
            many = torch.eye(2, dtype=torch.float64).reshape(2, 1, 1, 2).expand(2, 2, 1, 2)
            found[-1] += grad(first, one, many, is_grads_batched=True)
    assert_close(*found)


@interpreted
def test_torch_compile_sees_one_node_for_a_layer_and_one_for_its_rule():
    layer = make_layer("lstm_original", "adam")
    seen = []

    def keep(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    x = torch.randn(2, 1, 3, dtype=torch.float64)
    torch._dynamo.reset()
    with backend("triton"):
        output, _ = torch.compile(layer, backend=keep, fullgraph=True)(x)
    torch._dynamo.reset()
    assert_close(output, layer(x)[0])
    assert [name for name in seen if "momentumrnn" in name] == [
        "momentumrnn.triton_adaptive_rule",
        "momentumrnn.triton_recurrence",
    ]


def test_float32_is_multiplied_in_tf32_where_torch_lets_cudnn():
    switch = torch.backends.cudnn.rnn
    before = switch.fp32_precision
    try:
        for asked, expected in (("tf32", "tf32"), ("ieee", "tf32x3")):
            switch.fp32_precision = asked
            assert precision("lstm", torch.float32, Device(132, 0)) == expected
            assert precision("rnn_modrelu", torch.float32, Device(132, 0)) == "tf32x3"
            assert precision("lstm", torch.float64, Device(132, 0)) == "ieee"
            assert precision("lstm", torch.bfloat16, Device(132, 0)) == "ieee"
        assert precision("lstm", torch.float32, Device(40, 0, (7, 5))) == "ieee"
    finally:
        switch.fp32_precision = before


def test_weights_for_cudnn_lie_in_one_buffer_in_its_order(monkeypatch):
    layer = make_layer("lstm", "heavy_ball", weight_dropout=0.5)
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    with backend("torch"):
        expected = results_of(layer, x)
    given = []
    run = torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda *args: (given.append(args[2]), run(*args))[1])
    monkeypatch.setattr(fused, "_wants_one_buffer", lambda device: True)
    torch.manual_seed(0)
    with backend("torch"):
        got = results_of(layer, x)
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
    ((weights),) = given
    assert [tuple(w.shape) for w in weights] == [(20, 4), (20, 5), (20,), (20,)]
    assert all(w.is_contiguous() for w in weights)
    ends = itertools.accumulate(
        (w.numel() * w.element_size() for w in weights), initial=weights[0].data_ptr()
    )
    assert [w.data_ptr() for w in weights] == list(ends)[:-1]
    assert weights[0].storage_offset() == 0
