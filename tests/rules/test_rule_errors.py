"""What a rule refuses, and what it says."""

import math

import pytest
import torch

from cases import CLASSES, COEFFICIENTS, NUMBERS, RULES, make_rule, make_with, random_memory, state_of
from momentumrnn import rules
from momentumrnn.errors import InputError


def with_number(name, coefficient, value, **options):
    return make_with(name, COEFFICIENTS[name] | {coefficient: value}, **options)


OUT_OF_RANGE = {
    "momentum": [1.0, 1.5, -0.1, math.nan, math.inf],
    "step_size": [0.0, -0.5, math.nan, math.inf],
    "beta": [1.0, 2.0, -0.1, math.nan],
    "eps": [0.0, -1e-8, math.nan],
    "restart": [0, -3],
    "nu": [1.5, -0.1, math.nan, math.inf],
    "angle": [-0.1, 3.2, math.nan, math.inf],
    "phase": [math.nan, math.inf],
}
OUT_OF_RANGE["momentum_1"] = OUT_OF_RANGE["momentum_2"] = OUT_OF_RANGE["momentum"]


@pytest.mark.parametrize(
    ("name", "coefficient", "value"),
    [(n, c, v) for n in RULES for c in COEFFICIENTS[n] for v in OUT_OF_RANGE[c]],
)
@pytest.mark.parametrize("learnable", [False, True, "channel"])
def test_a_coefficient_out_of_its_range(name, coefficient, value, learnable):
    with pytest.raises(ValueError, match=coefficient) as caught:
        with_number(name, coefficient, value, learnable=learnable)
    assert str(value) in str(caught.value)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("value", ["0.6", None, [0.6], 0.6j])
def test_a_coefficient_that_is_no_number(name, value):
    for coefficient in COEFFICIENTS[name]:
        with pytest.raises(TypeError, match=coefficient):
            with_number(name, coefficient, value)


@pytest.mark.parametrize("value", [0.9, None, "0.9"])
def test_momenta_are_a_sequence_of_numbers(value):
    with pytest.raises(TypeError, match="AggMo: momenta should be a sequence of numbers"):
        rules.AggMo(value, 1.0)


def test_the_number_of_momenta_is_that_of_the_rule():
    with pytest.raises(ValueError, match="AggMo: expected at least one of momenta, got none"):
        rules.AggMo((), 1.0)
    rule = rules.AggMo((0.5, 0.9), 1.0)
    with pytest.raises(ValueError, match="AggMo: expected 2 momenta, got 1"):
        rule.momenta = (0.5,)
    with pytest.raises(ValueError, match="AggMo: expected momentum_2"):
        rule.momenta = (0.6, 1.0)
    rule.momenta = (0.0, 0.99)
    assert rule.momenta == (0.0, 0.99)
    with pytest.raises(AttributeError, match=r"momentum_1 is learned .* raw_momentum_1"):
        rules.AggMo((0.5, 0.9), 1.0, learnable=True).momenta = (0.6, 0.8)


@pytest.mark.parametrize("value", [2.5, 2.0, True])
def test_the_restart_period_is_an_integer(value):
    with pytest.raises((TypeError, ValueError), match="restart"):
        rules.ScheduledRestart(value, 0.6)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(
    ("option", "value"), [("velocity", "gates"), ("velocity", None), ("learnable", "layer")]
)
def test_an_unknown_option_names_the_known_ones(name, option, value):
    with pytest.raises(ValueError, match=option) as caught:
        CLASSES[name](**NUMBERS[name], **{option: value})
    message = str(caught.value)
    assert repr(value) in message
    assert ("hidden" if option == "velocity" else "channel") in message


@pytest.mark.parametrize("name", RULES)
def test_options_are_keyword_only(name):
    with pytest.raises(TypeError):
        CLASSES[name](*NUMBERS[name].values(), "hidden", True, 1e-8)


@pytest.mark.parametrize("name", RULES)
def test_a_required_coefficient_has_no_default(name):
    with pytest.raises(TypeError, match="step_size"):
        CLASSES[name](**{key: value for key, value in NUMBERS[name].items() if key != "step_size"})


@pytest.mark.parametrize("name", RULES)
def test_learned_per_channel_must_be_bound_first(name):
    with pytest.raises(RuntimeError, match="bind"):
        make_rule(name, learnable="channel")(torch.randn(5, 2, 3))


@pytest.mark.parametrize("name", RULES)
def test_repr_shows_what_the_rule_was_given(name):
    text = repr(make_rule(name, velocity="hidden", learnable=True))
    assert CLASSES[name].__name__ in text
    for coefficient, number in NUMBERS[name].items():
        assert f"{coefficient}={number}" in text
    assert "hidden" in text


@pytest.mark.parametrize("name", RULES)
def test_a_drive_or_state_of_the_wrong_shape(name):
    rule = make_rule(name)
    with pytest.raises(InputError):
        rule(torch.randn(5, 3, dtype=torch.float64))
    with pytest.raises(InputError):
        rule(torch.randn(0, 2, 3, dtype=torch.float64))
    with pytest.raises(InputError):
        rule(torch.randn(5, 2, 3, dtype=torch.float64), state_of(name, random_memory(4, 3)))


@pytest.mark.parametrize("name", RULES)
def test_a_drive_of_integers_and_a_state_that_is_none_of_the_rule_s(name):
    rule = make_rule(name)
    with pytest.raises(InputError, match=r"floating dtype, got torch\.int64"):
        rule(torch.ones(5, 2, 3, dtype=torch.int64))
    with pytest.raises(
        InputError, match=r"expected a state of type \w+State, as the rule returns, got tuple"
    ):
        rule(torch.randn(5, 2, 3), (torch.randn(2, 3),))
