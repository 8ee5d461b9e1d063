"""Starts for each channel: what is drawn, when, and what becomes of it."""

import copy
import io
import math
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.testing import assert_close

import momentumrnn
from cases import CELLS, FEW_CELLS, flat, oracle_layer, state_of
from momentumrnn import rules
from momentumrnn.rules import UNIT, Angles, Timescales

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-10}
WAYS = [False, "channel"]
TIMES, TURNS = Timescales(3, 200), Angles(0.1, 3.0)

# By the oracle's names: rules with a start wherever they take one, and with one start among numbers.
SPREAD = {
    "heavy_ball": lambda **options: rules.HeavyBall(TIMES, UNIT, **options),
    "qhm": lambda **options: rules.QHM(TIMES, 0.6, 0.7, **options),
    "aggmo": lambda **options: rules.AggMo((0.3, TIMES), 0.7, **options),
    "complex": lambda **options: rules.ComplexMomentum(TIMES, TURNS, UNIT, Angles(-1, 1), **options),
    "complex, one angle": lambda **options: rules.ComplexMomentum(TIMES, 0.8, 0.6, 0.4, **options),
    "complex, one radius": lambda **options: rules.ComplexMomentum(0.9, TURNS, UNIT, **options),
}
STARTED = {
    "heavy_ball": ["momentum", "step_size"],
    "qhm": ["momentum"],
    "aggmo": ["momentum_2"],
    "complex": ["momentum", "angle", "step_size", "phase"],
    "complex, one angle": ["momentum"],
    "complex, one radius": ["angle"],
}
every_rule = pytest.mark.parametrize("name", SPREAD)
learned_or_fixed = pytest.mark.parametrize("learnable", WAYS)


def make(name, learnable=False, channels=3, dtype=F64, **options):
    return SPREAD[name](learnable=learnable, **options).bind(channels, dtype=dtype)


def make_layer(cell, name, learnable=False, velocity="gate", **options):
    kind, arguments, _ = CELLS[cell]
    rule = SPREAD[name](learnable=learnable, velocity=velocity)
    return getattr(momentumrnn, kind)(3, 5, rule=rule, **({"dtype": F64} | arguments | options))


def values(rule):
    """Every coefficient as it is now, numbers as tensors."""
    return {key: torch.as_tensor(rule.coefficient(key), dtype=F64).detach() for key in rule.ranges}


def assert_uniform(drawn, low, high):
    """Hold the empirical distribution of many draws to the uniform one."""
    drawn = drawn.sort().values
    assert drawn[0] >= low - 1e-6 * abs(low)
    assert drawn[-1] <= high + 1e-6 * abs(high)
    share = torch.linspace(0, 1, drawn.numel(), dtype=drawn.dtype)
    assert ((drawn - low) / (high - low) - share).abs().max() < 0.02


@learned_or_fixed
def test_time_scales_are_log_uniform(learnable):
    rule = rules.HeavyBall(Timescales(2, 500), 1.0, learnable=learnable).bind(20_000, dtype=F64)
    time_scales = -1 / torch.log(rule.momentum.detach())
    assert_uniform(torch.log(time_scales), math.log(2), math.log(500))


@learned_or_fixed
def test_angles_are_uniform(learnable):
    rule = rules.ComplexMomentum(0.9, Angles(0.5, 3), 1.0, Angles(-2, 1), learnable=learnable)
    rule = rule.bind(20_000, dtype=F64)
    assert_uniform(rule.angle.detach(), 0.5, 3)
    assert_uniform(rule.phase.detach(), -2, 1)
    assert torch.corrcoef(torch.stack([rule.angle, rule.phase]).detach())[0, 1].abs() < 0.03


