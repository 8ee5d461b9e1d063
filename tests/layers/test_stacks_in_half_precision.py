"""Between stacked layers nothing is rounded that the next layer's Adam or RMSProp makes a full step of."""

import copy

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import momentumrnn
from cases import make_layer
from momentumrnn.rules import Adam, RMSProp

RULES = {"adam": Adam(0.6, 0.5, 0.9), "rmsprop": RMSProp(0.5, 0.9)}


def networks(kind, rule):
    """Small random networks, among which bfloat16 between the layers turned the sign of some drive."""
    for seed in range(100):
        torch.manual_seed(seed)
        layer = getattr(momentumrnn, kind)(5, 7, num_layers=2, bidirectional=True, rule=RULES[rule])
        yield layer, torch.randn(12, 3, 5)


@pytest.mark.parametrize("backend", ["auto", "cpu", "torch", "reference"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_stack_in_bfloat16_is_as_near_as_its_outputs_can_say(kind, rule, backend):
    with torch.no_grad():
        for layer, given in networks(kind, rule):
            low, x = layer.bfloat16(), given.bfloat16()
            expected = copy.deepcopy(low).double()(x.double())[0]
            with momentumrnn.backend(backend):
                assert (low(x)[0].double() - expected).abs().max() <= 0.004


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_stack_under_autocast_keeps_its_signs(kind, rule):
    with torch.no_grad():
        for layer, x in networks(kind, rule):
            expected = copy.deepcopy(layer).double()(x.double())[0]
            with torch.autocast("cpu", torch.bfloat16):
                output = layer(x)[0]
            assert (output.double() - expected).abs().max() <= 0.03


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("velocity", ["gate", "hidden"])
@pytest.mark.parametrize("cell", ["lstm_projected", "lstm_original", "gru", "rnn_modrelu", "orthogonal"])
def test_what_comes_out_and_goes_back_in_has_the_layer_s_dtype(cell, velocity, dtype, packed):
    layer = make_layer(cell, "adam", velocity, True, num_layers=2, carry_momentum=True).to(dtype)
    x = torch.randn(4, 2, 3, dtype=dtype)
    given = pack_sequence([x[:, 0], x[:3, 1]]) if packed else x
    output, state = layer(given)
    again, _ = layer(given, state)
    for each in (output, again):
        assert (each.data if packed else each).dtype == dtype
    *hidden, momentum = state
    assert all(each.dtype == dtype for each in hidden)
    assert all(each.dtype == torch.float32 for each in momentum)
    (again.data if packed else again).float().square().sum().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == parameter.dtype, name


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_under_autocast_a_stack_answers_in_the_dtypes_of_one_layer(kind):
    x, layers = (
        torch.randn(4, 2, 5),
        [getattr(momentumrnn, kind)(5, 7, n, rule=RULES["adam"]) for n in (1, 2)],
    )
    with torch.autocast("cpu", torch.bfloat16):
        (one, states), (stack, stacked) = (layer(x) for layer in layers)
    assert stack.dtype == one.dtype
    for state, expected in zip(_flat(stacked), _flat(states), strict=True):
        assert state.dtype == expected.dtype


def _flat(state):
    return state if isinstance(state, tuple) else (state,)
