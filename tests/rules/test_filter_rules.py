"""Quasi-hyperbolic, aggregated and complex momentum at special numbers, and at their limits."""

import math

import pytest
import torch
from torch.autograd import grad
from torch.nn.utils.rnn import pack_sequence
from torch.testing import assert_close

import momentumrnn
from cases import FILTER_RULES, flat, make_layer
from momentumrnn import rules

F64 = torch.float64
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def impulse(T):
    drive = torch.zeros(T, 1, 1, dtype=F64)
    drive[0] = 1.0
    return drive


@pytest.mark.parametrize("learnable", [False, True, "channel"])
@pytest.mark.parametrize("T", [1, 40])
def test_complex_momentum_without_angles_is_heavy_ball(T, learnable):
    ours, plain = (
        rule.bind(3, dtype=F64)
        for rule in (
            rules.ComplexMomentum(0.9, 0.0, 0.6, learnable=learnable),
            rules.HeavyBall(0.9, 0.6, learnable=learnable),
        )
    )
    drive = torch.randn(T, 2, 3, dtype=F64, requires_grad=True)
    velocity = torch.randn(2, 3, dtype=F64)
    got, state = ours(drive, rules.ComplexMomentumState(velocity, torch.zeros(2, 3, dtype=F64)))
    expected, last = plain(drive, rules.HeavyBallState(plain.step_size * velocity))
    assert_close(got, expected, **EXACT)
    assert_close(0.6 * state.real, last.velocity, **EXACT)
    assert (state.imaginary == 0).all()
    leaves = [(rule.raw_momentum, rule.raw_step_size) if learnable else () for rule in (ours, plain)]
    slopes = [grad(d.square().sum(), (drive, *own)) for d, own in zip((got, expected), leaves, strict=True)]
    assert_close(*slopes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("angle", "phase"), [(0.0, 0.0), (0.3, 0.0), (1.0, -0.7), (math.pi, 0.5)])
def test_complex_momentum_answers_an_impulse_with_a_fading_wave(angle, phase):
    d, state = rules.ComplexMomentum(0.95, angle, 0.6, phase)(impulse(100))
    t = torch.arange(100, dtype=F64)
    assert_close(d.flatten(), 0.6 * 0.95**t * torch.cos(angle * t + phase), **EXACT)
    assert_close(state.real.item(), 0.95**99 * math.cos(99 * angle))
    assert_close(state.imaginary.item(), 0.95**99 * math.sin(99 * angle))


def test_complex_momentum_answers_most_to_the_frequency_of_its_angle():
    t = torch.arange(600, dtype=F64)
    frequencies = torch.linspace(0.1, 3.0, 30, dtype=F64)
    waves = torch.cos(t[:, None] * frequencies)[:, None]
    d, _ = rules.ComplexMomentum(0.97, frequencies[12].item(), 1.0)(waves)
    assert d[300:].square().mean(dim=(0, 1)).argmax() == 12


@pytest.mark.parametrize("step_size", [1.0, 0.6])
def test_quasi_hyperbolic_momentum_without_momentum_is_the_plain_layer(step_size):
    drive = torch.randn(40, 2, 3, dtype=F64)
    assert_close(rules.QHM(0.9, 0.0, step_size)(drive)[0], step_size * drive, **EXACT)
    layer = momentumrnn.GRU(3, 5, rule=rules.QHM(0.9, 0.0, step_size), dtype=F64)
    plain = momentumrnn.GRU(3, 5, dtype=F64)
    plain.load_state_dict(layer.state_dict())
    with torch.no_grad():
        plain.weight_ih_l0 *= step_size
        plain.bias_ih_l0 *= step_size
    assert_close(layer(drive)[0], plain(drive)[0], **EXACT)


def test_quasi_hyperbolic_momentum_with_nothing_direct_is_heavy_ball():
    drive = torch.randn(40, 2, 3, dtype=F64)
    got, state = rules.QHM(0.9, 1.0, 0.6)(drive)
    expected, last = rules.HeavyBall(0.9, 0.6 * 0.1)(drive)
    assert_close(got, expected, **EXACT)
    assert_close(0.6 * state.velocity, last.velocity, **EXACT)


@pytest.mark.parametrize("nu", [0.0, 0.6, 1.0])
def test_quasi_hyperbolic_momentum_passes_a_constant_unchanged(nu):
    constant = torch.randn(1, 2, 3, dtype=F64).expand(500, 2, 3)
    d, state = rules.QHM(0.9, nu, 1.0)(constant)
    assert_close(d[-1], constant[-1], **EXACT)
    assert_close(state.velocity, constant[-1], **EXACT)
    # Heavy ball does not.
    assert_close(rules.HeavyBall(0.6, 1.0)(constant)[0][-1], 2.5 * constant[-1], **EXACT)


