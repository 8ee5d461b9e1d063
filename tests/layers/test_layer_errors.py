"""What a layer refuses, before any work, and what it says: what was expected and what came."""

import re

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import momentumrnn
from cases import CELLS, RULES, has_memory_cell, make_layer, make_rule
from momentumrnn import rules
from momentumrnn.errors import InputError

F64 = torch.float64


def says(*words):
    """A pattern for all the words, in any order."""
    return re.compile("(?s)" + "".join(f"(?=.*{re.escape(str(word))})" for word in words))


def x(*shape, dtype=F64, **options):
    return torch.randn(*shape, dtype=dtype, **options)


INPUTS = {
    "four dimensions": (lambda: x(2, 4, 2, 3), ["4D"]),
    "one dimension": (lambda: x(3), ["1D"]),
    "a feature too many": (lambda: x(4, 2, 7), [3, 7]),
    "float32 for float64": (lambda: x(4, 2, 3, dtype=torch.float32), ["torch.float64", "torch.float32"]),
    "integers": (lambda: torch.ones(4, 2, 3, dtype=torch.int64), ["torch.float64", "torch.int64"]),
    "another device": (lambda: x(4, 2, 3, device="meta"), ["cpu", "meta"]),
    "no steps": (lambda: x(0, 2, 3), ["empty"]),
    "no steps, unbatched": (lambda: x(0, 3), ["empty"]),
    "packed with a feature too many": (
        lambda: pack_padded_sequence(x(4, 2, 7), torch.tensor([4, 2])),
        [3, 7],
    ),
    "packed float32": (
        lambda: pack_padded_sequence(x(4, 2, 3, dtype=torch.float32), torch.tensor([4, 2])),
        ["torch.float64", "torch.float32"],
    ),
    "packed on another device": (
        lambda: PackedSequence(x(6, 3, device="meta"), torch.tensor([2, 2, 1, 1])),
        ["cpu", "meta"],
    ),
}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("wrong", INPUTS)
@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("cell", ["rnn_modrelu", "lstm", "gru"])
def test_input(cell, rule, wrong, batch_first):
    layer = make_layer(cell, rule, batch_first=batch_first)
    make, words = INPUTS[wrong]
    data = make()
    if batch_first and isinstance(data, torch.Tensor) and data.dim() == 3:
        data = data.transpose(0, 1)
    with pytest.raises(InputError, match=says(*words)):
        layer(data)


@pytest.mark.parametrize("value", [None, [[0.0, 1.0, 2.0]], "x"])
def test_input_that_is_no_tensor(value):
    with pytest.raises(TypeError, match="tensor"):
        make_layer("lstm", "heavy_ball")(value)


def test_the_error_is_one_that_callers_of_torch_catch():
    assert issubclass(InputError, ValueError)
    assert issubclass(InputError, RuntimeError)


def good_state(layer, x):
    """A state of every part, each a separate tensor."""
    with torch.no_grad():
        _, state = layer(x)
    return state


HIDDEN_STATES = {
    "a layer too few": ((1, 2, 5), F64, "cpu"),
    "a layer too many": ((3, 2, 5), F64, "cpu"),
    "another batch": ((2, 4, 5), F64, "cpu"),
    "a unit too many": ((2, 2, 6), F64, "cpu"),
    "no batch": ((2, 5), F64, "cpu"),
    "float32": ((2, 2, 5), torch.float32, "cpu"),
    "integers": ((2, 2, 5), torch.int64, "cpu"),
    "another device": ((2, 2, 5), F64, "meta"),
}


@pytest.mark.parametrize("wrong", HIDDEN_STATES)
@pytest.mark.parametrize("carry_momentum", [False, True])
@pytest.mark.parametrize("cell", ["rnn_modrelu", "lstm", "gru"])
def test_hidden_state(cell, carry_momentum, wrong):
    layer = make_layer(cell, "heavy_ball", num_layers=2, carry_momentum=carry_momentum)
    data = x(4, 2, 3)
    state = good_state(layer, data)
    shape, dtype, device = HIDDEN_STATES[wrong]
    bad = torch.ones(shape, dtype=dtype, device=device)
    words = {F64: [(2, 2, 5), shape] if device == "cpu" else ["cpu", "meta"]}.get(dtype, [F64, dtype])
    places = range(2 if has_memory_cell(cell) else 1)
    for place in places:
        given = bad
        if isinstance(state, tuple):
            given = (*state[:place], bad, *state[place + 1 :])
        with pytest.raises(InputError, match=says(*words)):
            layer(data, given)


@pytest.mark.parametrize("cell", CELLS)
def test_state_of_the_wrong_layer_count_in_two_directions(cell):
    layer = make_layer(cell, "adam", bidirectional=True, carry_momentum=True)
    one_way = make_layer(cell, "adam", carry_momentum=True)
    data = x(4, 2, 3)
    with pytest.raises(InputError, match="Expected"):
        layer(data, good_state(one_way, data))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_batched_state_for_an_unbatched_sequence(cell):
    layer = make_layer(cell, "heavy_ball")
    with pytest.raises(InputError, match="Expected"):
        layer(x(4, 3), good_state(layer, x(4, 2, 3)))
    with pytest.raises(InputError, match="Expected"):
        layer(x(4, 1, 3), good_state(layer, x(4, 3)))


