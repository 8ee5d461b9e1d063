"""Coefficients that are learned: where they start, where they may go, and what survives."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import grad
from torch.testing import assert_close

from cases import COEFFICIENTS, LEARNED, RULES, make_rule, make_with
from momentumrnn import rules

WAYS = [True, "channel"]
# Where a learned coefficient may be: an angle anywhere, since only its cosine and sine count.
BOUNDS = {
    "step_size": lambda value: value > 0,
    "nu": lambda value: (value >= 0) & (value <= 1),
    "angle": torch.isfinite,
    "phase": torch.isfinite,
}


def coefficients(rule, name):
    """Every coefficient that the rule learns, as it is now."""
    return {key: rule.coefficient(key) for key in LEARNED[name]}


def move(rule, by):
    """Move every raw parameter by a number, as an optimizer might."""
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.add_(by)


@pytest.mark.parametrize("name", RULES)
def test_every_coefficient_is_there(name):
    rule = make_rule(name, learnable=True)
    assert [key for key, _ in rule.named_parameters()] == [f"raw_{key}" for key in LEARNED[name]]
    for key, value in coefficients(rule, name).items():
        assert torch.equal(value, torch.tensor(COEFFICIENTS[name][key]))


@pytest.mark.parametrize("name", RULES)
def test_a_fixed_rule_has_numbers_and_no_parameters(name):
    rule = make_rule(name)
    for key, number in COEFFICIENTS[name].items():
        value = rule.coefficient(key)
        assert type(value) is type(number)
        assert value == number
    assert not list(rule.parameters())
    assert not rule.state_dict()


@pytest.mark.parametrize("learnable", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(number=st.floats(1e-3, 0.9999), step=st.floats(1e-3, 100.0))
def test_starts_exactly_at_the_number_given(learnable, dtype, number, step):
    rule = rules.Adam(number, step, number, learnable=learnable).bind(3, dtype=dtype)
    for value, given_number in ((rule.momentum, number), (rule.step_size, step), (rule.beta, number)):
        assert value.dtype == dtype
        assert value.shape == (() if learnable is True else (3,))
        assert torch.equal(value, torch.full_like(value, given_number))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("by", [-1e4, -100.0, -20.0, -1.0, 1.0, 20.0, 100.0, 1e4])
def test_stays_in_its_range_wherever_the_parameter_goes(name, dtype, by):
    rule = make_rule(name, learnable="channel").bind(2, dtype=dtype)
    move(rule, by)
    for key, value in coefficients(rule, name).items():
        assert value.isfinite().all()
        assert BOUNDS.get(key, lambda value: (value > 0) & (value < 1))(value).all(), key
        slopes = grad(value.sum(), list(rule.parameters()), allow_unused=True)
        assert all(slope.isfinite().all() for slope in slopes if slope is not None)


# The ends that a learned coefficient may start at.
ENDS = [
    ("heavy_ball", "momentum", 0.0),
    ("adam", "momentum", 0.0),
    ("adam", "beta", 0.0),
    ("rmsprop", "beta", 0.0),
    ("qhm", "momentum", 0.0),
    ("qhm", "nu", 0.0),
    ("qhm", "nu", 1.0),
    ("aggmo", "momentum_1", 0.0),
    ("complex", "momentum", 0.0),
    ("complex", "angle", 0.0),
    ("complex", "angle", math.pi),
]


@pytest.mark.parametrize("learnable", WAYS)
@pytest.mark.parametrize(("name", "key", "end"), ENDS)
def test_starts_at_an_end_of_its_range_and_leaves_it(name, key, end, learnable):
    rule = make_with(name, COEFFICIENTS[name] | {key: end}, learnable=learnable).bind(3, dtype=torch.float64)
    value = rule.coefficient(key)
    assert torch.equal(value, torch.full_like(value, end))
    raw = getattr(rule, f"raw_{key}")
    assert (grad(value.sum(), raw)[0] == 1.0).all()
    for by in (-1000.3, -1.5, -0.3, -1e-3, 1e-3, 0.3, 1.5, 1000.3):
        with torch.no_grad():
            raw.add_(by)
        moved = rule.coefficient(key)
        assert (moved != end).all()
        if key != "angle":
            assert (moved >= 0.0).all()
            assert (moved <= 1.0).all() if key == "nu" else (moved < 1.0).all()
            assert (grad(moved.sum(), raw)[0] != 0).all() or abs(by) > 10
        with torch.no_grad():
            raw.sub_(by)
    assert_close(rule.coefficient(key), value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", [0.0, 0.5])
@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
def test_training_moves_nu_from_an_end_and_to_one(start, target):
    drive = torch.randn(30, 4, 2)
    wanted = rules.QHM(0.8, target, 1.0)(drive)[0]
    rule = rules.QHM(0.8, start, 1.0, learnable=True)
    optimizer = torch.optim.Adam([rule.raw_nu], lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.mse_loss(rule(drive)[0], wanted).backward()
        optimizer.step()
        assert 0.0 <= rule.nu.item() <= 1.0
    assert abs(rule.nu.item() - target) < 0.02


@pytest.mark.parametrize("learnable", WAYS)
@pytest.mark.parametrize("start", [0.01, 0.6, 0.999])
def test_goes_smoothly_and_monotonically_over_its_range(learnable, start):
    rule = rules.Adam(start, start, start, learnable=learnable).bind(1, dtype=torch.float64)
    values = []
    for _ in range(41):
        values.append(torch.stack([rule.momentum, rule.step_size, rule.beta]).detach().flatten())
        move(rule, 0.25)
    steps = torch.stack(values).diff(dim=0)
    assert (steps > 0).all() or (steps < 0).all()
    assert steps.abs().min() > 0


@pytest.mark.parametrize("learnable", WAYS)
def test_a_learned_rule_is_in_each_channel_the_fixed_one_of_its_number(learnable):
    rule = rules.HeavyBall(0.9, 0.6, learnable=learnable).bind(3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.add_(torch.linspace(-1, 1, parameter.numel()).double().reshape(parameter.shape))
    drive = torch.randn(20, 2, 3, dtype=torch.float64)
    together, _ = rule(drive)
    for channel in range(3):
        mu, s = (v.expand(3)[channel].item() for v in (rule.momentum, rule.step_size))
        alone, _ = rules.HeavyBall(mu, s)(drive[..., channel : channel + 1])
        assert_close(together[..., channel : channel + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("learnable", [False, True, "channel"])
def test_bind_gives_a_fresh_copy_of_its_own(name, learnable):
    template = make_rule(name, velocity="hidden", learnable=learnable)
    one, two = template.bind(4), template.bind(4)
    assert type(one) is type(template)
    assert one.velocity == "hidden"
    assert one.learnable == learnable
    assert one is not two
    assert one is not template
    move(one, 1.0)
    drive = torch.randn(9, 2, 4)
    assert torch.equal(two(drive)[0], template.bind(4)(drive)[0])
    if learnable:
        assert not torch.equal(one(drive)[0], two(drive)[0])


def test_bind_takes_device_and_dtype():
    rule = rules.Adam(0.6, 0.5, 0.8, learnable="channel").bind(4, device="meta", dtype=torch.float64)
    for parameter in rule.parameters():
        assert parameter.is_meta
        assert parameter.dtype == torch.float64
        assert parameter.shape == (4,)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "state_dict"])
@pytest.mark.parametrize("learnable", [False, True, "channel"])
def test_survives_being_copied(name, copied, learnable):
    rule = make_rule(name, learnable=learnable).bind(3)
    move(rule, 0.4)
    drive = torch.randn(9, 2, 3)
    rule(drive)
    if copied == "deepcopy":
        other = copy.deepcopy(rule)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(rule))
    else:
        other = make_rule(name, learnable=learnable).bind(3)
        other.load_state_dict(rule.state_dict())
    assert torch.equal(other(drive)[0], rule(drive)[0])
    move(other, 1.0)
    if learnable:
        assert not torch.equal(other(drive)[0], rule(drive)[0])


def test_a_state_dict_carries_the_value_even_where_the_start_was_another():
    learned = rules.HeavyBall(0.9, 0.6, learnable=True).bind(3)
    move(learned, 0.3)
    other = rules.HeavyBall(0.5, 1.0, learnable=True).bind(3)
    other.load_state_dict(learned.state_dict())
    assert torch.equal(other.momentum, learned.momentum)
    assert torch.equal(other.step_size, learned.step_size)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("learnable", WAYS)
def test_half_precision_does_not_push_a_coefficient_out_of_its_range(dtype, learnable):
    rule = rules.Adam(0.999, 0.6, 0.9999, learnable=learnable).bind(3).to(dtype)
    for value, number in ((rule.momentum, 0.999), (rule.step_size, 0.6), (rule.beta, 0.9999)):
        assert (value > 0).all()
        assert_close(value.double(), torch.full_like(value, number).double(), rtol=4e-3, atol=0)
    assert (rule.momentum < 1).all()
    assert (rule.beta < 1).all()
    gate_input, state = rule(torch.randn(9, 2, 3, dtype=dtype))
    assert gate_input.isfinite().all()
    assert all(part.isfinite().all() for part in state)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("learnable", WAYS)
def test_from_the_meta_device(name, learnable):
    rule = make_rule(name, learnable=learnable).bind(3, device="meta").to_empty(device="cpu")
    for tensor in (*rule.parameters(), *rule.buffers()):
        nn.init.constant_(tensor.data, float("nan"))
    rule.reset_parameters()
    drive = torch.randn(9, 2, 3)
    assert torch.equal(rule(drive)[0], make_rule(name, learnable=learnable).bind(3)(drive)[0])


@pytest.mark.parametrize("name", RULES)
def test_reset_goes_back_to_the_start(name):
    rule = make_rule(name, learnable="channel").bind(3)
    before = coefficients(rule, name)
    move(rule, 0.7)
    assert all(not torch.equal(rule.coefficient(key), value) for key, value in before.items())
    rule.reset_parameters()
    assert all(torch.equal(rule.coefficient(key), value) for key, value in before.items())


@pytest.mark.parametrize("name", RULES)
def test_one_learned_value_needs_no_channel_count(name):
    rule = make_rule(name, learnable=True)
    for channels in (1, 4):
        gate_input, _ = rule(torch.randn(5, 2, channels))
        assert gate_input.requires_grad


@pytest.mark.parametrize("name", RULES)
def test_training_finds_the_coefficients_of_another_rule(name):
    """Gradients lead somewhere: the rule learns to imitate one of its kind."""
    target = make_with(name, COEFFICIENTS[name] | {"step_size": 1.3})
    rule = make_rule(name, learnable=True)
    drive = torch.randn(30, 4, 2)
    optimizer = torch.optim.Adam(rule.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(rule(drive)[0], target(drive)[0])
        loss.backward()
        optimizer.step()
    assert abs(rule.step_size.item() - 1.3) < 0.05
