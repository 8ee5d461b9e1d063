"""Every rule in every cell against the loop of the equations: values, states and gradients."""

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

import momentumrnn
import oracle
from cases import (
    BACKEND_CASES,
    CELLS,
    LEARNABLE_CASES,
    RULE_CASES,
    RULES,
    VELOCITIES,
    flat,
    has_memory_cell,
    make_layer,
    oracle_layer,
    random_memory,
    state_of,
)

# T, B: odd, and a single step or sequence; 14 steps are more than one chunk of the scan.
SIZES = {True: [(7, 3), (1, 1)], False: [(14, 1), (1, 3)]}


def draw_state(layer, cell, rule, B):
    """An initial h, c and memory for every stacked layer and direction, as if long under way."""
    places = layer.num_layers * (2 if layer.bidirectional else 1)
    h = torch.randn(places, B, getattr(layer, "proj_size", 0) or layer.hidden_size, dtype=torch.float64)
    c = torch.randn(places, B, layer.hidden_size, dtype=torch.float64)
    return h, c, random_memory(places, B, layer.weight_ih_l0.shape[0])


def given(cell, rule, h, c, memory):
    """The state in the form a layer takes it."""
    m = () if rule == "none" else (state_of(rule, memory),)
    if has_memory_cell(cell):
        return (h, c, *m)
    return (h, *m) if m else h


def as_list(output, state):
    """Everything a layer returns as one flat list of floating point tensors, and the step counts."""
    parts = [output, *flat(state)]
    return [p for p in parts if p.is_floating_point()], [p for p in parts if not p.is_floating_point()]


def check(layer, cell, rule, velocity, T, B, backend, with_state):
    x = torch.randn(T, B, layer.input_size, dtype=torch.float64, requires_grad=True)
    h, c, memory = draw_state(layer, cell, rule, B) if with_state else (None, None, None)
    leaves = [x, *layer.parameters()]
    if with_state:
        state = given(cell, rule, h, c, memory)
        leaves += [part.requires_grad_() for part in flat(state) if part.is_floating_point()]
        if rule == "aggmo":
            # Its state holds both velocities in one tensor, which is the leaf.
            memory = memory._replace(v=state[-1].velocities[..., 0, :], m=state[-1].velocities[..., 1, :])
    else:
        state = None

    with momentumrnn.backend(backend):
        output, new_state = layer(x, state)
    got, got_steps = as_list(output, new_state)

    expected_output, *expected_state = oracle_layer(layer, cell, rule, velocity, x, h, c, memory)
    expected, expected_steps = as_list(expected_output, given(cell, rule, *expected_state))

    cotangents = [torch.randn_like(part) for part in expected]
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-9)
    for a, b in zip(got_steps, expected_steps, strict=True):
        assert torch.equal(a, b)

    def gradients(outputs):
        loss = sum((part * w).sum() for part, w in zip(outputs, cotangents, strict=True))
        return grad(loss, leaves, materialize_grads=True)

    for a, b in zip(gradients(got), gradients(expected), strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(("rule", "velocity", "learnable"), LEARNABLE_CASES)
@pytest.mark.parametrize(("cell", "backend"), BACKEND_CASES)
def test_values_states_and_gradients(cell, rule, velocity, learnable, backend, with_state):
    layer = make_layer(cell, rule, velocity, learnable, carry_momentum=rule != "none")
    for T, B in SIZES[with_state]:
        check(layer, cell, rule, velocity, T, B, backend, with_state)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
@pytest.mark.parametrize("cell", CELLS)
def test_stacked_and_bidirectional(cell, rule, velocity, bidirectional, bias):
    layer = make_layer(
        cell,
        rule,
        velocity,
        True,
        num_layers=2,
        bidirectional=bidirectional,
        bias=bias,
        carry_momentum=rule != "none",
    )
    check(layer, cell, rule, velocity, 5, 2, "auto", with_state=True)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 4), (4, 1), (6, 2)])
