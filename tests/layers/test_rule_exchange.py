"""A layer's rule can be exchanged and its coefficients set, and nothing of that goes unnoticed."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch.testing import assert_close

import momentumrnn
from cases import CELLS, RULES, make_layer, make_rule
from momentumrnn import rules
from momentumrnn.errors import BackendError, InputError

F64 = torch.float64


def stack(rule, cell="lstm", **options):
    torch.manual_seed(0)
    name, arguments, _ = CELLS[cell]
    shape = {"num_layers": 2, "bidirectional": True, "dtype": F64}
    return getattr(momentumrnn, name)(3, 5, rule=rule, **arguments, **shape, **options)


@pytest.mark.parametrize("learnable", [False, True, "channel"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_an_assigned_rule_runs_in_every_place(cell, rule, learnable):
    x = torch.randn(6, 2, 3, dtype=F64)
    layer = stack(rules.HeavyBall(0.1, 2.0), cell)
    layer.rule = make_rule(rule, learnable=learnable)
    expected = stack(make_rule(rule, learnable=learnable), cell)
    expected.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x)[0], expected(x)[0])
    assert list(layer.state_dict()) == list(expected.state_dict())
    layer.rule = None
    assert layer.rule is None
    plain = stack(None, cell)
    plain.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(layer(x)[0], plain(x)[0])


def test_a_plain_layer_gets_a_rule_and_keeps_its_weights():
    layer = momentumrnn.LSTM(3, 5, bidirectional=True, dtype=torch.float64).eval()
    weights = dict(layer.named_parameters())
    layer.rule = rules.Adam(0.6, 1.0, 0.5, learnable="channel")
    assert all(layer.get_parameter(name) is weight for name, weight in weights.items())
    assert layer.rule_l0_reverse.raw_beta.shape == (20,)
    assert layer.rule_l0_reverse.raw_beta.dtype == torch.float64
    assert not layer.rule.training


def test_the_same_rule_again_changes_nothing():
    layer = momentumrnn.MomentumLSTM(3, 5, learnable=True)
    before = layer.rule.raw_momentum
    layer.rule = layer.rule
    assert layer.rule.raw_momentum is before


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell", "OrthogonalRNNCell"])
def test_cells_exchange_their_rule(kind):
    x = torch.randn(2, 3)
    cell = getattr(momentumrnn, kind)(3, 5, rule=rules.HeavyBall(0.1, 2.0))
    expected = cell(x)
    cell.rule = rules.HeavyBall(0.5, 1.0, learnable="channel")
    assert not torch.equal(cell(x)[0], expected[0])
    cell.rule = rules.HeavyBall(0.1, 2.0)
    assert torch.equal(cell(x)[0], expected[0])
    cell.rule.step_size = 1.0
    cell.rule.momentum = 0.0
    plain = cell(x)[0]
    cell.rule = None
    assert cell.rule is None
    output = cell(x)
    assert_close(output[0] if isinstance(output, tuple) else output, plain)


def test_what_no_rule_can_be_exchanged_for():
    layer = momentumrnn.LSTM(3, 5)
    with pytest.raises(TypeError, match=r"rule should be one of momentumrnn\.rules"):
        layer.rule = "momentum"
    with pytest.raises(ValueError, match="20 rows of weight_ih_l0, got one that needs 5"):
        layer.rule = rules.HeavyBall(0.5, 1.0, velocity="hidden")
    hidden = momentumrnn.LSTM(3, 5, rule=rules.HeavyBall(0.5, 1.0, velocity="hidden"))
    with pytest.raises(ValueError, match="5 rows of weight_ih_l0, got one that needs 20"):
        hidden.rule = None
    carried = momentumrnn.MomentumLSTM(3, 5, carry_momentum=True)
    with pytest.raises(ValueError, match="needs a rule to carry"):
        carried.rule = None
    with pytest.raises(AttributeError, match="velocity cannot be changed"):
        hidden.rule.velocity = "gate"
    with pytest.raises(AttributeError, match="learnable cannot be changed"):
        hidden.rule.learnable = True


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_coefficient_is_set_in_every_place(copied):
    x = torch.randn(6, 2, 3, dtype=F64)
    layer = stack(rules.HeavyBall(0.1, 2.0))
    other = copied(layer)
    layer.rule.momentum = 0.7
    layer.rule.step_size = 0.5
    expected = stack(rules.HeavyBall(0.7, 0.5))
    assert torch.equal(layer(x)[0], expected(x)[0])
    assert repr(layer) == repr(expected)
    assert other.rule.momentum == 0.1
    other.rule.momentum = 0.7
    other.rule.step_size = 0.5
    assert torch.equal(other(x)[0], expected(x)[0])


def test_every_number_of_every_rule_can_be_set():
    restart = stack(rules.ScheduledRestart(3, 1.0))
    restart.rule.restart = 2
    assert restart.rule_l1_reverse.restart == 2
    adam = stack(rules.Adam(0.6, 1.0, 0.5))
    adam.rule.beta, adam.rule.eps = 0.9, 0.1
    assert (adam.rule_l1.beta, adam.rule_l1.eps) == (0.9, 0.1)
    x = torch.randn(6, 2, 3, dtype=F64)
    assert torch.equal(adam(x)[0], stack(rules.Adam(0.6, 1.0, 0.9, 0.1))(x)[0])


def test_a_number_outside_its_range_is_not_set():
    layer = momentumrnn.AdamLSTM(3, 5)
    for name, value in (("momentum", 1.0), ("beta", -0.1), ("step_size", 0.0), ("eps", 1e-30)):
        with pytest.raises(ValueError, match=f"Adam: expected {name}"):
            setattr(layer.rule, name, value)
    with pytest.raises(TypeError, match="momentum should be a number, got str"):
        layer.rule.momentum = "0.5"
    with pytest.raises(TypeError, match="restart should be an int, got float"):
        momentumrnn.SRLSTM(3, 5).rule.restart = 2.0
    learned = momentumrnn.MomentumLSTM(3, 5, learnable=True)
    with pytest.raises(AttributeError, match=r"momentum is learned .* raw_momentum"):
        learned.rule.momentum = 0.5


def test_a_schedule_under_compile():
    layer = momentumrnn.MomentumLSTM(3, 5)
    run = torch.compile(layer, backend="eager", fullgraph=True)
    x = torch.randn(6, 2, 3)
    for momentum in (0.6, 0.3):
        layer.rule.momentum = momentum
        assert_close(run(x)[0], layer(x)[0])


@pytest.mark.parametrize("learnable", [False, True, "channel"])
@pytest.mark.parametrize("rule", RULES)
def test_hooks_of_a_rule_run(rule, learnable):
    layer = make_layer("lstm", rule, learnable=learnable)
    x = torch.randn(6, 2, 3, dtype=F64)
    expected = layer(x)[0]
    shapes = []
    handle = layer.rule.register_forward_hook(lambda module, args, output: shapes.append(args[0].shape))
    assert_close(layer(x)[0], expected, rtol=1e-9, atol=1e-9)
    assert shapes == [(6, 2, 20)]
    layer.rule.register_forward_pre_hook(lambda module, args: (args[0] * 0, *args[1:]))
    handle.remove()
    assert not torch.allclose(layer(x)[0], expected)


def test_hooks_of_a_cell_s_rule_run():
    cell = momentumrnn.LSTMCell(3, 5, rule=rules.HeavyBall(0.5, 1.0))
    x = torch.randn(2, 3)
    expected = cell(x)
    calls = []
    cell.rule.register_forward_hook(lambda *_: calls.append(1))
    state = cell(x)
    assert calls == [1]
    assert_close(state, expected)
    cell(x, state)
    assert calls == [1, 1]


@pytest.mark.parametrize("part", ["rule_l0", "orthogonal_l0"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_part_on_another_device_is_refused(part, backend):
    layer = momentumrnn.MomentumDTRIV(3, 5, learnable=True)
    layer.get_submodule(part).to("meta")
    with (
        momentumrnn.backend(backend),
        pytest.raises(InputError, match=r"got meta; move the layer as a whole"),
    ):
        layer(torch.randn(4, 2, 3))
    cell = momentumrnn.LSTMCell(3, 5, rule=rules.HeavyBall(0.5, 1.0, learnable=True))
    cell.rule.to("meta")
    with pytest.raises(InputError, match="expected raw_momentum on cpu"):
        cell(torch.randn(2, 3))
    rule = rules.HeavyBall(0.5, 1.0, learnable=True).to("meta")
    with pytest.raises(InputError, match="expected raw_momentum on cpu"):
        rule(torch.randn(4, 2, 3))


def saved(layer):
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("cell", [False, True])
def test_a_checkpoint_of_another_rule_is_noticed(cell):
    def make(rule):
        kind = momentumrnn.LSTMCell if cell else momentumrnn.LSTM
        return torch.nn.Sequential(kind(3, 5, rule=rule))

    trained = make(rules.HeavyBall(0.6, 1.0))
    assert set(trained.state_dict()) == set(make(None).state_dict())
    for rule, said in (
        (rules.HeavyBall(0.9, 1.0), r"momentum=0\.6.* has HeavyBall\(momentum=0\.9"),
        (rules.Nesterov(1.0), r"HeavyBall.* has Nesterov"),
        (None, "has no rule"),
    ):
        with pytest.warns(UserWarning, match=said):
            make(rule).load_state_dict(saved(trained))
    with pytest.warns(UserWarning, match="saved with no rule"):
        trained.load_state_dict(saved(make(None)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(rules.HeavyBall(0.6, 1.0)).load_state_dict(saved(trained))
        learned = make(rules.HeavyBall(0.6, 1.0, learnable=True))
        # A learned coefficient is in the checkpoint itself, wherever it began.
        make(rules.HeavyBall(0.9, 1.0, learnable=True)).load_state_dict(saved(learned))
        if not cell:
            momentumrnn.MomentumLSTM(3, 5).load_state_dict(torch.nn.LSTM(3, 5).state_dict())


@pytest.mark.parametrize("learnable", [True, "channel"])
def test_learned_coefficients_of_a_checkpoint_without_metadata(learnable):
    source = momentumrnn.AdamLSTM(3, 5, learnable=learnable, dtype=F64)
    with torch.no_grad():
        source.rule.raw_momentum += 0.5
    layer = momentumrnn.AdamLSTM(3, 5, momentum=0.1, step_size=3.0, learnable=learnable, dtype=F64)
    layer.load_state_dict(dict(source.state_dict()))
    for name in ("momentum", "step_size", "beta"):
        assert_close(getattr(layer.rule, name), getattr(source.rule, name), rtol=1e-12, atol=0)


def test_checkpoints_of_version_0_1_with_learned_coefficients():
    layer = momentumrnn.MomentumLSTM(3, 5, learnable=True)
    state = dict(layer.state_dict())
    for name, start in (("momentum", 0.9), ("step_size", 0.5)):
        del state[f"rule_l0.raw_{name}"]
        state[f"rule_l0.{name}_start"] = torch.tensor(start)
        state[f"rule_l0.{name}_offset"] = torch.tensor(0.0)
    layer.load_state_dict(state)
    assert torch.equal(layer.rule.momentum, torch.tensor(0.9))
    assert torch.equal(layer.rule.step_size, torch.tensor(0.5))
    state["rule_l0.momentum_offset"] = torch.tensor(0.7)
    layer.load_state_dict(state)
    assert_close(layer.rule.momentum, torch.sigmoid(torch.logit(torch.tensor(0.9)) + 0.7))


def continued(layer, hx):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer(torch.randn(4, 2, 3), hx)
    return [str(warning.message) for warning in caught]


def test_a_state_without_its_momentum_is_said_once():
    layer = momentumrnn.MomentumLSTM(3, 5)
    zeros = torch.zeros(1, 2, 5)
    _, state = layer(torch.randn(4, 2, 3))
    assert continued(layer, (zeros, zeros)) == []
    (message,) = continued(layer, state)
    assert "carry_momentum=True" in message
    assert continued(layer, state) == []
    # The line shown is the caller's.
    with pytest.warns(UserWarning, match="momentum starts at zero") as caught:
        momentumrnn.MomentumGRU(3, 5)(torch.randn(4, 2, 3), torch.ones(1, 2, 5))
    assert caught[0].filename == __file__


def test_no_word_where_nothing_is_lost():
    h = torch.ones(1, 2, 5)
    assert continued(momentumrnn.LSTM(3, 5), (h, h)) == []
    carried = momentumrnn.MomentumLSTM(3, 5, carry_momentum=True)
    assert continued(carried, carried(torch.randn(4, 2, 3))[1]) == []
    run = torch.compile(momentumrnn.MomentumGRU(3, 5), backend="eager", fullgraph=True)
    assert continued(run, h) == []


@pytest.mark.parametrize("plain", [tuple, list])
@pytest.mark.parametrize("rule", RULES)
def test_a_momentum_state_may_be_a_plain_tuple(rule, plain):
    x = torch.randn(6, 2, 3, dtype=F64)
    layer = make_layer("lstm", rule, carry_momentum=True)
    whole = layer(x)[0]
    _, (h, c, momentum) = layer(x[:4])
    assert_close(layer(x[4:], (h, c, plain(momentum)))[0], whole[4:])
    cell = momentumrnn.GRUCell(3, 5, rule=make_rule(rule), dtype=F64)
    h, momentum = cell(x[0])
    assert_close(cell(x[1], (h, plain(momentum)))[0], cell(x[1], (h, momentum))[0])


def test_damaged_momentum_states():
    layer = momentumrnn.NAGLSTM(3, 5, carry_momentum=True)
    x = torch.randn(4, 2, 3)
    _, (h, c, momentum) = layer(x)
    for least in (-2, -3):
        state = momentum._replace(step=torch.tensor([[4, least]]))
        with pytest.raises(InputError, match=f"step to count from 0, got {least}"):
            layer(x, (h, c, state))
    with pytest.raises(TypeError, match="velocity to be a tensor, got NoneType"):
        layer(x, (h, c, momentum._replace(velocity=None)))
    with pytest.raises(TypeError, match="NesterovState"):
        layer(x, (h, c, (momentum.velocity,)))
    adam = momentumrnn.AdamLSTM(3, 5, carry_momentum=True)
    with pytest.raises(TypeError, match="AdamState"):
        adam(x, (h, c, momentum))


@pytest.mark.parametrize("rule", RULES)
def test_states_can_be_loaded_without_pickled_code(rule):
    layer = make_layer("gru", rule, carry_momentum=True)
    _, state = layer(torch.randn(4, 2, 3, dtype=F64))
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert type(loaded[1]) is type(state[1])
    assert_close(loaded, state)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: momentumrnn.MomentumLSTM(3, 5, mu=0.5), r"MomentumLSTM: .*'mu'; did you mean 'momentum'"),
        (lambda: momentumrnn.AdamLSTM(3, 5, epsilon=0.5), r"AdamLSTM: .*'epsilon'; did you mean 'eps'"),
        (lambda: momentumrnn.SRLSTM(3, 5, F=2), r"SRLSTM: .*'F'; did you mean 'restart'"),
        (lambda: momentumrnn.MomentumDTRIV(3, 5, K=2), r"MomentumDTRIV: .* 'rebase_every'"),
        (
            lambda: momentumrnn.MomentumGRU(3, 5, wd=1),
            r"MomentumGRU: unexpected argument 'wd'; it takes .*momentum",
        ),
    ],
)
def test_an_unknown_argument_names_the_class_and_the_nearest(make, said):
    with pytest.raises(TypeError, match=said):
        make()


@pytest.mark.parametrize("flag", ["bias", "batch_first", "bidirectional", "carry_momentum", "forget_gate"])
@pytest.mark.parametrize("value", ["no", 2, None])
def test_flags_are_bools(flag, value):
    with pytest.raises(TypeError, match=f"{flag} should be a bool"):
        momentumrnn.LSTM(3, 5, rule=rules.HeavyBall(0.5, 1.0), **{flag: value})


def test_a_backend_is_checked_when_it_is_named():
    with pytest.raises(BackendError, match="expected a backend among"):
        momentumrnn.backend("anything")


def test_explain_knows_a_recurrence_of_one_s_own():
    class Leaky(momentumrnn.RNN):
        def _recur(self, inputs, states, weight_hh, suffix):
            (h,) = states
            outputs = []
            for drive in inputs.dense():
                h = 0.5 * h + 0.5 * torch.tanh(drive + h @ weight_hh.t())
                outputs.append(h)
            return torch.stack(outputs), h

    text = momentumrnn.explain(Leaky(3, 5, rule=rules.HeavyBall(0.5, 1.0)), torch.randn(4, 2, 3))
    assert "the recurrence of Leaky itself" in text
    assert "faster" not in text