def test_a_range_of_one_value():
    rule = rules.ComplexMomentum(Timescales(10, 10), Angles(0.5, 0.5), UNIT).bind(4, dtype=F64)
    assert_close(rule.momentum, torch.full((4,), math.exp(-0.1), dtype=F64), rtol=1e-12, atol=0)
    assert_close(rule.angle, torch.full((4,), 0.5, dtype=F64), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("bounds", [(1e-9, 1e-6), (1e12, 1e19)])
@learned_or_fixed
def test_extreme_time_scales_stay_in_the_range(learnable, bounds, dtype):
    rule = rules.HeavyBall(Timescales(*bounds), UNIT, learnable=learnable).bind(50, dtype=dtype)
    assert all(raw.isfinite().all() for raw in (rule.raw_momentum, rule.raw_step_size))
    assert ((rule.momentum > 0) & (rule.momentum < 1)).all()
    assert (rule.step_size > 0).all()


@pytest.mark.parametrize("learnable", [False, True, "channel"])
def test_unit_of_a_number(learnable):
    for rule in (
        rules.HeavyBall(0.6, UNIT, learnable=learnable),
        rules.ComplexMomentum(0.6, 2.0, UNIT, learnable=learnable),
    ):
        step_size = torch.as_tensor(rule.bind(3, dtype=F64).step_size, dtype=F64)
        assert step_size.shape == ((3,) if learnable == "channel" else ())
        assert_close(step_size.detach(), torch.full_like(step_size, 0.8), rtol=1e-15, atol=0)
        assert step_size.requires_grad == bool(learnable)


@pytest.mark.parametrize("name", ["heavy_ball", "complex"])
@learned_or_fixed
def test_unit_of_each_channel(name, learnable):
    rule = make(name, learnable, 50)
    assert_close(rule.step_size, torch.sqrt(1 - rule.momentum**2), rtol=1e-9, atol=0)


def test_unit_keeps_the_variance_of_white_input():
    rule = rules.HeavyBall(Timescales(1, 50), UNIT).bind(20)
    d, _ = rule(torch.randn(20_000, 8, 20))
    assert_close(d[500:].var(dim=(0, 1)), torch.ones(20), rtol=0.1, atol=0)


@every_rule
@learned_or_fixed
def test_a_seed_fixes_the_draw_and_a_reset_draws_anew(name, learnable):
    torch.manual_seed(3)
    rule = make(name, learnable, 8)
    torch.manual_seed(3)
    same, other = make(name, learnable, 8), make(name, learnable, 8)
    before = values(rule)
    for key in STARTED[name]:
        assert torch.equal(same.coefficient(key), rule.coefficient(key))
        if "radius" not in name or key == "angle":
            assert (other.coefficient(key) != rule.coefficient(key)).all()
    rule.reset_parameters()
    for key, value in values(rule).items():
        changed = key in STARTED[name]
        assert (value != before[key]).all() if changed else torch.equal(value, before[key])
    torch.manual_seed(3)
    rule.reset_parameters()
    assert_close(values(rule), before, rtol=0, atol=0)


@learned_or_fixed
def test_every_layer_and_direction_has_a_draw_of_its_own(learnable):
    torch.manual_seed(1)
    layer = make_layer("lstm", "complex", learnable, num_layers=2, bidirectional=True)
    torch.manual_seed(1)
    same = make_layer("lstm", "complex", learnable, num_layers=2, bidirectional=True)
    places = ["l0", "l0_reverse", "l1", "l1_reverse"]
    drawn = [getattr(layer, f"rule_{place}") for place in places]
    for rule, equal in zip(drawn, (getattr(same, f"rule_{place}") for place in places), strict=True):
        assert rule.momentum.shape == (20,)
        assert torch.equal(rule.momentum, equal.momentum)
    for key in STARTED["complex"]:
        assert torch.stack([rule.coefficient(key) for rule in drawn]).unique().numel() == 80
    before = drawn[0].angle
    layer.reset_parameters()
    assert (drawn[0].angle != before).all()


@every_rule
def test_what_is_fixed_is_a_buffer_and_what_is_learned_a_parameter(name):
    fixed, learned = make(name), make(name, "channel")
    assert not list(fixed.parameters())
    assert [key for key, _ in fixed.named_buffers()] == [f"raw_{key}" for key in STARTED[name]]
    assert not list(learned.buffers())
    assert [key for key, _ in learned.named_parameters()] == [f"raw_{key}" for key in learned.ranges]
    drive = torch.randn(9, 2, 3, dtype=F64)
    assert not fixed(drive)[0].requires_grad
    slopes = grad(learned(drive)[0].square().sum(), learned.parameters())
    assert all((slope != 0).all() for slope in slopes)
    for rule in (fixed, learned):
        assert rule.by_channel
        assert not rule.commutes
        for key, value in values(rule).items():
            assert value.shape == ((3,) if rule is learned or key in STARTED[name] else ())


def test_what_is_spread_cannot_be_set_to_a_number():
    rule = momentumrnn.LSTM(3, 5, rule=rules.QHM(TIMES, 0.5, 1.0)).rule
    with pytest.raises(AttributeError, match=r"momentum is spread over channels .* raw_momentum"):
        rule.momentum = 0.5
    rule.nu = 0.25
    assert rule.nu == 0.25
    with pytest.raises(TypeError, match=r"nu cannot start at Timescales\(3, 200\)"):
        rule.nu = TIMES
    one = rules.HeavyBall(0.5, 1.0)
    with pytest.raises(TypeError, match=r"momentum should be a number, got Timescales\(3, 200\)"):
        one.momentum = TIMES
    assert one.momentum == 0.5


@every_rule
@learned_or_fixed
@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "state_dict", "file"])
def test_copies_of_a_layer_compute_the_same(name, learnable, copied):
    layer = make_layer("gru", name, learnable, num_layers=2)
    if copied == "deepcopy":
        other = copy.deepcopy(layer)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(layer))
    else:
        state, other = layer.state_dict(), make_layer("gru", name, learnable, num_layers=2)
        if copied == "file":
            file = io.BytesIO()
            torch.save(state, file)
            file.seek(0)
            state = torch.load(file, weights_only=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other.load_state_dict(state)
    x = torch.randn(9, 2, 3, dtype=F64)
    expected = layer(x)[0]
    assert torch.equal(other(x)[0], expected)
    # They share nothing.
    other.reset_parameters()
    assert torch.equal(layer(x)[0], expected)


@every_rule
@learned_or_fixed
def test_from_the_meta_device(name, learnable):
    layer = make_layer("lstm", name, learnable, device="meta", dtype=torch.float32)
    assert all(tensor.is_meta for tensor in (*layer.parameters(), *layer.buffers()))
    layer.to_empty(device="cpu")
    for tensor in (*layer.parameters(), *layer.buffers()):
        nn.init.constant_(tensor.data, float("nan"))
    torch.manual_seed(5)
    layer.reset_parameters()
    direct = make_layer("lstm", name, learnable, dtype=torch.float32)
    torch.manual_seed(5)
    direct.reset_parameters()
    x = torch.randn(9, 2, 3)
    assert torch.equal(layer(x)[0], direct(x)[0])


@every_rule
@learned_or_fixed
def test_half_precision_keeps_the_coefficients(name, learnable):
    layer = make_layer("lstm", name, learnable)
    before = values(layer.rule)
    layer.bfloat16()
    for key, value in values(layer.rule).items():
        assert_close(value, before[key], rtol=1e-6, atol=0)
    assert layer(torch.randn(9, 2, 3, dtype=torch.bfloat16))[0].dtype == torch.bfloat16


def test_repr_shows_the_starts():
    text = repr(momentumrnn.LSTM(3, 5, rule=make("complex", "channel")))
    for said in (
        "momentum=Timescales(3, 200)",
        "angle=Angles(0.1, 3)",
        "step_size=UNIT",
        "phase=Angles(-1, 1)",
    ):
        assert said in text
    assert "momenta=(0.3, Timescales(3, 200))" in repr(make("aggmo"))


def test_starts_are_equal_by_their_bounds():
    assert Timescales(3, 200) == Timescales(3.0, 200.0)
    assert hash(Timescales(3, 200)) == hash(Timescales(3.0, 200.0))
    assert Timescales(1, 2) != Angles(1, 2)
    assert Angles(1, 2) != Angles(1, 3)
    assert copy.deepcopy(UNIT) == pickle.loads(pickle.dumps(UNIT)) == UNIT


@every_rule
@learned_or_fixed
def test_an_unbound_rule_has_no_channels_yet(name, learnable):
    with pytest.raises(RuntimeError, match="bind"):
        SPREAD[name](learnable=learnable)(torch.randn(5, 2, 3))


@pytest.mark.parametrize(
    "make_rule",
    [
        lambda: rules.HeavyBall(TIMES, 1.0, learnable=True),
        lambda: rules.HeavyBall(TIMES, UNIT, learnable=True),
        lambda: rules.QHM(TIMES, 0.5, 1.0, learnable=True),
        lambda: rules.AggMo((0.3, TIMES), 1.0, learnable=True),
        lambda: rules.ComplexMomentum(0.9, TURNS, 1.0, learnable=True),
        lambda: rules.ComplexMomentum(0.9, 0.3, 1.0, TURNS, learnable=True),
    ],
)
def test_one_learned_value_cannot_be_spread(make_rule):
    with pytest.raises(ValueError, match='is a start for each channel; use learnable="channel"'):
        make_rule()


@pytest.mark.parametrize(
    ("make_rule", "said"),
    [
        (lambda: rules.HeavyBall(0.9, TIMES), r"HeavyBall: step_size cannot start at Timescales\(3, 200\)"),
        (
            lambda: rules.HeavyBall(TURNS, 1.0),
            r"HeavyBall: momentum cannot start at Angles.*momentum=Timescales",
        ),
        (lambda: rules.HeavyBall(UNIT, 1.0), "HeavyBall: momentum cannot start at UNIT"),
        (lambda: rules.Nesterov(UNIT), "Nesterov: step_size cannot start at UNIT.*: nothing"),
        (lambda: rules.ScheduledRestart(2, UNIT), "ScheduledRestart: step_size cannot start at UNIT"),
        (lambda: rules.Adam(0.6, UNIT, 0.9), "Adam: step_size cannot start at UNIT"),
        (lambda: rules.Adam(TIMES, 1.0, 0.9), "Adam: momentum cannot start at"),
        (lambda: rules.Adam(0.6, 1.0, TIMES), "Adam: beta cannot start at"),
        (lambda: rules.RMSProp(UNIT, 0.9), "RMSProp: step_size cannot start at UNIT"),
        (lambda: rules.QHM(0.9, TIMES, 1.0), "QHM: nu cannot start at"),
        (lambda: rules.QHM(0.9, 0.5, UNIT), "QHM: step_size cannot start at UNIT"),
        (lambda: rules.AggMo((0.5, TURNS), 1.0), "AggMo: momentum_2 cannot start at Angles"),
        (lambda: rules.ComplexMomentum(0.9, TIMES, 1.0), "ComplexMomentum: angle cannot start at Timescales"),
    ],
)
def test_a_coefficient_without_such_a_start(make_rule, said):
    with pytest.raises(TypeError, match=said):
        make_rule()


@pytest.mark.parametrize("kind", [Timescales, Angles])
def test_wrong_bounds(kind):
    owner = kind.__name__
    for bad in ("3", None, True, 1j):
        with pytest.raises(TypeError, match=f"{owner}: low should be a number"):
            kind(bad, 5)
        with pytest.raises(TypeError, match=f"{owner}: high should be a number"):
            kind(1, bad)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"{owner}: expected a finite high, got {bad}"):
            kind(1, bad)
    with pytest.raises(ValueError, match=f"{owner}: expected low of at most high, got 5 and 4"):
        kind(5, 4)


