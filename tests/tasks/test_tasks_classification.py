import math

import pytest
import torch

import momentumrnn
from momentumrnn.data import data_folder
from momentumrnn.errors import RecipeError
from momentumrnn.tasks import (
    LastStepReadout,
    Sampling,
    build_layer,
    build_task,
    classification_loss,
    count_correct,
)
from momentumrnn.tasks.initialisation import initialise_as_paper

RULES = {
    "MomentumLSTM": {"momentum": 0.6, "step_size": 0.6},
    "AdamLSTM": {"momentum": 0.6, "step_size": 0.6, "beta": 0.1},
    "RMSPropLSTM": {"step_size": 0.6, "beta": 0.9},
    "SRLSTM": {"step_size": 1.0, "restart": 2},
    "NAGLSTM": {"step_size": 0.9},
    "LSTM": {},
    "MomentumGRU": {"momentum": 0.6, "step_size": 0.6},
    "RNN": {},
}


@pytest.mark.parametrize("name", RULES)
def test_a_named_layer_is_the_public_one(name):
    layer = build_layer(name, 2, 5, rule=RULES[name])
    assert type(layer) is getattr(momentumrnn, name)
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (2, 5, 1)


@pytest.mark.parametrize("name", ["LSTM", "AdamLSTM", "MomentumGRU", "RNN"])
def test_logits_are_the_head_on_the_last_step(name):
    model = LastStepReadout(build_layer(name, 1, 5, num_layers=2, rule=RULES[name]), 5, 3)
    inputs = torch.randn(7, 4, 1)
    states, _ = model.layer(inputs)
    expected = states[-1] @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(inputs), expected)
    # The head sees the end of the sequence: changing the last step changes every row.
    inputs[-1] += 1
    assert (model(inputs) != expected).any(dim=1).all()


def test_the_layers_refusal_is_a_recipe_error():
    with pytest.raises(RecipeError, match=r"model LSTM: .*hidden_size"):
        build_layer("LSTM", 1, 0)
    with pytest.raises(RecipeError, match=r"model AdamLSTM: .*momentum"):
        build_layer("AdamLSTM", 1, 2, rule={"momentum": 1.0, "step_size": 1.0, "beta": 0.1})


def test_loss_and_metric_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([0, 0, 0])
    of_the_right = torch.tensor([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1)), 1 / (1 + math.exp(-1))])
    by_hand = -of_the_right.log().mean()
    torch.testing.assert_close(classification_loss(logits, labels), by_hand)
    assert count_correct(logits, labels).item() == 2


@pytest.mark.parametrize("name", ["LSTM", "MomentumLSTM", "RMSPropLSTM"])
def test_paper_initialisation(name):
    h = 6
    layer = build_layer(name, 3, h, num_layers=2, rule=RULES[name])
    initialise_as_paper(layer)
    for k in range(2):
        weight_ih, weight_hh = getattr(layer, f"weight_ih_l{k}"), getattr(layer, f"weight_hh_l{k}")
        torch.testing.assert_close(weight_ih.T @ weight_ih, torch.eye(weight_ih.shape[1]))
        assert torch.equal(weight_hh[:h], torch.eye(h))
        assert not weight_hh[h:].any()
        for bias in (getattr(layer, f"bias_ih_l{k}"), getattr(layer, f"bias_hh_l{k}")):
            assert torch.equal(bias, torch.tensor([0.0] * h + [1.0] * h + [0.0] * 2 * h))
            assert bias.requires_grad


def test_paper_initialisation_in_hidden_velocity():
    layer = build_layer("MomentumLSTM", 3, 6, rule={**RULES["MomentumLSTM"], "velocity": "hidden"})
    initialise_as_paper(layer)
    assert layer.weight_ih_l0.shape == (6, 3)
    assert not layer.bias_ih_l0.any()
    assert layer.bias_hh_l0.sum() == 6


def test_paper_initialisation_leaves_learned_coefficients_alone():
    layer = build_layer("MomentumLSTM", 3, 6, rule={**RULES["MomentumLSTM"], "learnable": True})
    learned = {k: v.clone() for k, v in layer.named_parameters() if "_l0" not in k or "rule" in k}
    assert learned
    initialise_as_paper(layer)
    now = dict(layer.named_parameters())
    assert all(torch.equal(now[k], v) for k, v in learned.items())


@pytest.mark.parametrize("name", ["RNN", "MomentumGRU"])
def test_paper_initialisation_is_an_lstms(name):
    with pytest.raises(RecipeError, match="defined for an LSTM"):
        initialise_as_paper(build_layer(name, 3, 6, rule=RULES[name]))


def test_paper_initialisation_is_not_an_orthogonal_layers():
    with pytest.raises(RecipeError, match="defined for an LSTM of four gates, got DTRIV"):
        initialise_as_paper(build_layer("DTRIV", 3, 6))


def test_a_subset_is_the_first_of_each_part():
    task = build_task("digits")
    whole, part = (task.load(data_folder(), Sampling(0, 8, 8, None, subset), "cpu") for subset in (None, 12))
    assert part.steps_per_epoch == 2
    for name in ("train", "validation", "test"):
        here, there = getattr(part.splits, name), getattr(whole.splits, name)
        assert len(here) == 12
        assert torch.equal(here.values, there.values[:12])
        assert torch.equal(here.labels, there.labels[:12])
