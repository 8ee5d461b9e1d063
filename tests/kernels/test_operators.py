"""The C++ kernels as torch operators: compiled, exported, transformed and differentiated again."""

import asyncio
import copy
import threading
import warnings

import pytest
import torch
from torch.autograd import forward_ad, grad
from torch.autograd.graph import save_on_cpu
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import momentumrnn
from cases import RULES, flat, make_layer, make_rule
from momentumrnn import backend
from momentumrnn.errors import BackendError
from momentumrnn.kernels import linear_filter
from momentumrnn.kernels.extension import extension, missing
from momentumrnn.kernels.memory import memory

pytestmark = pytest.mark.skipif(extension() is None, reason=str(missing()))

OPS = torch.ops.momentumrnn
CELLS = ["rnn_tanh", "rnn_relu", "rnn_modrelu", "gru", "lstm", "lstm_without_forget_gate"]
GATES = {"gru": 3, "lstm": 4, "lstm_without_forget_gate": 3}
# Stacked and bidirectional, as a user makes them.
LAYERS = {
    "MomentumLSTM": {},
    "AdamLSTM": {},
    "GRU": {},
    "RNN": {"nonlinearity": "modrelu"},
}
# So many features that an adaptive rule keeps their product with W.
MANY = 65
RULE_OPERATOR = {"MomentumLSTM": "linear_filter", "AdamLSTM": "adaptive_rule"}
EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def stacked(name, **options):
    options = {"dtype": torch.float64, "num_layers": 2, "bidirectional": True} | options
    return getattr(momentumrnn, name)(3, 5, **LAYERS[name], **options)


def random_input(*shape):
    return torch.randn(*(shape or (4, 2, 3)), dtype=torch.float64)


def sizes_of(packed):
    return torch.tensor([3, 3, 1, 1]) if packed else None


def recurrence_inputs(cell, packed, ready, requires_grad=False, dtype=torch.float64):
    def make(*shape):
        return torch.randn(*shape, dtype=dtype).requires_grad_(requires_grad)

    gates = GATES.get(cell, 1) * 5
    rows = (8,) if packed else (4, 3)
    return (
        cell,
        make(*rows, gates if ready else 2),
        None if ready else make(gates, 2),
        None if ready else make(gates),
        make(gates, 5),
        make(gates),
        make(5) if cell == "rnn_modrelu" else None,
        make(3, 5),
        make(3, 5) if cell.startswith("lstm") else None,
        sizes_of(packed),
    )


def check(operator, inputs, shapes=True):
    """Hold an operator to torch's rules; with ``shapes`` also in graphs whose sizes are unknown."""
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        operator.default, inputs, test_utils=(*tests, "test_aot_dispatch_dynamic") if shapes else tests
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_recurrences_are_well_formed_operators(cell, packed):
    ready, shapes = cell == "gru", packed == (cell == "gru")
    inputs = recurrence_inputs(cell, packed, ready, requires_grad=True, dtype=torch.float32)
    check(OPS.recurrence, (*inputs, True), shapes)
    inputs = tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in inputs)
    check(OPS.recurrence, (*inputs, False), shapes=False)
    output, h_n, c_n, gates, cells = OPS.recurrence(*inputs, True)
    incoming = (torch.randn_like(output), torch.randn_like(h_n), torch.randn_like(c_n))
    if not cell.startswith("lstm"):
        incoming = (*incoming[:2], None)
    inputs = (*inputs, output, gates, cells, *incoming)
    check(OPS.recurrence_backward, (*inputs, [t is not None for t in inputs[1:9]]), shapes)
    check(OPS.recurrence_backward, (*inputs, [False] * 7 + [inputs[8] is not None]), shapes=False)


@pytest.mark.parametrize("packed", [False, True])
def test_linear_filters_are_well_formed_operators(packed):
    sizes, rows = sizes_of(packed), (8,) if packed else (4, 3)
    for decay, ones in ((torch.rand(1), True), (torch.rand(4), False), (torch.rand(4, 3), True)):
        x = torch.randn(*rows, 3 - int(ones), requires_grad=True)
        rest = (ones, decay.double(), 0.5, sizes, 3)
        check(OPS.linear_filter, (x, *rest))
        for last in (None, torch.randn(3, 3)):
            check(OPS.linear_filter_backward, (torch.randn(*rows, 3), last, *rest), shapes=last is not None)


def adaptive_inputs(packed, stateful, requires_grad, bias=True, features=2):
    def make(*shape):
        return torch.rand(*shape).requires_grad_(requires_grad)

    states = (make(3, 5), make(3, 5)) if stateful else (None, None)
    rows = (8,) if packed else (4, 3)
    return (
        make(*rows, features),
        make(5, features),
        make(5) if bias else None,
        make(4, 5),
        0.1,
        *states,
        sizes_of(packed),
    )


