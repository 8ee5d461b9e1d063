"""What PyTorch can do to a module: copies, ensembles, dtypes, devices, autocast, higher derivatives."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import grad
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import pack_sequence
from torch.testing import assert_close

import momentumrnn
from cases import (
    CELLS,
    LEARNABLE_CASES,
    ORTHOGONAL_CELLS,
    RULE_CASES,
    RULES,
    VELOCITIES,
    flat,
    make_layer,
    make_rule,
)
from momentumrnn.rules import Adam, RMSProp

ALL_RULES = ["none", *RULES]


def moved(layer):
    """The layer with every parameter, learned coefficients included, away from where it started."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.rand_like(parameter) * 0.2)
    return layer


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state_dict"])
@pytest.mark.parametrize("learnable", [False, "channel"])
@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_copies(cell, rule, learnable, how):
    options = {"num_layers": 2, "bidirectional": True}
    layer = moved(make_layer(cell, rule, learnable=learnable, **options))
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    expected = layer(x)[0]  # a copy must also work after the layer has run
    if how == "deepcopy":
        other = copy.deepcopy(layer)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(layer))
    else:
        other = make_layer(cell, rule, learnable=learnable, seed=1, **options)
        other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x)[0], expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert torch.equal(layer(x)[0], expected)


@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
@pytest.mark.parametrize("cell", CELLS)
def test_functional_call_uses_the_parameters_it_is_given(cell, rule, velocity):
    one = make_layer(cell, rule, velocity, True, num_layers=2)
    two = moved(make_layer(cell, rule, velocity, True, num_layers=2, seed=1))
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    given = {name: p.detach().clone().requires_grad_() for name, p in two.named_parameters()}
    output, _ = functional_call(one, given, (x,))
    assert_close(output, two(x)[0], rtol=1e-12, atol=1e-12)
    got = grad(output.sum(), list(given.values()))
    expected = grad(two(x)[0].sum(), list(two.parameters()))
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("rule", "velocity", "learnable"), [case for case in LEARNABLE_CASES if case[-1] is not True]
)
@pytest.mark.parametrize("cell", CELLS)
def test_an_ensemble_under_vmap_equals_its_members(cell, rule, velocity, learnable):
    members = [
        moved(make_layer(cell, rule, velocity, learnable, bidirectional=True, seed=seed)) for seed in range(3)
    ]
    parameters, buffers = stack_module_state(members)
    base = copy.deepcopy(members[0]).to("meta")

    def loss(parameters, buffers, x):
        output, state = functional_call(base, (parameters, buffers), (x,))
        return output.square().sum() + flat(state)[0].sum(), output

    # One input for all members, or one for each.
    in_dim = 0 if learnable else None
    inputs = torch.randn(*([3] if learnable else []), 4, 2, 3, dtype=torch.float64)
    outputs = vmap(loss, (0, 0, in_dim))(parameters, buffers, inputs)[1]
    slopes, (_, again) = vmap(grad_and_value(loss, has_aux=True), (0, 0, in_dim))(parameters, buffers, inputs)
    assert_close(again, outputs)
    for n, member in enumerate(members):
        output, state = member(inputs[n] if learnable else inputs)
        assert_close(outputs[n], output, rtol=1e-10, atol=1e-10)
        expected = grad(output.square().sum() + flat(state)[0].sum(), list(member.parameters()))
        for (name, _), value in zip(member.named_parameters(), expected, strict=True):
            assert_close(slopes[name][n], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
def test_gradients_for_each_sample(cell, rule):
    layer = make_layer(cell, rule)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    x = torch.randn(3, 4, 3, dtype=torch.float64)  # three unbatched sequences

    def loss(parameters, sequence):
        return functional_call(layer, parameters, (sequence,))[0].square().sum()

    slopes = vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    for n in range(3):
        expected = grad(layer(x[n])[0].square().sum(), list(layer.parameters()))
        for name, value in zip(parameters, expected, strict=True):
            assert_close(slopes[name][n], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_double_backward_outside_any_backend_block(cell, rule, dtype):
    layer = make_layer(cell, rule, learnable=True).to(dtype)
    x = torch.randn(4, 2, 3, dtype=dtype, requires_grad=True)
    results = []
    for backend in ("auto", "reference"):
        with momentumrnn.backend(backend):
            (slope,) = grad(layer(x)[0].square().sum(), x, create_graph=True)
            results.append(grad(slope.square().sum(), [x, *layer.parameters()], materialize_grads=True))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    for a, b in zip(*results, strict=True):
        # Second derivatives reach 1e5, and rounding errors grow with the largest terms of their sums.
        assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("learnable", [False, "channel"])
@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_from_the_meta_device(cell, rule, learnable):
    kind, arguments, _ = CELLS[cell]
    make = getattr(momentumrnn, kind)

    def build(device):
        torch.manual_seed(7)
        return make(3, 5, num_layers=2, rule=make_rule(rule, learnable=learnable), device=device, **arguments)

    expected = build("cpu")
    layer = build("meta")
    assert all(parameter.is_meta for parameter in layer.parameters())
    assert layer(torch.randn(4, 2, 3, device="meta"))[0].shape == (4, 2, layer.weight_hh_l0.shape[1])
    layer = layer.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            tensor.fill_(math.nan if tensor.is_floating_point() else -1)
    torch.manual_seed(7)
    layer.reset_parameters()
    x = torch.randn(4, 2, 3)
    assert torch.equal(layer(x)[0], expected(x)[0])


@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in ORTHOGONAL_CELLS])
def test_default_initialisation_is_in_bounds(cell, rule):
    kind, arguments, _ = CELLS[cell]
    layer = getattr(momentumrnn, kind)(3, 25, num_layers=2, rule=make_rule(rule, learnable=True), **arguments)
    for name, parameter in layer.named_parameters():
        if name.startswith("rule_"):
            continue
        bound = 0.01 if "modrelu" in name else 1 / math.sqrt(25)
        assert parameter.abs().max() <= bound
        assert parameter.abs().max() > 0.5 * bound


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
@pytest.mark.parametrize("cell", CELLS)
def test_dtypes(cell, rule, velocity, dtype):
    kind, arguments, _ = CELLS[cell]
    carry = {"carry_momentum": True} if rule != "none" else {}
    layer = getattr(momentumrnn, kind)(
        3, 5, dtype=dtype, rule=make_rule(rule, velocity, True), **carry, **arguments
    )
    x = torch.randn(4, 2, 3, dtype=dtype)
    output, state = layer(x)
    assert output.dtype == dtype
    assert (state[0] if isinstance(state, tuple) else state).dtype == dtype
    assert layer(x, state)[0].dtype == dtype  # its own state is one it accepts
    exact = copy.deepcopy(layer).double()
    for name, parameter in exact.named_parameters():
        assert parameter.dtype == torch.float64, name
    tolerance = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    assert_close(output.double(), exact(x.double())[0], rtol=tolerance, atol=tolerance)
    output.sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_autocast(cell, rule):
    layer = make_layer(cell, rule, learnable=True, num_layers=2, carry_momentum=rule != "none").float()
    x = torch.randn(6, 2, 3)
    expected = layer(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        output, state = layer(x)
        again, _ = layer(x, state)  # its own state is one it accepts
    assert again.dtype == output.dtype
    assert output.dtype in (torch.bfloat16, torch.float32)
    assert (output - expected).norm() <= 0.03 * expected.norm()
    output.float().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_autocast_leaves_float64_alone(cell, rule):
    layer = make_layer(cell, rule, learnable="channel", num_layers=2)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = layer(x)
    assert_close(output, layer(x)[0])


@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_torch_s_default_device_is_where_things_are_made_and_no_more(cell, rule):
    layer = make_layer(cell, rule, num_layers=2, bidirectional=True)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    packed = pack_sequence([x[:, 0], x[:2, 1]])
    expected = layer(x)[0], layer(packed)[0].data
    with torch.device("meta"):
        found = layer(x)[0], layer(packed)[0].data
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["MomentumLSTM", "MomentumGRU", "ExpRNN", "DTRIV", "MomentumDTRIV"])
def test_shapes_without_memory(kind):
    with FakeTensorMode():
        layer = getattr(momentumrnn, kind)(3, 5)
        assert layer(torch.randn(4, 2, 3))[0].shape == (4, 2, 5)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_autocast_gives_the_dtype_that_torch_gives(kind):
    x = torch.randn(4, 2, 3)
    theirs, ours = getattr(nn, kind)(3, 5), getattr(momentumrnn, kind)(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x)[0].dtype == theirs(x)[0].dtype