@pytest.mark.parametrize("carry_momentum", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_state_with_a_part_too_few_or_too_many(cell, carry_momentum):
    layer = make_layer(cell, "heavy_ball", carry_momentum=carry_momentum)
    data = x(4, 2, 3)
    state = good_state(layer, data)
    parts = state if isinstance(state, tuple) else (state,)
    for given in (parts[:-1], (*parts, parts[0]), ()):
        if len(given) == 1 and not carry_momentum and not has_memory_cell(cell):
            continue
        with pytest.raises((InputError, TypeError)):
            layer(data, given)
    if has_memory_cell(cell):
        with pytest.raises((InputError, TypeError)):
            layer(data, parts[0])


@pytest.mark.parametrize("cell", CELLS)
def test_a_momentum_state_where_none_is_carried(cell):
    carrying, plain = make_layer(cell, "nesterov", carry_momentum=True), make_layer(cell, "nesterov")
    data = x(4, 2, 3)
    with pytest.raises((InputError, TypeError), match="carry_momentum"):
        plain(data, good_state(carrying, data))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
def test_momentum_state(cell, rule):
    layer = make_layer(cell, rule, num_layers=2, carry_momentum=True)
    data = x(4, 2, 3)
    *rest, m = good_state(layer, data)
    for field, tensor in m._asdict().items():
        for bad in (tensor[:1], tensor[:, :1], torch.cat([tensor, tensor])):
            with pytest.raises(InputError, match=says(field, tuple(tensor.shape), tuple(bad.shape))):
                layer(data, (*rest, m._replace(**{field: bad})))
        if field != "step":
            with pytest.raises(InputError, match=says(field, "torch.float16")):
                layer(data, (*rest, m._replace(**{field: tensor.half()})))
        with pytest.raises(InputError, match=says(field, "meta")):
            layer(data, (*rest, m._replace(**{field: tensor.to("meta")})))


@pytest.mark.parametrize("rule", RULES)
def test_the_momentum_state_of_another_rule(rule):
    layer = make_layer("lstm", rule, carry_momentum=True)
    data = x(4, 2, 3)
    h, c, m = good_state(layer, data)
    others = [rules.HeavyBallState, rules.NesterovState, rules.AdamState, rules.RMSPropState]
    for other in others:
        if other is not type(m):
            wrong = other(*[m[0]] * len(other._fields))
            with pytest.raises((TypeError, InputError), match=says(type(m).__name__, other.__name__)):
                layer(data, (h, c, wrong))
    with pytest.raises((TypeError, InputError), match=type(m).__name__):
        layer(data, (h, c, m[0]))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("wrong", ["adam", 0.6, rules.HeavyBall, torch.nn.Linear(1, 1)])
def test_a_rule_that_is_none(kind, wrong):
    with pytest.raises(TypeError, match="rule"):
        getattr(momentumrnn, kind)(3, 5, rule=wrong)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_no_momentum_to_carry(kind):
    with pytest.raises(ValueError, match="carry_momentum"):
        getattr(momentumrnn, kind)(3, 5, carry_momentum=True)


NAMED = {
    "MomentumRNN": {"momentum": 0.6, "step_size": 0.6},
    "MomentumLSTM": {"momentum": 0.6, "step_size": 0.6},
    "MomentumGRU": {"momentum": 0.6, "step_size": 0.6},
    "NAGLSTM": {"step_size": 0.6},
    "SRLSTM": {"restart": 2, "step_size": 0.6},
    "AdamLSTM": {"momentum": 0.6, "step_size": 0.6, "beta": 0.9},
    "RMSPropLSTM": {"step_size": 0.6, "beta": 0.9},
}


@pytest.mark.parametrize("name", NAMED)
def test_named_classes_check_their_numbers(name):
    for coefficient in NAMED[name]:
        for value in (-1, float("nan")) + ((1.0,) if coefficient in ("momentum", "beta") else (0,)):
            with pytest.raises((ValueError, TypeError), match=coefficient):
                getattr(momentumrnn, name)(3, 5, **(NAMED[name] | {coefficient: value}))


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("sizes", [(3, -1), (-1, 5), ("3", 5), (3, 5.0)])
def test_cell_sizes(kind, sizes):
    with pytest.raises((ValueError, TypeError)):
        getattr(momentumrnn, kind)(*sizes)


def test_a_layer_refuses_before_it_draws_or_changes_anything():
    layer = make_layer("lstm", "heavy_ball", num_layers=2, dropout=0.5, carry_momentum=True)
    before = torch.get_rng_state()
    with pytest.raises(InputError):
        layer(torch.ones(4, 2, 7, dtype=F64))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rule", RULES)
def test_messages_name_the_layer(rule):
    layer = momentumrnn.LSTM(3, 5, rule=make_rule(rule))
    with pytest.raises(InputError, match="LSTM"):
        layer(torch.ones(4, 2, 7))