@pytest.mark.parametrize("low", [0, -1.0])
def test_time_scales_are_positive(low):
    with pytest.raises(ValueError, match=rf"Timescales: expected low in \(0, inf\), got {low}"):
        Timescales(low, 5)


@every_rule
@learned_or_fixed
def test_each_channel_is_the_rule_of_its_numbers(name, learnable):
    rule = make(name, learnable)
    drive = torch.randn(40, 2, 3, dtype=F64)
    state = rule(torch.randn(4, 2, 3, dtype=F64))[1]
    lengths = torch.tensor([40, 17])
    together, last = rule(drive, state, lengths)
    for channel in range(3):
        numbers = {key: value.expand(3)[channel].item() for key, value in values(rule).items()}
        if name == "aggmo":
            alone = rules.AggMo((numbers["momentum_1"], numbers["momentum_2"]), numbers["step_size"])
        else:
            alone = type(rule)(**numbers)
        one = slice(channel, channel + 1)
        d, own = alone(drive[..., one], type(state)(*(part[..., one] for part in state)), lengths)
        assert_close(together[..., one], d, **EXACT)
        for part, expected in zip(last, own, strict=True):
            assert_close(part[..., one], expected, **EXACT)


@pytest.mark.parametrize("cell", FEW_CELLS)
@pytest.mark.parametrize("name", ["heavy_ball", "qhm", "aggmo", "complex"])
@pytest.mark.parametrize("velocity", ["gate", "hidden"])
@learned_or_fixed
def test_layers_obey_the_equations(cell, name, velocity, learnable):
    layer = make_layer(cell, name, learnable, velocity, num_layers=2, bidirectional=True, carry_momentum=True)
    x = torch.randn(11, 2, 3, dtype=F64, requires_grad=True)
    expected, h, _, memory = oracle_layer(layer, cell, name, velocity, x)
    w = torch.randn_like(expected)
    leaves = [x, *layer.parameters()]
    slopes = grad((expected * w).sum(), leaves, retain_graph=True)
    for backend in ("auto", "reference"):
        with momentumrnn.backend(backend):
            output, state = layer(x)
        assert_close(output, expected, **EXACT)
        assert_close(state[0], h, **EXACT)
        for part, right in zip(flat(state[-1]), state_of(name, memory), strict=True):
            assert_close(part, right, **EXACT)
        for a, b in zip(grad((output * w).sum(), leaves), slopes, strict=True):
            assert_close(a, b, rtol=1e-9, atol=1e-9)


@every_rule
@learned_or_fixed
def test_a_cell_takes_the_layer_s_steps(name, learnable):
    layer = make_layer("lstm", name, learnable, carry_momentum=True)
    cell = momentumrnn.LSTMCell(3, 5, rule=SPREAD[name](learnable=learnable), dtype=F64)
    cell.load_state_dict({key.replace("_l0", ""): value for key, value in layer.state_dict().items()})
    x = torch.randn(7, 2, 3, dtype=F64)
    whole, last = layer(x)
    state = None
    for step, expected in zip(x, whole, strict=True):
        state = cell(step, state)
        assert_close(state[0], expected, **EXACT)
    for part, expected in zip(flat(state[-1]), flat(last[-1]), strict=True):
        assert_close(part, expected[0], **EXACT)