@pytest.mark.parametrize("rule", [Adam(0.6, 1.0, 0.01), RMSProp(1.0, 0.01)])
def test_a_drive_of_all_but_zero_keeps_its_sign_under_autocast(rule):
    """A step of full size hangs on it: of W and x in bfloat16 a tenth of the gradient was wrong."""
    torch.manual_seed(0)
    layer = momentumrnn.LSTM(20, 64, rule=rule)
    x, slope = torch.randn(64, 8, 20, requires_grad=True), torch.randn(64, 8, 64)

    def results(output, x):
        return [output, *grad((output * slope).sum(), [x, *layer.parameters()])]

    expected = results(layer(x)[0], x)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(x)[0]
    for got, want in zip(results(output, x), expected, strict=True):
        assert (got - want).norm() <= 0.02 * want.norm()


@pytest.mark.parametrize("velocity", VELOCITIES)
@pytest.mark.parametrize("rule", ["heavy_ball", "nesterov", "restart"])
def test_a_long_memory_survives_autocast(rule, velocity):
    """In bfloat16 a velocity of momentum 0.999 would stop growing at an eighth of its value."""
    numbers = {
        "heavy_ball": momentumrnn.rules.HeavyBall(0.999, 0.001, velocity=velocity),
        "nesterov": momentumrnn.rules.Nesterov(0.001, velocity=velocity),
        "restart": momentumrnn.rules.ScheduledRestart(5000, 0.001, velocity=velocity),
    }
    layer = momentumrnn.RNN(1, 1, nonlinearity="relu", rule=numbers[rule], bias=False, carry_momentum=True)
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1.0)
        layer.weight_hh_l0.fill_(0.25)
    x = torch.ones(3000, 1, 1)
    expected, (_, m) = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        output, (_, m_low) = layer(x)
    assert_close(output.float(), expected, rtol=2e-2, atol=1e-3)
    assert m_low.velocity.dtype == torch.float32
    assert_close(m_low.velocity, m.velocity, rtol=1e-2, atol=0)
    state = None
    with torch.autocast("cpu", torch.bfloat16):
        for chunk in x.split(100):
            _, state = layer(chunk, state)
    assert_close(state[1].velocity, m.velocity, rtol=1e-2, atol=0)