@pytest.mark.parametrize("velocity", VELOCITIES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "lstm_projected"])
def test_more_and_fewer_inputs_than_hidden_units(cell, rule, velocity, sizes):
    """Where the filter runs, over the input or over the gates, may hang on the sizes; the result may not."""
    d, hidden = sizes
    layer = make_layer(cell, rule, velocity, input_size=d, hidden_size=hidden, carry_momentum=True)
    check(layer, cell, rule, velocity, 6, 2, "auto", with_state=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_momentum_need_not_be_carried(cell, rule):
    """Without carry_momentum the state is torch's own, and the velocity starts from zero."""
    carrying = make_layer(cell, rule, carry_momentum=True)
    plain = make_layer(cell, rule)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    h, c, _ = draw_state(plain, cell, rule, 2)
    output, state = plain(x, given(cell, "none", h, c, None))
    expected, expected_state = carrying(x, (h, c, None) if has_memory_cell(cell) else (h, None))
    assert torch.equal(output, expected)
    for a, b in zip(flat(state), flat(expected_state[:-1]), strict=True):
        assert torch.equal(a, b)
    assert isinstance(state, tuple) == has_memory_cell(cell)


@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
@pytest.mark.parametrize("cell", CELLS)
def test_first_and_second_derivatives_by_finite_differences(cell, rule, velocity):
    layer = make_layer(cell, rule, velocity, True, input_size=1, hidden_size=3, carry_momentum=rule != "none")
    names, parameters = zip(*layer.named_parameters(), strict=True)
    h, c, memory = draw_state(layer, cell, rule, 1)
    state = given(cell, rule, h, c, memory)
    floats = [part for part in flat(state) if part.is_floating_point()]

    x = torch.randn(2, 1, 1, dtype=torch.float64)
    leaves = [t.detach() for t in (x, *floats, *parameters)]

    def run(vector):
        """The layer as a function of its input, state and parameters, all in one vector."""
        parts = vector.split([t.numel() for t in leaves])
        x, *rest = (part.reshape(t.shape) for part, t in zip(parts, leaves, strict=True))
        own, now = iter(rest[: len(floats)]), rest[len(floats) :]
        filled = refill(state, lambda part: next(own) if part.is_floating_point() else part)
        output, new = torch.func.functional_call(layer, dict(zip(names, now, strict=True)), (x, filled))
        return tuple(as_list(output, new)[0])

    vector = torch.cat([t.flatten() for t in leaves]).requires_grad_()
    with momentumrnn.backend("reference"):
        assert gradcheck(run, vector, fast_mode=True)
        assert gradgradcheck(run, vector, fast_mode=True)


def refill(state, function):
    """The state's structure with every tensor replaced, in the order of ``flat``."""
    if state is None or isinstance(state, torch.Tensor):
        return None if state is None else function(state)
    parts = [refill(part, function) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_unit_step_without_momentum_is_the_plain_layer(cell, backend):
    kind, arguments, _ = CELLS[cell]
    plain = make_layer(cell, "none", num_layers=2, bidirectional=True)
    identity = momentumrnn.rules.HeavyBall(0.0, 1.0)
    layer = getattr(momentumrnn, kind)(
        3, 5, num_layers=2, bidirectional=True, dtype=torch.float64, rule=identity, **arguments
    )
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(9, 2, 3, dtype=torch.float64)
    with momentumrnn.backend(backend):
        got, expected = layer(x), plain(x)
    assert_close(got[0], expected[0], rtol=1e-12, atol=1e-12)
    for a, b in zip(flat(got[1]), flat(expected[1]), strict=True):
        assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_bias_bias_ih_passes_through_the_rule_and_bias_hh_does_not():
    """By hand: one unit, no weights, momentum 1/2; after two steps bias_ih counts 3/2 times, bias_hh once."""
    layer = momentumrnn.RNN(
        1, 1, nonlinearity="relu", dtype=torch.float64, rule=momentumrnn.rules.HeavyBall(0.5, 1.0)
    )
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bias_ih_l0.fill_(2.0)
        layer.bias_hh_l0.fill_(0.25)
    output, _ = layer(torch.zeros(2, 1, 1, dtype=torch.float64))
    assert output.flatten().tolist() == [2.25, 3.25]


def test_the_oracle_is_the_plain_recurrence_of_torch():
    """A check of the check: without a rule the equations are torch.nn's."""
    for name, kind, options in (
        ("rnn_tanh", torch.nn.RNN, {}),
        ("rnn_relu", torch.nn.RNN, {"nonlinearity": "relu"}),
        ("lstm", torch.nn.LSTM, {}),
        ("lstm_projected", torch.nn.LSTM, {"proj_size": 2}),
        ("gru", torch.nn.GRU, {}),
    ):
        layer = kind(3, 5, num_layers=2, bidirectional=True, dtype=torch.float64, **options)
        x = torch.randn(6, 2, 3, dtype=torch.float64)
        h, c, _ = draw_state(layer, name, "none", 2)
        expected, state = layer(x, given(name, "none", h, c, None))
        output, h_n, c_n, _ = oracle_layer(layer, name, "none", "gate", x, h, c)
        assert_close(output, expected, rtol=1e-12, atol=1e-12)
        for a, b in zip(flat(given(name, "none", h_n, c_n, None)), flat(state), strict=True):
            assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert oracle.momentum_at(oracle.Rule("restart", period=2), torch.tensor([3])).item() == 0.25