@pytest.mark.parametrize("features", [2, MANY])
@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_adaptive_rules_are_well_formed_operators(packed, stateful, features):
    inputs = adaptive_inputs(packed, stateful, requires_grad=True, features=features)
    check(OPS.adaptive_rule, (*inputs, True, None))
    inputs = adaptive_inputs(packed, stateful, requires_grad=False, bias=stateful, features=features)
    check(OPS.adaptive_rule, (*inputs, False, None), shapes=False)
    d, v_n, m_n, saved, product = OPS.adaptive_rule(*inputs, True, None)
    incoming = (torch.randn_like(d), torch.randn_like(v_n), torch.randn_like(m_n))
    for wanted in ([t is not None for t in (*inputs[:4], *inputs[5:7])], [True, *[False] * 5]):
        check(OPS.adaptive_rule_backward, (*inputs, saved, product, *incoming, wanted), all(wanted))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrence_that_was_told_of_no_derivative_has_it_still(cell, packed):
    """``train`` is a guess; wrong, it costs time and nothing else."""
    inputs = recurrence_inputs(cell, packed, False, requires_grad=True)
    leaves = [t for t in inputs if isinstance(t, torch.Tensor) and t.requires_grad]
    found = []
    for train in (True, False):
        output, h_n, *_ = OPS.recurrence(*inputs, train)
        found.append([output, h_n, *grad(output.square().sum() + h_n.sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("features", [2, MANY])
@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_an_adaptive_rule_that_was_told_of_no_derivative_has_it_still(packed, stateful, features):
    inputs = adaptive_inputs(packed, stateful, requires_grad=True, features=features)
    leaves = [t for t in inputs if isinstance(t, torch.Tensor) and t.requires_grad]
    found = []
    for train in (True, False):
        d, v_n, m_n, *_ = OPS.adaptive_rule(*inputs, train, None)
        found.append([d, v_n, m_n, *grad(d.square().sum() + v_n.sum() + m_n.sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


class Graphs:
    """A compiler that keeps what it is given, forward and backward, and runs it as it is."""

    def __init__(self):
        from functorch.compile import make_boxed_func
        from torch._dynamo.backends.common import aot_autograd

        self.seen = []

        def keep(graph, _):
            self.seen.append(graph)
            return make_boxed_func(graph.forward)

        self.compiler = aot_autograd(fw_compiler=keep, bw_compiler=keep)

    def counts(self):
        """For each graph how often each of this package's operators is in it, and the number of nodes."""
        return [operators_in(graph) for graph in self.seen]


def operators_in(graph):
    counts = {}
    for node in graph.graph.nodes:
        target = str(node.target)
        if target.startswith("momentumrnn."):
            name = target.split(".")[1]
            counts[name] = counts.get(name, 0) + 1
    return counts, len(graph.graph.nodes)


def results_of(run, layer, x):
    output, state = run(x)
    leaves = [x, *layer.parameters()]
    loss = output.square().sum() + sum(part.sum() for part in flat(state))
    return [output, *flat(state), *grad(loss, leaves, materialize_grads=True)]


def nodes_expected(name):
    """One recurrence for each layer and direction, and one rule before it."""
    return {"recurrence": 4} | ({RULE_OPERATOR[name]: 4} if name in RULE_OPERATOR else {})


@pytest.mark.parametrize("name", LAYERS)
def test_compiled_whole_with_one_node_a_recurrence(name):
    layer, graphs = stacked(name), Graphs()
    compiled = torch.compile(layer, fullgraph=True, backend=graphs.compiler, dynamic=False)
    x = random_input().requires_grad_()
    expected = results_of(layer, layer, x)
    for a, b in zip(results_of(compiled, layer, x), expected, strict=True):
        assert_close(a, b, **EXACT)
    (forward, _), (backward, _) = graphs.counts()
    assert forward == nodes_expected(name)
    assert backward == {f"{key}_backward": count for key, count in nodes_expected(name).items()}


def test_no_graph_grows_with_the_number_of_steps():
    layer, sizes = stacked("AdamLSTM", num_layers=1), []
    for T in (3, 50):
        torch._dynamo.reset()
        graphs = Graphs()
        compiled = torch.compile(layer, fullgraph=True, backend=graphs.compiler, dynamic=False)
        results_of(compiled, layer, random_input(T, 2, 3).requires_grad_())
        sizes.append([size for _, size in graphs.counts()])
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("name", ["MomentumLSTM", "AdamLSTM"])
def test_compiled_once_for_any_length_and_batch(name):
    layer = stacked(name, num_layers=1)
    graphs = Graphs()
    compiled = torch.compile(layer, fullgraph=True, backend=graphs.compiler, dynamic=True)
    # Longer than one interval of Adam's kept states: torch compiles anew where a size is one.
    for T, B in ((40, 2), (70, 3), (45, 5)):
        x = random_input(T, B, 3).requires_grad_()
        expected = results_of(layer, layer, x)
        for a, b in zip(results_of(compiled, layer, x), expected, strict=True):
            assert_close(a, b, **EXACT)
    assert len(graphs.seen) == 2, "one forward and one backward graph"


def test_compiled_with_a_state_and_in_float32():
    layer = stacked("AdamLSTM", carry_momentum=True, num_layers=1).float()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = random_input().float()
    with torch.no_grad():
        state, expected = None, None
        for _ in range(3):
            output, state = compiled(x, state)
            wanted, expected = layer(x, expected)
            for a, b in zip([output, *flat(state)], [wanted, *flat(expected)], strict=True):
                assert_close(a, b)


def test_a_packed_batch_goes_through_a_compiled_layer():
    layer = stacked("AdamLSTM", num_layers=1)
    compiled = torch.compile(layer, backend="eager")
    packed = pack_padded_sequence(random_input(5, 3, 3), [2, 5, 3], enforce_sorted=False)
    output, state = compiled(packed)
    expected, expected_state = layer(packed)
    for a, b in zip([output.data, *flat(state)], [expected.data, *flat(expected_state)], strict=True):
        assert_close(a, b, **EXACT)


@pytest.mark.parametrize(
    ("kind", "rule", "name"),
    [
        ("RNNCell", "none", "auto"),
        ("GRUCell", "nesterov", "auto"),
        ("LSTMCell", "adam", "auto"),
        ("GRUCell", "none", "reference"),
        ("LSTMCell", "nesterov", "cpu"),
    ],
)
def test_a_cell_is_compiled_whole(kind, rule, name):
    cell = getattr(momentumrnn, kind)(3, 5, dtype=torch.float64, rule=make_rule(rule, learnable=True))
    for batch in (1, 2):
        torch._dynamo.reset()
        compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
        state = expected = None
        x = random_input(batch, 3).requires_grad_()
        with backend(name):
            for _ in range(2):
                state, expected = compiled(x, state), cell(x, expected)
        for a, b in zip(flat(state), flat(expected), strict=True):
            assert_close(a, b, **EXACT)
        slopes = (grad(flat(out)[0].square().sum(), [x, *cell.parameters()]) for out in (state, expected))
        for a, b in zip(*slopes, strict=True):
            assert_close(a, b, **EXACT)


@pytest.mark.parametrize("name", ["vmap", "jvp", "hessian", "forward mode"])
@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
def test_a_cell_under_a_transform_takes_the_reference_step(rule, name):
    cell = momentumrnn.LSTMCell(3, 5, dtype=torch.float64, rule=make_rule(rule))
    x = random_input(2, 3)
    got = TRANSFORMS[name](cell, x)
    with backend("reference"):
        same_trees(got, TRANSFORMS[name](cell, x))


@pytest.mark.parametrize(("name", "strict"), [*((name, True) for name in LAYERS), ("AdamLSTM", False)])
def test_exported(name, strict):
    layer, x, sizes = stacked(name), random_input(), []
    for T in (4, 50) if name in RULE_OPERATOR else (4,):
        program = torch.export.export(layer, (random_input(T, 2, 3),), strict=strict)
        counts, size = operators_in(program.graph_module)
        assert counts == nodes_expected(name)
        sizes.append(size)
        if T == 4:
            for a, b in zip(flat(program.module()(x)), flat(layer(x)), strict=True):
                assert torch.equal(a, b)
    assert len(set(sizes)) == 1, "the program grows with the number of steps"


@pytest.mark.parametrize("name", LAYERS)
def test_exported_for_any_length_and_batch(name):
    layer = stacked(name, num_layers=1).requires_grad_(False)
    sizes = ({0: torch.export.Dim("T"), 1: torch.export.Dim("B")},)
    program = torch.export.export(layer, (random_input(),), dynamic_shapes=sizes)
    for T, B in ((7, 3), (40, 5)):
        x = random_input(T, B, 3)
        for a, b in zip(flat(program.module()(x)), flat(layer(x)), strict=True):
            assert torch.equal(a, b)


def test_an_exported_program_is_saved_and_loaded(tmp_path):
    layer = stacked("AdamLSTM")
    program = torch.export.export(layer, (random_input(),))
    torch.export.save(program, tmp_path / "layer.pt2")
    loaded = torch.export.load(tmp_path / "layer.pt2")
    x = random_input()
    for a, b in zip(flat(loaded.module()(x)), flat(layer(x)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["MomentumLSTM", "AdamLSTM"])
def test_another_backend_block_compiles_anew(name, monkeypatch):
    layer = stacked(name, num_layers=1, bidirectional=False)
    kernels, calls, graphs = extension(), [], []
    for kernel in ("forward", "linear_forward", "rule_forward"):
        original = getattr(kernels, kernel)
        monkeypatch.setattr(
            kernels, kernel, lambda *args, f=original, k=kernel: (calls.append(k), f(*args))[1]
        )

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(layer, backend=keep)
    x = random_input()
    expected = flat(layer(x))

    def kernels_run():
        calls.clear()
        for a, b in zip(flat(compiled(x)), expected, strict=True):
            assert_close(a, b, **EXACT)
        return sorted(calls)

    ours = sorted(["forward", "linear_forward" if name == "MomentumLSTM" else "rule_forward"])
    counts = []
    with torch.no_grad():
        for _ in range(2):
            assert kernels_run() == ours
            with backend("reference"):
                assert kernels_run() == []
            with backend("cpu"):
                assert kernels_run() == ours
            with backend("torch"):
                assert kernels_run() == []
            assert kernels_run() == ours
            counts.append(len(graphs))
    assert counts[0] == counts[1], "what was compiled for a block is not used again"


def test_a_compiled_layer_refuses_a_backend_that_cannot_run_it():
    layer = stacked("RNN", num_layers=1)
    compiled = torch.compile(layer, backend="eager")
    x = random_input()
    compiled(x)
    with backend("torch"), pytest.raises(BackendError, match="modrelu"):
        compiled(x)
    assert torch.equal(compiled(x)[0], layer(x)[0])


def test_blocks_of_other_threads_and_tasks_leave_a_compiled_layer_alone():
    layer = stacked("RNN", num_layers=1)
    compiled = torch.compile(layer, backend="eager")
    x = random_input()
    expected = layer(x)[0]
    inside, finish = threading.Event(), threading.Event()

    def refused():
        try:
            compiled(x)
        except BackendError:
            return True
        return False

    def in_a_thread():
        with backend("torch"):
            inside.set()
            finish.wait(60)

    async def in_a_task(name, steps):
        with backend(name):
            for _ in range(steps):
                await asyncio.sleep(0)

    async def two_tasks():
        await asyncio.gather(in_a_task("torch", 1), in_a_task("reference", 2))

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    try:
        assert inside.wait(60)
        assert torch.equal(compiled(x)[0], expected)
        with backend("torch"):
            assert refused()
    finally:
        finish.set()
        thread.join()
    assert torch.equal(compiled(x)[0], expected)

    asyncio.run(two_tasks())
    with backend("torch"):
        assert refused()
    assert torch.equal(compiled(x)[0], expected)


@pytest.mark.parametrize("name", LAYERS)
def test_traced_with_make_fx(name):
    """Whoever traces has to see the operators: its graph is for other numbers than those it was made with."""
    layer = stacked(name).requires_grad_(False)
    for mode in ("real", "fake", "symbolic"):
        graph = make_fx(lambda x: layer(x)[0], tracing_mode=mode, _allow_non_fake_inputs=True)(random_input())
        assert operators_in(graph)[0]["recurrence"] == 4
        x = random_input()
        assert_close(graph(x), layer(x)[0], **EXACT)


@pytest.mark.parametrize("name", LAYERS)
def test_traced_with_torch_jit(name):
    """A trace serves sequences of another number and length than its example, with gradients and without."""
    layer = stacked(name, num_layers=1)
    x = random_input()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, (x,))
    others = torch.randn(x.shape[0] + 3, x.shape[1] + 2, x.shape[2], dtype=x.dtype)
    for each in (x.requires_grad_(), others.requires_grad_()):
        for a, b in zip(results_of(traced, layer, each), results_of(layer, layer, each), strict=True):
            assert_close(a, b, **EXACT)
        with torch.no_grad():
            assert_close(traced(each)[0], layer(each)[0], **EXACT)


@pytest.mark.parametrize(
    ("rule", "dtype", "steps"),
    [
        ("nesterov", torch.float64, 30),
        ("heavy_ball", torch.float64, 30),
        ("heavy_ball", torch.float64, 5),
        ("nesterov", torch.bfloat16, 30),
        ("none", torch.float64, 1),
        ("heavy_ball", torch.float64, 1),
        ("adam", torch.float64, 1),
    ],
)
def test_a_trace_holds_no_length(rule, dtype, steps):
    """Neither that of the scan's chunks, nor that one step was one."""
    layer = momentumrnn.GRU(3, 5, dtype=dtype, rule=make_rule(rule, learnable=rule != "none"))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(layer, (torch.randn(steps, 2, 3, dtype=dtype),), check_trace=False)
        for other in (60, 33, 25, 10, 1):
            x = torch.randn(other, 2, 3, dtype=dtype)
            assert_close(traced(x)[0], layer(x)[0])


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("name", ["GRU", "MomentumGRU", "AdamGRU"])
def test_a_trace_of_a_packed_batch_holds_no_number_of_sequences(name, given):
    rules = {"GRU": "none", "MomentumGRU": "heavy_ball", "AdamGRU": "adam"}
    layer = momentumrnn.GRU(3, 5, dtype=torch.float64, rule=make_rule(rules[name])).requires_grad_(False)

    def run(data, sizes, h_0):
        packed = PackedSequence(data, sizes, None, None)
        return layer(packed, h_0 if given else None)[0].data

    def draw(*lengths):
        packed = pack_sequence([torch.randn(length, 3, dtype=torch.float64) for length in lengths])
        return packed.data, packed.batch_sizes, torch.randn(1, len(lengths), 5, dtype=torch.float64)

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(run, draw(5, 3, 1), check_trace=False)
        for lengths in ((5, 5, 5, 5), (7, 2), (1,)):
            others = draw(*lengths)
            assert_close(traced(*others), run(*others), **EXACT)


@pytest.mark.parametrize("learnable", [True, "channel"])
def test_a_learned_linear_rule_is_compiled_for_any_length(learnable):
    layer = momentumrnn.GRU(3, 5, dtype=torch.float64, rule=make_rule("nesterov", learnable=learnable))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for steps in (30, 33, 41, 20):
        x = torch.randn(steps, 2, 3, dtype=torch.float64, requires_grad=True)
        for a, b in zip(results_of(compiled, layer, x), results_of(layer, layer, x), strict=True):
            assert_close(a, b, **EXACT)


@pytest.mark.parametrize("rule", ["heavy_ball", "nesterov", "restart"])
def test_carried_momentum_is_exported_for_any_length(rule):
    layer = momentumrnn.GRU(3, 5, dtype=torch.float64, rule=make_rule(rule), carry_momentum=True)
    any_size = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        layer, (torch.randn(30, 2, 3, dtype=torch.float64),), dynamic_shapes=({0: any_size, 1: any_size},)
    )
    x = torch.randn(41, 4, 3, dtype=torch.float64)
    for a, b in zip(flat(program.module()(x)), flat(layer(x)), strict=True):
        assert_close(a, b, **EXACT)


@pytest.mark.parametrize("name", LAYERS)
def test_a_mode_that_looks_on_sees_the_operators(name):
    class Names(torch.utils._python_dispatch.TorchDispatchMode):
        seen: tuple = ()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.seen += (str(function),)
            return function(*args, **(kwargs or {}))

    layer = stacked(name, num_layers=1)
    x = random_input().requires_grad_()
    expected = results_of(layer, layer, x)
    with Names() as names:
        got = results_of(layer, layer, x)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    wanted = {"recurrence", "recurrence_backward"}
    if name in RULE_OPERATOR:
        wanted |= {RULE_OPERATOR[name], f"{RULE_OPERATOR[name]}_backward"}
    assert {seen.split(".")[1] for seen in names.seen if "momentumrnn" in seen} == wanted


def loss_of(layer):
    """A scalar that all parameters and the input matter to."""
    return lambda parameters, x: functional_call(layer, parameters, (x,))[0].square().sum()


def parameters_of(layer):
    return {name: parameter.detach() for name, parameter in layer.named_parameters()}


def same_trees(got, expected):
    for a, b in zip(
        torch.utils._pytree.tree_leaves(got), torch.utils._pytree.tree_leaves(expected), strict=True
    ):
        assert_close(a, b, rtol=1e-9, atol=1e-10)


def jacobian_by_vjp(function, x):
    output, pull = vjp(function, x)
    return torch.stack([pull(row.view_as(output))[0] for row in torch.eye(output.numel(), dtype=x.dtype)])


# What each makes of a layer's loss or output at x; all are the reference's to rounding.
TRANSFORMS = {
    "grad": lambda layer, x: torch.func.grad(loss_of(layer), (0, 1))(parameters_of(layer), x),
    "grad of x": lambda layer, x: torch.func.grad(lambda x: layer(x)[0].square().sum())(x),
    "grad of grad": lambda layer, x: torch.func.grad(
        lambda x: torch.func.grad(lambda x: layer(x)[0].square().sum())(x).square().sum()
    )(x),
    "grad without grad inside": lambda layer, x: torch.func.grad(
        lambda x: layer(x)[0].square().sum() + without_grad(layer, x).sum() * x.sum()
    )(x),
    "vmap": lambda layer, x: vmap(lambda x: layer(x)[0])(torch.stack([x, 2 * x])),
    "vmap of grad": lambda layer, x: vmap(torch.func.grad(loss_of(layer), (0, 1)), (None, 1))(
        parameters_of(layer), x
    ),
    "vjp": lambda layer, x: jacobian_by_vjp(lambda x: layer(x)[0], x),
    "jvp": lambda layer, x: jvp(lambda x: layer(x)[0], (x,), (torch.ones_like(x),)),
    "jacrev": lambda layer, x: jacrev(lambda x: layer(x)[0])(x),
    "jacrev of jacrev": lambda layer, x: jacrev(jacrev(lambda x: layer(x)[0].square().sum()))(x),
    "jacfwd": lambda layer, x: jacfwd(lambda x: layer(x)[0])(x),
    "hessian": lambda layer, x: hessian(lambda x: layer(x)[0].square().sum())(x),
    "autograd jacobian": lambda layer, x: torch.autograd.functional.jacobian(lambda x: layer(x)[0], x),
    "vectorized jacobian": lambda layer, x: torch.autograd.functional.jacobian(
        lambda x: layer(x)[0], x, vectorize=True
    ),
    "autograd hessian": lambda layer, x: torch.autograd.functional.hessian(
        lambda x: layer(x)[0].square().sum(), x
    ),
    "autograd hvp": lambda layer, x: torch.autograd.functional.hvp(
        lambda x: layer(x)[0].square().sum(), x, torch.ones_like(x)
    ),
    "checkpoint": lambda layer, x: slope_of(lambda x: checkpoint(layer, x, use_reentrant=False)[0], x),
    "save on cpu": lambda layer, x: slope_of(lambda x: saved_on_cpu(layer, x), x),
    "forward mode": lambda layer, x: tangent_of(layer, x),
    "forward mode, frozen": lambda layer, x: tangent_of(copy.deepcopy(layer).requires_grad_(False), x),
    "forward mode, of a weight": lambda layer, x: tangent_of_a_weight(layer, x),
    "inference": lambda layer, x: in_inference(layer, x),
    "negative view": lambda layer, x: layer(torch._neg_view(x))[0],
    "conjugate": lambda layer, x: layer(torch.complex(x, x.flip(0)).conj().imag)[0],
    "subclass": lambda layer, x: layer(x.as_subclass(Plain))[0].as_subclass(torch.Tensor),
}


class Plain(torch.Tensor):
    pass


def without_grad(layer, x):
    with torch.no_grad():
        return layer(x)[0]


def slope_of(function, x):
    x = x.clone().requires_grad_()
    return grad(function(x).square().sum(), x)[0]


def saved_on_cpu(layer, x):
    with save_on_cpu():
        return layer(x)[0]


def tangent_of(layer, x):
    with forward_ad.dual_level():
        output = layer(forward_ad.make_dual(x, torch.ones_like(x)))[0]
        return forward_ad.unpack_dual(output)


def tangent_of_a_weight(layer, x):
    parameters = parameters_of(layer)
    with forward_ad.dual_level():
        weight = parameters["weight_hh_l0"]
        parameters["weight_hh_l0"] = forward_ad.make_dual(weight, torch.ones_like(weight))
        return forward_ad.unpack_dual(functional_call(layer, parameters, (x,))[0])


def in_inference(layer, x):
    with torch.inference_mode():
        output = layer(x)[0]
    assert output.is_inference()
    return output.clone()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", LAYERS)
def test_transforms_give_what_the_reference_gives(name, transform):
    layer, x = stacked(name, num_layers=1), random_input(3, 2, 3)
    with backend("reference"):
        expected = TRANSFORMS[transform](layer, x)
    got = TRANSFORMS[transform](layer, x)
    assert None not in torch.utils._pytree.tree_leaves(got)
    same_trees(got, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_many_gradients_at_once(name):
    layer, x = stacked(name, num_layers=1), random_input(3, 2, 3).requires_grad_()
    rows = torch.eye(3 * 2 * 10, dtype=torch.float64).reshape(-1, 3, 2, 10)
    slopes = grad(layer(x)[0], x, rows, is_grads_batched=True)[0]
    for row, slope in zip(rows, slopes, strict=True):
        assert_close(slope, grad(layer(x)[0], x, row)[0], **EXACT)


ON_THE_KERNELS = [
    "grad",
    "grad of x",
    "grad of grad",
    "vmap",
    "vmap of grad",
    "vjp",
    "jacrev",
    "jacrev of jacrev",
]


@pytest.mark.parametrize("transform", ON_THE_KERNELS)
@pytest.mark.parametrize("name", LAYERS)
def test_transforms_run_on_the_kernels(name, transform):
    layer, x = stacked(name, num_layers=1), random_input(3, 2, 3)
    with backend("cpu"):
        got = TRANSFORMS[transform](layer, x)
    with backend("reference"):
        same_trees(got, TRANSFORMS[transform](layer, x))


@pytest.mark.parametrize("what", ["first", "second"])
@pytest.mark.parametrize("velocity", [None, "gate", "hidden"])
def test_a_derivative_to_be_taken_again_counts_every_path_once(velocity, what):
    """The second chunk's state comes from the weights, in hidden velocity its input's weight comes from U."""
    rule = None if velocity is None else momentumrnn.rules.HeavyBall(0.5, 0.7, velocity=velocity)
    layer, x = momentumrnn.LSTM(3, 5, rule=rule).double(), random_input(4, 2, 3)
    leaves, found = list(layer.parameters()), []
    for name in ("reference", "cpu"):
        with backend(name):
            _, state = layer(x)
            output, _ = layer(x.tanh(), state)
            slopes = grad(output.square().sum(), leaves, create_graph=True)
            again = (
                grad(sum(slope.square().sum() for slope in slopes), leaves) if what == "second" else slopes
            )
            found.append([each.detach() for each in again])
    same_trees(*found)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("rule", "features"), [*((rule, 3) for rule in ("none", *RULES)), ("adam", MANY)])
@pytest.mark.parametrize("cell", ["rnn_modrelu", "gru", "lstm", "lstm_original"])
def test_a_graph_can_be_gone_through_twice(cell, rule, features, packed):
    layer = make_layer(cell, rule, learnable=True, num_layers=2, input_size=features)
    x = random_input(5, 3, features).requires_grad_()
    with backend("cpu"):
        output, state = layer(pack_padded_sequence(x, [5, 2, 1]) if packed else x)
    loss = (output.data if packed else output).square().sum() + flat(state)[0].sum()
    leaves = [x, *layer.parameters()]
    once = grad(loss, leaves, retain_graph=True)
    again = grad(loss, leaves, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    for a, b in zip(grad(3 * loss, leaves), once, strict=True):
        assert_close(a, 3 * b, **EXACT)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("rule", "features"), [*((rule, 3) for rule in ("none", *RULES)), ("adam", MANY)])
@pytest.mark.parametrize("cell", ["rnn_modrelu", "gru", "lstm", "lstm_original"])
def test_second_derivatives_in_eager_mode(cell, rule, features, packed):
    layer = make_layer(cell, rule, num_layers=2, input_size=features)
    x = random_input(5, 3, features).requires_grad_()
    leaves, found = [x, *layer.parameters()], []
    for name in ("reference", "cpu"):
        with backend(name):
            output = layer(pack_padded_sequence(x, [5, 2, 1]) if packed else x)[0]
            loss = (output.data if packed else output).square().sum()
            slopes = grad(loss, leaves, create_graph=True)
            second = sum(slope.square().sum() for slope in slopes)
            found.append([*slopes, *grad(second, leaves, materialize_grads=True)])
    for a, b in zip(*found, strict=True):
        assert_close(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["AdamLSTM", "RMSPropLSTM"])
def test_gate_inputs_of_an_adaptive_rule_are_not_kept(name):
    """They are as large as all gates, and first derivatives do without them."""
    layer, x = getattr(momentumrnn, name)(2, 64), torch.randn(50, 32, 2)
    before = memory().in_use
    with backend("cpu"):
        output, _ = layer(x)
    gates = 50 * 32 * 4 * 64 * 4
    assert gates <= memory().in_use - before < 1.6 * gates
    output.sum().backward()


def test_what_gate_inputs_are_made_of_again_must_not_have_changed():
    layer, x = momentumrnn.AdamLSTM(2, 5), torch.randn(4, 3, 2)
    with backend("cpu"):
        output, _ = layer(x)
    with torch.no_grad():
        layer.weight_ih_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        grad(output.square().sum(), layer.weight_hh_l0, create_graph=True)


@pytest.mark.parametrize("again", [False, True])
def test_gate_inputs_without_a_gradient_are_kept(again):
    """Nobody else saves what they were made of, which may change: a frozen first layer, loaded anew."""
    layer, x = momentumrnn.AdamLSTM(2, 5), torch.randn(4, 3, 2)
    layer.weight_ih_l0.requires_grad_(False)
    layer.bias_ih_l0.requires_grad_(False)

    def slope(change):
        with backend("cpu"):
            output, _ = layer(x)
        layer.weight_ih_l0.mul_(change)
        return grad(output.square().sum(), layer.weight_hh_l0, create_graph=again)[0]

    expected = slope(1)
    assert_close(slope(2), expected, rtol=0, atol=0)


def test_the_backward_operators_refuse_a_derivative_and_say_what_to_do():
    inputs = recurrence_inputs("lstm", False, False)
    output, _, _, gates, cells = OPS.recurrence(*inputs, True)
    slope = torch.randn_like(output).requires_grad_()
    wanted = [t is not None for t in inputs[1:9]]
    grads = OPS.recurrence_backward(*inputs, output, gates, cells, slope, None, None, wanted)
    with pytest.raises(BackendError, match=r'momentumrnn\.backend\("reference"\)'):
        grads[0].sum().backward()
    inputs = adaptive_inputs(False, False, requires_grad=False)
    d, _, _, saved, product = OPS.adaptive_rule(*inputs, True, None)
    slope = torch.randn_like(d).requires_grad_()
    wanted = [True] * 4 + [False] * 2
    grads = OPS.adaptive_rule_backward(*inputs, saved, product, slope, None, None, wanted)
    with pytest.raises(BackendError, match=r'momentumrnn\.backend\("reference"\)'):
        grads[0].sum().backward()


def test_a_linear_filter_has_derivatives_of_any_order():
    x, decay = random_input().requires_grad_(), torch.rand(4, 2, dtype=torch.float64)

    def run(x):
        p, last = linear_filter(x, True, decay, 0.5, None)
        return (p**3).sum() + (last**3).sum()

    assert torch.autograd.gradcheck(run, x)
    assert torch.autograd.gradgradcheck(run, x)
    (first,) = grad(run(x), x, create_graph=True)
    (second,) = grad((first**2).sum(), x, create_graph=True)
    assert torch.autograd.gradcheck(lambda x: second_of(run, x), x)
    assert second.requires_grad


def second_of(run, x):
    (first,) = grad(run(x), x, create_graph=True)
    return grad((first**2).sum(), x, create_graph=True)[0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_derivative_is_that_of_finite_differences(cell, packed):
    inputs = recurrence_inputs(cell, packed, False, requires_grad=True)
    tensors = [t for t in inputs if isinstance(t, torch.Tensor) and t.is_floating_point()]
    places = [k for k, t in enumerate(inputs) if isinstance(t, torch.Tensor) and t.is_floating_point()]

    def run(*given):
        all_inputs = list(inputs)
        for place, tensor in zip(places, given, strict=True):
            all_inputs[place] = tensor
        results = OPS.recurrence(*all_inputs, True)
        return results[: 3 if cell.startswith("lstm") else 2]

    assert torch.autograd.gradcheck(run, tensors)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        (name, what)
        for name in LAYERS
        for what in ("the output", "the input", "a weight", "the initial state")
        if (name, what) != ("MomentumLSTM", "the input")
    ],
)
def test_a_tensor_changed_before_the_backward_pass_is_noticed(name, what):
    layer = stacked(name, num_layers=1, bidirectional=False)
    x = random_input(4, 2, 3).requires_grad_().clone()
    h_0 = random_input(1, 2, 5)
    state = (h_0, random_input(1, 2, 5)) if "LSTM" in name else h_0
    output, _ = layer(x, state)
    changed = {"the output": output, "the input": x, "a weight": layer.weight_hh_l0, "the initial state": h_0}
    with torch.no_grad():
        changed[what].add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_a_linear_rule_does_not_need_its_input_again():
    """The filter is linear and needs no x; the recurrence reads the filter's result."""
    source = random_input(4, 2, 3).requires_grad_()
    x = source.clone()
    output, _ = stacked("MomentumLSTM", num_layers=1, bidirectional=False)(x)
    expected = grad(output.sum(), source, retain_graph=True)[0]
    with torch.no_grad():
        x.add_(1.0)
    assert torch.equal(grad(output.sum(), source)[0], expected)


def test_results_can_be_changed_in_place_where_nothing_hangs_on_them():
    layer = stacked("MomentumLSTM", num_layers=1)
    x = random_input().requires_grad_()
    output, (h_n, c_n) = layer(x)
    expected = grad(output.sum() + 2 * h_n.sum() + 3 * c_n.sum(), x)[0]
    output, (h_n, c_n) = layer(x)
    assert_close(grad(output.sum() + h_n.mul_(2).sum() + c_n.mul_(3).sum(), x)[0], expected, **EXACT)
    with torch.no_grad():
        layer(x)[0].zero_()
        first = layer(x)[0].clone()
        layer(x)[0].zero_()
        assert torch.equal(layer(x)[0], first)


def test_the_operators_are_there_once_the_package_is_imported():
    """So that a program exported with them can be loaded, with or without the kernels."""
    for name in ("recurrence", "linear_filter", "adaptive_rule"):
        for each in (name, f"{name}_backward"):
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"momentumrnn::{each}", "CPU")
            assert torch._C._dispatch_has_kernel_for_dispatch_key(f"momentumrnn::{each}", "Meta") or (
                torch._library.simple_registry.singleton.find(f"momentumrnn::{each}").fake_impl.kernel
            )