@pytest.mark.parametrize("rule", ALL_RULES)
def test_device_and_dtype_arguments_reach_every_parameter(rule):
    for cell, (kind, arguments, _) in CELLS.items():
        layer = getattr(momentumrnn, kind)(
            3, 5, device="meta", dtype=torch.float64, rule=make_rule(rule, learnable="channel"), **arguments
        )
        for name, parameter in layer.named_parameters():
            assert parameter.is_meta, (cell, name)
            assert parameter.dtype == torch.float64, (cell, name)


@pytest.mark.parametrize("rule", ALL_RULES)
@pytest.mark.parametrize("cell", ["rnn_relu", "rnn_modrelu", "lstm", "gru"])
def test_no_grad_and_inference_mode_change_nothing(cell, rule):
    layer = make_layer(cell, rule, num_layers=2, bidirectional=True)
    sequences = [torch.randn(n, 3, dtype=torch.float64) for n in (4, 2)]
    for x in (torch.randn(4, 2, 3, dtype=torch.float64), pack_sequence(sequences)):
        expected = flat(layer(x)[1])
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                got = flat(layer(x)[1])
            for a, b in zip(got, expected, strict=True):
                assert not a.requires_grad
                assert_close(a.clone(), b.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", ["heavy_ball", "adam"])
def test_input_that_is_not_contiguous(rule):
    layer = make_layer("lstm", rule)
    x = torch.randn(2, 3, 4, dtype=torch.float64).permute(2, 0, 1)
    assert not x.is_contiguous()
    assert_close(layer(x)[0], layer(x.contiguous())[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_frozen_parameters_get_no_gradient(rule):
    layer = make_layer("lstm", rule, learnable=True)
    layer.weight_hh_l0.requires_grad_(False)
    next(layer.rule_l0.parameters()).requires_grad_(False)
    layer(torch.randn(4, 2, 3, dtype=torch.float64))[0].sum().backward()
    for parameter in layer.parameters():
        assert (parameter.grad is not None) == parameter.requires_grad


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_gradient_of_torch_func_inside_a_graph(cell, rule):
    """Operators have no rule for it; the graph then holds another backend."""
    layer = make_layer(cell, rule)
    x = torch.randn(3, 4, 2, 3, dtype=torch.float64)

    def slope(x):
        return torch.func.grad(lambda x: layer(x)[0].square().sum())(x)

    expected = slope(x[0])
    torch._dynamo.reset()
    assert_close(torch.compile(slope, backend="aot_eager")(x[0]), expected)
    assert_close(torch.compile(vmap(slope), backend="aot_eager")(x), vmap(slope)(x))
    assert_close(make_fx(slope)(x[0])(x[0]), expected)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_package_of_the_reference_needs_no_operator_of_ours(backend):
    if backend == "cpu":
        pytest.importorskip("momentumrnn.kernels._cpu", reason="the C++ kernels were not built")
    layer = momentumrnn.MomentumLSTM(3, 5).eval()
    with momentumrnn.backend(backend), torch.no_grad():
        program = torch.export.export(layer, (torch.randn(7, 2, 3),))
    ours = [node for node in program.graph.nodes if "momentumrnn" in str(node.target)]
    assert bool(ours) == (backend == "cpu")
