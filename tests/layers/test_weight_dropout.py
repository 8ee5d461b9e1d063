"""DropConnect on U: one mask for a call, the same at every step, in training only."""

import pytest
import torch
from torch.autograd import grad
from torch.testing import assert_close

import momentumrnn
from cases import RULE_CASES, make_rule

P = 0.4


def make(rule="none", velocity="gate", p=P, **options):
    torch.manual_seed(0)
    return momentumrnn.LSTM(
        3, 6, dtype=torch.float64, rule=make_rule(rule, velocity), weight_dropout=p, **options
    )


@pytest.mark.parametrize("forget_gate", [True, False])
@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
def test_one_mask_on_the_recurrent_matrix_for_all_steps(rule, velocity, forget_gate):
    """The entries of U without gradient are the mask; U so masked and scaled does the same with none."""
    layer = make(rule, velocity, forget_gate=forget_gate)
    x = torch.randn(8, 4, 3, dtype=torch.float64)
    output, _ = layer(x)
    (of_U, of_W) = grad(output.square().sum(), [layer.weight_hh_l0, layer.weight_ih_l0])
    kept = of_U != 0
    assert 0.3 < kept.double().mean() < 0.85
    assert (of_W != 0).all()

    plain = make(rule, velocity, p=0.0, forget_gate=forget_gate)
    with torch.no_grad():
        plain.weight_hh_l0.mul_(kept.double() / (1 - P))
    assert_close(output, plain(x)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
def test_every_call_and_every_place_draws_its_own_mask(rule):
    layer = make(rule, num_layers=2, bidirectional=True)
    x = torch.randn(8, 4, 3, dtype=torch.float64)
    names = [f"weight_hh_{place}" for place in ("l0", "l0_reverse", "l1", "l1_reverse")]
    masks = []
    for _ in range(2):
        gradients = grad(layer(x)[0].square().sum(), [getattr(layer, name) for name in names])
        masks += [tuple((g != 0).flatten().tolist()) for g in gradients]
    assert len(set(masks)) == len(masks)


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
def test_none_in_evaluation(rule):
    layer, plain = make(rule, num_layers=2).eval(), make(rule, p=0.0, num_layers=2)
    x = torch.randn(8, 4, 3, dtype=torch.float64)
    assert torch.equal(layer(x)[0], plain(x)[0])


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
def test_the_stored_weight_is_never_changed(rule):
    layer = make(rule)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    assert list(before) == [name for name, _ in make(rule, p=0.0).named_parameters()]
    layer(torch.randn(8, 4, 3, dtype=torch.float64))[0].sum().backward()
    layer.eval()(torch.randn(8, 4, 3, dtype=torch.float64))
    for name, p in layer.named_parameters():
        assert torch.equal(p, before[name])


def test_the_same_seed_gives_the_same_mask():
    layer, x = make("heavy_ball"), torch.randn(8, 4, 3, dtype=torch.float64)
    results = []
    for _ in range(2):
        torch.manual_seed(9)
        results.append(layer(x)[0])
    assert torch.equal(*results)


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
def test_dropping_everything_leaves_the_input_alone(rule):
    layer, plain = make(rule, p=1.0), make(rule, p=0.0)
    with torch.no_grad():
        plain.weight_hh_l0.zero_()
    x = torch.randn(8, 4, 3, dtype=torch.float64)
    assert_close(layer(x)[0], plain(x)[0], rtol=1e-12, atol=1e-12)


def test_the_mean_over_masks_of_the_gates_is_unbiased():
    """At the first step from h_0 the gates are linear in U, so scaling by 1 / (1 − p) keeps their mean."""
    layer = make(p=0.5)
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(0.01)  # small enough that tanh and the sigmoids are straight lines
    x, h = torch.zeros(1, 1, 3, dtype=torch.float64), torch.ones(1, 1, 6, dtype=torch.float64)
    state = (h, torch.zeros_like(h))
    with torch.no_grad():
        mean = torch.stack([layer(x, state)[1][1] for _ in range(4000)]).mean(dim=0)
        expected = layer.eval()(x, state)[1][1]
    assert (mean - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_out_of_range(p):
    with pytest.raises(ValueError, match="weight_dropout") as caught:
        momentumrnn.LSTM(3, 5, weight_dropout=p)
    assert str(p) in str(caught.value)


@pytest.mark.parametrize("kind", ["LSTM", "MomentumLSTM"])
def test_is_keyword_only(kind):
    with pytest.raises(TypeError):
        getattr(momentumrnn, kind)(3, 5, 1, True, False, 0.0, False, 0, None, None, 0.5)
