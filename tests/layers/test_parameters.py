"""Which parameters a layer has: torch's names and shapes, and each place its own copy of the rule."""

import pytest
import torch
from torch import nn

import momentumrnn
from cases import CELLS, LEARNED, LINEAR_RULES, NUMBERS, RULES, make_layer, make_rule, places
from momentumrnn import rules

GATES = {
    "rnn_tanh": 1,
    "rnn_relu": 1,
    "rnn_modrelu": 1,
    "gru": 3,
    "lstm": 4,
    "lstm_projected": 4,
    "lstm_original": 3,
}


def own_parameters(layer):
    return {name: tuple(p.shape) for name, p in layer.named_parameters() if not name.startswith("rule_")}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("velocity", ["gate", "hidden"])
@pytest.mark.parametrize("cell", GATES)
def test_names_and_shapes(cell, velocity, bias):
    d, h, G = 3, 5, GATES[cell]
    layer = make_layer(cell, "heavy_ball", velocity, num_layers=2, bidirectional=True, bias=bias)
    out = 2 if cell == "lstm_projected" else h
    channels = G * h if velocity == "gate" else out
    expected = {}
    for k, row in enumerate(places(layer)):
        for place in row:
            expected[f"weight_ih_{place}"] = (channels, d if k == 0 else 2 * out)
            expected[f"weight_hh_{place}"] = (G * h, out)
            if bias:
                expected[f"bias_ih_{place}"] = (channels,)
                expected[f"bias_hh_{place}"] = (G * h,)
            if cell == "lstm_projected":
                expected[f"weight_hr_{place}"] = (out, h)
            if cell == "rnn_modrelu":
                expected[f"modrelu_bias_{place}"] = (h,)
    assert own_parameters(layer) == expected
    weights = [p for row in layer.all_weights for p in row]
    assert {id(p) for p in weights} >= {
        id(getattr(layer, name)) for name in expected if "modrelu" not in name
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_fixed_coefficients_add_nothing_to_the_state_dict(cell, rule):
    options = {"num_layers": 2, "bidirectional": True}
    with_rule, plain = make_layer(cell, rule, **options), make_layer(cell, "none", **options)
    assert list(with_rule.state_dict()) == list(plain.state_dict())
    assert with_rule.load_state_dict(plain.state_dict())


@pytest.mark.parametrize("learnable", [True, "channel"])
@pytest.mark.parametrize("velocity", ["gate", "hidden"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_each_place_has_learned_coefficients_of_its_own(cell, rule, velocity, learnable):
    layer = make_layer(cell, rule, velocity, learnable, num_layers=2, bidirectional=True)
    names = [f"rule_{place}" for row in places(layer) for place in row]
    copies = [getattr(layer, name) for name in names]
    assert layer.rule is copies[0]
    parameters = [p for one in copies for p in one.parameters()]
    learned = LEARNED[rule]
    assert len(parameters) == len({id(p) for p in parameters}) == len(names) * len(learned)
    assert {id(p) for p in parameters} <= {id(p) for p in layer.parameters()}
    for name, p in layer.named_parameters():
        if name.startswith("rule_"):
            assert name.split(".")[0] in names
            assert p.shape == ((1,) if learnable is True else layer.weight_ih_l0.shape[:1])

    layer(torch.randn(5, 2, 3, dtype=torch.float64))[0].sum().backward()
    for name, p in layer.named_parameters():
        assert p.grad is not None, name
        assert (p.grad != 0).any(), name
    first, second = (next(one.parameters()) for one in copies[:2])
    before = second.detach().clone()
    with torch.no_grad():
        first.add_(1.0)
    assert torch.equal(second, before)


@pytest.mark.parametrize("learnable", [True, "channel"])
def test_a_template_is_left_alone(learnable):
    template = rules.HeavyBall(0.6, 0.5, learnable=learnable)
    one, two = (momentumrnn.LSTM(3, 5, rule=template) for _ in range(2))
    assert one.rule is not template
    assert one.rule is not two.rule
    before = two.rule.momentum.detach().clone()
    with torch.no_grad():
        for p in one.rule.parameters():
            p.add_(1.0)
    assert torch.equal(two.rule.momentum, before)
    assert all((p == 0).all() or p.grad is None for p in template.parameters())


def test_a_template_that_has_been_trained_gives_the_numbers_it_was_made_with():
    template = rules.HeavyBall(0.6, 0.5, learnable=True)
    layer = momentumrnn.LSTM(3, 5, rule=template)
    assert torch.equal(layer.rule.momentum, torch.tensor(0.6))
    assert torch.equal(layer.rule.step_size, torch.tensor(0.5))


@pytest.mark.parametrize("cell", CELLS)
def test_without_a_rule_there_is_none(cell):
    layer = make_layer(cell, "none")
    assert layer.rule is None
    assert not [name for name in layer.state_dict() if "rule" in name]


@pytest.mark.parametrize("rule", RULES)
def test_repr_shows_the_rule(rule):
    text = repr(make_layer("lstm", rule, "hidden", True, carry_momentum=True))
    assert type(make_rule(rule)).__name__ in text
    for coefficient, number in NUMBERS[rule].items():
        assert f"{coefficient}={number}" in text
    assert "hidden" in text
    assert "carry_momentum=True" in text
    original = repr(momentumrnn.LSTM(3, 5, forget_gate=False, weight_dropout=0.5))
    assert "forget_gate=False" in original
    assert "weight_dropout=0.5" in original


NAMED = {
    "MomentumRNN": ("RNN", rules.HeavyBall, {"momentum": 0.6, "step_size": 0.5}),
    "MomentumLSTM": ("LSTM", rules.HeavyBall, {"momentum": 0.6, "step_size": 0.5}),
    "MomentumGRU": ("GRU", rules.HeavyBall, {"momentum": 0.6, "step_size": 0.5}),
    "NAGLSTM": ("LSTM", rules.Nesterov, {"step_size": 0.5}),
    "SRLSTM": ("LSTM", rules.ScheduledRestart, {"restart": 4, "step_size": 0.5}),
    "AdamLSTM": ("LSTM", rules.Adam, {"momentum": 0.6, "step_size": 0.5, "beta": 0.9, "eps": 0.1}),
    "RMSPropLSTM": ("LSTM", rules.RMSProp, {"step_size": 0.5, "beta": 0.9, "eps": 0.1}),
}


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("velocity", ["gate", "hidden"])
@pytest.mark.parametrize("name", NAMED)
def test_the_names_of_the_paper(name, velocity, learnable):
    base, rule, numbers = NAMED[name]
    kind, generic = getattr(momentumrnn, name), getattr(momentumrnn, base)
    options = {"num_layers": 2, "batch_first": True, "bidirectional": True, "carry_momentum": True}
    torch.manual_seed(1)
    named = kind(3, 5, **options, **numbers, velocity=velocity, learnable=learnable)
    torch.manual_seed(1)
    plain = generic(3, 5, **options, rule=rule(**numbers, velocity=velocity, learnable=learnable))
    assert isinstance(named, generic)
    assert type(named.rule) is rule
    assert list(named.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 6, 3)
    assert torch.equal(named(x)[0], plain(x)[0])
    assert name in repr(named)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_class_passes_the_layers_own_arguments_on(name):
    base, _, numbers = NAMED[name]
    layer = getattr(momentumrnn, name)(3, 5, 2, bias=False, dropout=0.5, dtype=torch.float64, **numbers)
    assert (layer.num_layers, layer.bias, layer.dropout) == (2, False, 0.5)
    assert layer.weight_ih_l0.dtype == torch.float64
    if base == "LSTM":
        special = getattr(momentumrnn, name)(3, 5, proj_size=2, weight_dropout=0.3, **numbers)
        assert (special.proj_size, special.weight_dropout) == (2, 0.3)
        original = getattr(momentumrnn, name)(3, 5, forget_gate=False, **numbers)
        assert original.weight_hh_l0.shape == (15, 5)
    with pytest.raises(TypeError):
        getattr(momentumrnn, name)(3, 5, no_such_argument=1, **numbers)


@pytest.mark.parametrize("rule", LINEAR_RULES)
def test_orthogonal_initialisation_of_a_hidden_velocity_is_possible(rule):
    """Parameters are plain ones: whatever torch.nn.init does to a weight, it does here."""
    layer = make_layer("rnn_tanh", rule, "hidden")
    nn.init.orthogonal_(layer.weight_hh_l0)
    nn.init.zeros_(layer.bias_ih_l0)
    layer(torch.randn(3, 2, 3, dtype=torch.float64))