@pytest.mark.parametrize("momenta", [(0.9,), (0.0,), (0.9, 0.9), (0.0, 0.5, 0.9, 0.99, 0.999)])
@pytest.mark.parametrize("learnable", [False, True, "channel"])
def test_aggregated_momentum_is_the_mean_of_heavy_balls(momenta, learnable):
    drive = torch.randn(3, 70, 2, 4, dtype=F64)
    rule = rules.AggMo(momenta, 0.6, learnable=learnable).bind(4, dtype=F64)
    first, state = rule(drive[0])
    second, last = rule(drive[1], state)
    assert last.velocities.shape == (2, len(momenta), 4)
    balls = [rules.HeavyBall(momentum, 1.0) for momentum in momenta]
    runs = [ball(torch.cat([drive[0], drive[1]])) for ball in balls]
    expected = 0.6 * sum(d for d, _ in runs) / len(momenta)
    assert_close(torch.cat([first, second]), expected, **EXACT)
    for n, (_, own) in enumerate(runs):
        assert_close(last.velocities[:, n], own.velocity, **EXACT)


def test_one_aggregated_momentum_is_heavy_ball_in_a_layer():
    ours = momentumrnn.LSTM(3, 5, rule=rules.AggMo((0.9,), 0.6), carry_momentum=True, dtype=F64)
    plain = momentumrnn.LSTM(3, 5, rule=rules.HeavyBall(0.9, 0.6), carry_momentum=True, dtype=F64)
    with pytest.warns(UserWarning, match="HeavyBall"):
        plain.load_state_dict(ours.state_dict())
    x = pack_sequence([torch.randn(T, 3, dtype=F64) for T in (9, 4, 1)])
    (first, state), (expected, last) = ours(x), plain(x)
    assert_close(first.data, expected.data, **EXACT)
    assert_close(0.6 * state[-1].velocities[..., 0, :], last[-1].velocity, **EXACT)
    assert_close(ours(x, state)[0].data, plain(x, last)[0].data, **EXACT)


def complex_loop(drive, momentum, angle, step_size, phase):
    """The equation of complex momentum in complex numbers, a step at a time."""
    mu, out = momentum * torch.exp(1j * angle), step_size * torch.exp(1j * phase)
    v, outputs = torch.zeros(drive.shape[1:], dtype=torch.complex128), []
    for a in drive.to(F64):
        v = mu * v + a
        outputs.append((out * v).real)
    return torch.stack(outputs), v


@pytest.mark.parametrize(("dtype", "tolerance"), [(F64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize("learnable", [False, "channel"])
def test_complex_momentum_over_twenty_thousand_steps(dtype, tolerance, learnable):
    drive = torch.randn(20_000, 2, 3).to(dtype)
    rule = rules.ComplexMomentum(0.9995, 2.9, 0.1, 0.4, learnable=learnable).bind(3, dtype=dtype)
    given = (rule.momentum, rule.angle, rule.step_size, rule.phase)
    expected, v = complex_loop(drive, *(torch.as_tensor(each, dtype=F64).detach() for each in given))
    scale = expected.abs().max()
    whole, last = rule(drive)
    assert whole.dtype == dtype
    assert (whole - expected).abs().max() < tolerance * scale
    assert (last.real - v.real).abs().max() < tolerance * v.abs().max()
    assert (last.imaginary - v.imag).abs().max() < tolerance * v.abs().max()
    # And in chunks of many lengths.
    outputs, state = [], None
    for piece in drive.split([1, 6000, 999, 3000, 10_000]):
        d, state = rule(piece, state)
        outputs.append(d)
    assert (torch.cat(outputs) - expected).abs().max() < tolerance * scale


@pytest.mark.parametrize("learnable", [False, "channel"])
@pytest.mark.parametrize("velocity", ["gate", "hidden"])
@pytest.mark.parametrize("rule", FILTER_RULES)
def test_layers_in_bfloat16_and_under_autocast(rule, velocity, learnable):
    layer = make_layer("lstm", rule, velocity, learnable, num_layers=2, carry_momentum=True)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if "raw" not in name:
                parameter.copy_(parameter.bfloat16())
    first, second = torch.randn(2, 30, 4, 3).bfloat16()
    expected, last = layer(first.double())
    again, _ = layer(second.double(), last)

    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        output, state = layer(first.float())
        follows, _ = layer(second.float(), state)
    layer.bfloat16()
    low, low_state = layer(first)
    low_follows, _ = layer(second, low_state)
    for got, wanted in ((output, expected), (follows, again), (low, expected), (low_follows, again)):
        assert (got.double() - wanted).abs().max() < 0.02
    for momentum in (state[-1], low_state[-1]):
        for part, wanted in zip(flat(momentum), flat(last[-1]), strict=True):
            assert part.dtype == torch.float32
            assert (part.double() - wanted).abs().max() < 0.02 * wanted.abs().max()
