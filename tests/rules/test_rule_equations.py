"""Every rule against the loop of its equation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

import oracle
from cases import (
    COEFFICIENTS,
    FILTER_RULES,
    LEARNABLE,
    LINEAR_RULES,
    NUMBERS,
    RULES,
    make_rule,
    make_with,
    oracle_rule,
    random_memory,
    state_of,
)
from momentumrnn import rules

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def draw_drive(T, B, C, dtype=torch.float64):
    return torch.randn(T, B, C, dtype=dtype)


def tensors(state):
    return [part for part in state if part.is_floating_point()]


@pytest.mark.parametrize("learnable", LEARNABLE)
@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("T", [1, 2, 33, 131])
@pytest.mark.parametrize("B", [1, 3])
def test_values_states_and_gradients(name, given_state, learnable, T, B):
    C = 2
    rule = make_rule(name, learnable=learnable).bind(C, dtype=torch.float64)
    drive = draw_drive(T, B, C).requires_grad_()
    memory = random_memory(B, C) if given_state else None
    state = None
    if given_state:
        memory.v.requires_grad_()
        memory.m.requires_grad_()
        state = state_of(name, memory)

    got, got_state = rule(drive, state)
    expected, expected_memory = oracle.run_rule(oracle_rule(name, rule), drive, memory)
    expected_state = state_of(name, expected_memory)

    assert type(got_state) is type(expected_state)
    assert_close(got, expected, **EXACT)
    for got_part, expected_part in zip(got_state, expected_state, strict=True):
        assert got_part.dtype == expected_part.dtype
        assert_close(got_part, expected_part, **EXACT)

    leaves = [drive, *rule.parameters(), *((memory.v, memory.m) if given_state else [])]
    cotangents = [torch.randn_like(part) for part in (got, *tensors(got_state))]

    def gradients(outputs):
        loss = sum((part * w).sum() for part, w in zip(outputs, cotangents, strict=True))
        return grad(loss, leaves, materialize_grads=True)

    for a, b in zip(
        gradients([got, *tensors(got_state)]), gradients([expected, *tensors(expected_state)]), strict=True
    ):
        assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.integers(1, 40), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_a_sequence_in_chunks_equals_the_whole(name, pieces, seed):
    torch.manual_seed(seed)
    rule = make_rule(name)
    drive = draw_drive(sum(pieces), 2, 3)
    whole, last = rule(drive)
    outputs, state = [], None
    for piece in drive.split(pieces):
        d, state = rule(piece, state)
        outputs.append(d)
    assert_close(torch.cat(outputs), whole, **EXACT)
    for part, expected in zip(state, last, strict=True):
        assert_close(part, expected, **EXACT)


@pytest.mark.parametrize("name", RULES)
def test_every_two_chunks_and_steps_one_by_one_equal_the_whole(name):
    rule = make_rule(name)
    T = 9
    drive = draw_drive(T, 2, 3)
    whole, last = rule(drive)
    for split in [[1] * T, *([cut, T - cut] for cut in range(1, T))]:
        outputs, state = [], None
        for piece in drive.split(split):
            d, state = rule(piece, state)
            outputs.append(d)
        assert_close(torch.cat(outputs), whole, **EXACT)
        for part, expected in zip(state, last, strict=True):
            assert_close(part, expected, **EXACT)


@pytest.mark.parametrize("name", RULES)
def test_a_given_state_is_left_as_it_was(name):
    state = state_of(name, random_memory(2, 3))
    before = [part.clone() for part in state]
    make_rule(name)(draw_drive(5, 2, 3), state)
    for part, expected in zip(state, before, strict=True):
        assert torch.equal(part, expected)


@pytest.mark.parametrize("given_state", [False, True])
@pytest.mark.parametrize("learnable", LEARNABLE)
@pytest.mark.parametrize("name", RULES)
def test_the_state_is_that_at_the_end_of_each_sequence(name, learnable, given_state):
    """Every part of it: the longer sequences of the batch go on, and what follows the end is not in it."""
    C, lengths = 3, [30, 17, 1, 30, 4]
    rule = make_rule(name, learnable=learnable).bind(C, dtype=torch.float64)
    drive = draw_drive(30, len(lengths), C)
    memory = random_memory(len(lengths), C) if given_state else None
    state = state_of(name, memory) if given_state else None
    gate_input, got = rule(drive, state, torch.tensor(lengths))
    for n, length in enumerate(lengths):
        own = oracle.Memory(*(part[n : n + 1] for part in memory)) if given_state else None
        values, last = oracle.run_rule(oracle_rule(name, rule), drive[:length, n : n + 1], own)
        assert_close(gate_input[:length, n : n + 1], values, **EXACT)
        for part, expected in zip(got, state_of(name, last), strict=True):
            assert_close(part[n : n + 1], expected, **EXACT)


@pytest.mark.parametrize("name", [*LINEAR_RULES, *FILTER_RULES])
def test_a_linear_rule_commutes_with_a_matrix(name):
    rule = make_rule(name)
    x, W = draw_drive(40, 2, 3), torch.randn(7, 3, dtype=torch.float64)
    assert_close(rule(x @ W.T)[0], rule(x)[0] @ W.T, **EXACT)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_causal(name):
    rule = make_rule(name)
    drive = draw_drive(70, 1, 1).requires_grad_()
    for t in (0, 31, 32, 68):
        (influence,) = grad(rule(drive)[0][t].sum(), drive)
        assert (influence[t + 1 :] == 0).all()
        assert influence[t] != 0


@pytest.mark.parametrize("name", RULES)
def test_first_and_second_derivatives_by_finite_differences(name):
    rule = make_rule(name, learnable="channel").bind(2, dtype=torch.float64)
    drive = draw_drive(5, 2, 2).requires_grad_()
    state = state_of(name, random_memory(2, 2))
    names = [key for key, _ in rule.named_parameters()]

    def run(drive, *parts):
        floats, coefficients = parts[: len(tensors(state))], parts[len(tensors(state)) :]
        remaining = iter(floats)
        given = type(state)(*(next(remaining) if p.is_floating_point() else p for p in state))
        d, last = torch.func.functional_call(
            rule, dict(zip(names, coefficients, strict=True)), (drive, given)
        )
        return d, *tensors(last)

    arguments = (
        drive,
        *(part.requires_grad_() for part in tensors(state)),
        *(p.detach().clone().requires_grad_() for p in rule.parameters()),
    )
    assert gradcheck(run, arguments)
    assert gradgradcheck(run, arguments)


def test_zero_momentum_and_unit_step_change_nothing():
    drive = draw_drive(50, 2, 3)
    assert_close(rules.HeavyBall(0.0, 1.0)(drive)[0], drive, rtol=0, atol=0)


def test_restart_with_period_one_forgets_at_every_step():
    drive = draw_drive(50, 2, 3)
    assert_close(rules.ScheduledRestart(1, 0.6)(drive)[0], 0.6 * drive)


def test_restart_never_reached_is_nesterov():
    drive = draw_drive(50, 2, 3)
    assert_close(rules.ScheduledRestart(50, 0.6)(drive)[0], rules.Nesterov(0.6)(drive)[0], **EXACT)


def test_rmsprop_is_adam_without_momentum():
    drive = draw_drive(50, 2, 3)
    rmsprop, adam = rules.RMSProp(0.6, 0.9), rules.Adam(0.0, 0.6, 0.9)
    assert_close(rmsprop(drive)[0], adam(drive)[0], **EXACT)


def test_nesterov_by_hand():
    """The t-th step, from one, has momentum (t − 1)/(t + 2): 0, 1/4, 2/5."""
    d, state = rules.Nesterov(1.0)(torch.ones(3, 1, 1, dtype=torch.float64))
    assert_close(d.flatten().tolist(), [1.0, 1.25, 1.5])
    assert state.step.dtype == torch.int64
    assert state.step.tolist() == [3]


def test_heavy_ball_reaches_its_limit():
    d, _ = rules.HeavyBall(0.9, 0.5)(torch.ones(2000, 1, 1, dtype=torch.float64))
    assert math.isclose(d[-1].item(), 0.5 / (1 - 0.9), rel_tol=1e-12)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_an_epsilon_whose_square_is_zero_is_refused(name):
    numbers = {key: value for key, value in NUMBERS[name].items() if key != "eps"}
    made = {"adam": rules.Adam, "rmsprop": rules.RMSProp}[name]
    with pytest.raises(ValueError, match=r"expected eps of 1\.1e-19 or more, got 1e-20"):
        made(**numbers, eps=1e-20)
    assert made(**numbers, eps=2e-19).eps == 2e-19


def test_epsilon_is_1e_8_unless_told_otherwise():
    drive = draw_drive(20, 1, 2) * 1e-8  # as small as ε
    for rule, name in ((rules.Adam(0.6, 0.5, 0.8), "adam"), (rules.RMSProp(0.4, 0.9), "rmsprop")):
        numbers = {k: v for k, v in NUMBERS[name].items() if k != "eps"}
        equations = oracle.Rule(
            name, numbers.get("momentum", 0.0), s=numbers["step_size"], beta=numbers["beta"], eps=1e-8
        )
        assert_close(rule(drive)[0], oracle.run_rule(equations, drive)[0], **EXACT)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_zero_drive_gives_zero_and_a_finite_slope(name, dtype):
    numbers = NUMBERS[name] | {"eps": 1e-8}
    rule = {"adam": rules.Adam, "rmsprop": rules.RMSProp}[name](**numbers)
    drive = torch.zeros(40, 2, 3, dtype=dtype, requires_grad=True)
    d, state = rule(drive)
    assert (d == 0).all()
    assert all((part == 0).all() for part in state)
    if dtype != torch.float16:  # the slope, step_size / ε, is beyond what it can hold
        (slope,) = grad(d.sum(), drive)
        assert slope.isfinite().all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("learnable", [False, True])
def test_long_sequences_in_float32_stay_finite_and_accurate(name, learnable):
    T = 100_000
    slow = dict.fromkeys(("momentum", "momentum_2", "beta"), 0.9999) | {"restart": 1000, "step_size": 0.6}
    numbers = {key: slow.get(key, number) for key, number in COEFFICIENTS[name].items() if key != "eps"}
    rule = make_with(name, numbers, learnable=learnable)
    exact = make_with(
        name, {k: torch.tensor(v).item() if learnable and k != "restart" else v for k, v in numbers.items()}
    )
    drive = draw_drive(T, 1, 2, torch.float32).requires_grad_()
    d, _ = rule(drive)
    expected, _ = exact(drive.detach().double())
    assert d.isfinite().all()
    assert (d - expected).abs().max() <= 1e-5 * expected.abs().max()
    (slope,) = grad(d.sum(), drive)
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("learnable", [False, True])
def test_accumulators_are_float32_under_autocast(name, learnable):
    T = 5000
    slow = dict.fromkeys(("momentum", "momentum_2", "beta"), 0.999) | {"restart": 1000, "step_size": 0.01}
    numbers = {key: slow.get(key, number) for key, number in COEFFICIENTS[name].items() if key != "eps"}
    rule = make_with(name, numbers, learnable=learnable)
    drive = (draw_drive(T, 2, 3, torch.float32) + 1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        d, state = rule(drive)
    expected, expected_state = rule(drive.double())
    assert (d - expected).abs().max() <= 2**-8 * expected.abs().max()  # bfloat16 rounds the result at most
    for got, right in zip(tensors(state), tensors(expected_state), strict=True):
        assert got.dtype == torch.float32
        assert (got - right).abs().max() <= 1e-4 * right.abs().max()


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_floating_dtype(name, dtype):
    drive = draw_drive(12, 2, 3, torch.float32).to(dtype)
    d, _ = make_rule(name)(drive)
    assert d.dtype in (dtype, torch.float32)
    assert d.shape == drive.shape
    assert_close(d.double(), make_rule(name)(drive.double())[0], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", RULES)
def test_memory_for_the_backward_pass_is_linear_in_time(name):
    def saved(T):
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        rule = make_rule(name, learnable=True)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            rule(torch.randn(T, 2, 3, requires_grad=True))
        return total

    assert saved(8_192) <= 2.1 * saved(4_096)
