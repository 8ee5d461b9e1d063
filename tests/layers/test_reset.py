"""``reset_parameters`` draws every weight anew and puts every learned coefficient back, at each place."""

import pytest
import torch

import momentumrnn
from cases import CELLS, COEFFICIENTS, LEARNED, RULES, make_layer, make_rule, places


def assert_reset(module, rules, name_of_rule):
    torch.manual_seed(7)
    module.reset_parameters()
    expected = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 + torch.rand_like(parameter))
    for name, parameter in module.named_parameters():
        assert (parameter != expected[name]).all(), name
    torch.manual_seed(7)
    module.reset_parameters()
    for name, value in module.state_dict().items():
        assert torch.equal(value, expected[name]), name
    for rule in rules:
        for name in LEARNED[name_of_rule]:
            value = rule.coefficient(name).detach()
            torch.testing.assert_close(value, torch.full_like(value, COEFFICIENTS[name_of_rule][name]))


@pytest.mark.parametrize("learnable", [True, "channel"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_every_layer_and_direction(cell, rule, learnable):
    layer = make_layer(cell, rule, learnable=learnable, num_layers=3, bidirectional=True)
    own = [getattr(layer, f"rule_{place}") for row in places(layer) for place in row]
    assert len(own) == 6
    assert_reset(layer, own, rule)


@pytest.mark.parametrize("learnable", [True, "channel"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "lstm_projected"])
def test_a_single_step_cell(cell, rule, learnable):
    kind, arguments, _ = CELLS[cell]
    module = getattr(momentumrnn, f"{kind}Cell")(3, 5, rule=make_rule(rule, learnable=learnable), **arguments)
    assert_reset(module, [module.rule], rule)
