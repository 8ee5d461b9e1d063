"""What only the orthogonal layers have: names, when U is computed, their kernels, and copies in training."""

import copy
import inspect
import math
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import momentumrnn
from cases import ORTHOGONAL_CELLS, RULES, make_layer, make_rule
from momentumrnn import OrthogonalRNN, OrthogonalRNNCell, backend, explain, rules
from momentumrnn.errors import InputError
from momentumrnn.parametrizations import Orthogonal

NAMED = {
    "ExpRNN": (None, None),
    "DTRIV": (None, 100),
    "MomentumDTRIV": (rules.HeavyBall(0.3, 0.3), 100),
    "AdamDTRIV": (rules.Adam(0.3, 0.3, 0.8), 100),
    "RMSPropDTRIV": (rules.RMSProp(0.3, 0.9), 100),
    "SRDTRIV": (rules.ScheduledRestart(2, 0.3), 100),
}


@pytest.fixture
def computed(monkeypatch):
    """How often an orthogonal matrix is computed."""
    calls = []
    forward = Orthogonal.forward
    monkeypatch.setattr(Orthogonal, "forward", lambda self: (calls.append(self), forward(self))[1])
    return calls


@pytest.mark.parametrize("rule", ["none", *RULES])
def test_once_a_call_of_the_layer_never_once_a_step(rule, computed):
    layer = make_layer("orthogonal", rule, num_layers=2, bidirectional=True)
    for steps in (1, 30):
        computed.clear()
        layer(torch.randn(steps, 2, 3, dtype=torch.float64))
        assert len(computed) == len(set(map(id, computed))) == 4


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
def test_the_cell_computes_it_once_a_sequence(rule, computed):
    cell = OrthogonalRNNCell(3, 5, rebase_every=1, rule=make_rule(rule))
    optimizer, state = torch.optim.SGD(cell.parameters(), lr=0.1), None
    for sequence in range(1, 4):
        state = None
        for x_t in torch.randn(6, 2, 3):
            state = cell(x_t, state)
        assert len(computed) == 2 * sequence - 1  # one for each change of base
        optimizer.zero_grad()
        (state if rule == "none" else state[0]).sum().backward()
        optimizer.step()
    computed.clear()
    with torch.no_grad():
        for x_t in torch.randn(6, 2, 3):
            state = cell(x_t, state)
    assert len(computed) == 1


def test_the_cell_never_keeps_an_old_matrix():
    cell, x = OrthogonalRNNCell(3, 5), torch.randn(2, 3)
    h = torch.randn(2, 5)

    def fresh():
        other = OrthogonalRNNCell(3, 5)
        other.load_state_dict(cell.state_dict())
        return other(x, h)

    changes = [
        lambda: nn.init.normal_(cell.orthogonal.skew),
        lambda: cell.orthogonal.rebase(),
        lambda: setattr(cell, "weight_hh", torch.linalg.qr(torch.randn(5, 5)).Q),
        lambda: cell.load_state_dict(OrthogonalRNNCell(3, 5).state_dict()),
        lambda: cell.reset_parameters(),
        lambda: cell(x, h).sum().backward(),
    ]
    for change in changes:
        cell(x, h)
        change()
        assert_close(cell(x, h), fresh(), rtol=0, atol=1e-6)
        cell(x, h).sum().backward()
    with torch.inference_mode():
        cell(x, h)
    cell(x, h).sum().backward()
    assert torch.equal(pickle.loads(pickle.dumps(cell))(x, h), copy.deepcopy(cell)(x, h))
    assert cell.double()(x.double(), h.double()).dtype == torch.float64


@pytest.mark.parametrize("name", NAMED)
def test_named_layers_are_the_layer_with_their_rule(name):
    rule, every = NAMED[name]
    layer = getattr(momentumrnn, name)(3, 5)
    assert layer.orthogonal_l0.rebase_every == every
    assert layer.orthogonal_l0.map == "exp"
    plain = OrthogonalRNN(3, 5, rule=rule, rebase_every=every)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(4, 2, 3)
    assert torch.equal(layer(x)[0], plain(x)[0])
    assert str(layer.rule) == str(plain.rule)
    with pytest.raises(TypeError, match="takes its arguments by keyword"):
        getattr(momentumrnn, name)(3, 5, rule=rules.HeavyBall(0.1, 0.1))


def test_named_layers_pass_on_what_they_are_given():
    layer = momentumrnn.MomentumDTRIV(
        3,
        5,
        2,
        momentum=0.5,
        step_size=0.7,
        map="cayley",
        rebase_every=math.inf,
        init="henaff",
        velocity="hidden",
    )
    matrix = layer.orthogonal_l1
    assert (matrix.map, matrix.rebase_every, matrix.start) == ("cayley", math.inf, "henaff")
    assert (layer.rule.momentum, layer.rule.step_size, layer.rule.velocity) == (0.5, 0.7, "hidden")
    assert momentumrnn.DTRIV(3, 5, rebase_every=None).orthogonal_l0.rebase_every is None
    for argument in ({"map": "cayley"}, {"rebase_every": 5}):
        with pytest.raises(TypeError, match="ExpRNN has no argument"):
            momentumrnn.ExpRNN(3, 5, **argument)


def test_signature_is_that_of_the_other_layers():
    ours = list(inspect.signature(OrthogonalRNN).parameters)
    theirs = list(inspect.signature(momentumrnn.LSTM).parameters)
    assert ours[:9] == [name for name in theirs if name != "proj_size"][:9]
    assert {"rule", "carry_momentum"} <= set(ours) & set(theirs)


def test_parameters_by_name():
    layer = OrthogonalRNN(3, 5, num_layers=2, bidirectional=True, rebase_every=7)
    shapes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    expected = {}
    for k, width in ((0, 3), (1, 10)):
        for place in (f"l{k}", f"l{k}_reverse"):
            expected |= {f"weight_ih_{place}": (5, width), f"modrelu_bias_{place}": (5,)}
            expected |= {f"orthogonal_{place}.skew": (10,)}
    assert shapes == expected
    assert {name for name, _ in layer.named_buffers()} == {
        f"orthogonal_{place}.{name}"
        for place in ("l0", "l0_reverse", "l1", "l1_reverse")
        for name in ("base", "steps", "changes")
    }
    assert layer.weight_hh_l1_reverse.shape == (5, 5)
    assert not hasattr(layer, "weight_hh_l2")
    assert "bias=True" in repr(OrthogonalRNN(3, 5, bias=True)) or "bias" not in repr(layer)


def test_initialisation():
    layer = OrthogonalRNN(50, 400, bias=True)
    assert abs(layer.weight_ih_l0.std() - math.sqrt(2 / 50)) < 0.01
    assert 0.005 < layer.modrelu_bias_l0.abs().max() <= 0.01
    assert not layer.bias_ih_l0.any()
    assert not layer.bias_hh_l0.any()


def test_assigning_a_matrix():
    layer, wanted = OrthogonalRNN(3, 5, rebase_every=1), torch.linalg.qr(torch.randn(5, 5)).Q
    layer.weight_hh_l0 = wanted
    assert_close(layer.weight_hh_l0, wanted)
    with pytest.raises(InputError, match="orthogonal"):
        layer.weight_hh_l0 = torch.ones(5, 5)


@pytest.mark.parametrize("cell", ORTHOGONAL_CELLS)
@pytest.mark.parametrize("rule", ["none", *RULES])
def test_it_runs_on_the_kernels(cell, rule):
    layer = make_layer(cell, rule)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    if momentumrnn.kernels.extension.extension() is None:
        pytest.skip("the C++ kernels were not built")
    assert ": cpu" in explain(layer, x)
    with backend("reference"):
        expected = layer(x)[0]
    assert_close(layer(x)[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("every", [1, 3, math.inf])
@pytest.mark.parametrize("name", ["DTRIV", "MomentumDTRIV", "AdamDTRIV"])
def test_training_goes_on_in_a_copy(name, every):
    torch.manual_seed(1)
    layer = getattr(momentumrnn, name)(3, 6, num_layers=2, rebase_every=every)
    x = torch.randn(5, 2, 3)

    def train(layer, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            layer(x)[0].square().mean().backward()
            optimizer.step()
        return layer(x)[0].detach()

    def optimizer_of(layer):
        return torch.optim.RMSprop(momentumrnn.parameter_groups(layer, 1e-2, 1e-3))

    optimizer = optimizer_of(layer)
    train(layer, optimizer, 4)
    other = getattr(momentumrnn, name)(3, 6, num_layers=2, rebase_every=every)
    other.load_state_dict(layer.state_dict())
    resumed = optimizer_of(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(train(other, resumed, 5), train(layer, optimizer, 5))


@pytest.mark.parametrize("name", ["DTRIV", "MomentumDTRIV", "RMSPropDTRIV"])
def test_compiled_while_the_base_changes(name):
    layer = getattr(momentumrnn, name)(3, 6, rebase_every=2)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    optimizer, x = torch.optim.SGD(layer.parameters(), lr=0.01), torch.randn(5, 2, 3)
    for _ in range(5):
        optimizer.zero_grad()
        compiled(x)[0].square().mean().backward()
        optimizer.step()
        assert_close(compiled(x)[0], layer(x)[0], rtol=1e-4, atol=1e-5)
    assert int(layer.orthogonal_l0.changes) == 2


def test_the_cell_notices_numbers_that_changed_without_a_trace():
    cell, x, h = OrthogonalRNNCell(3, 5), torch.randn(2, 3), torch.randn(2, 5)
    with torch.no_grad():
        before = cell(x, h)
        cell.orthogonal.skew.data.mul_(0)
        after = cell(x, h)
        cell.reset()
        assert torch.equal(after, cell(x, h))
        assert not torch.equal(after, before)
        names = dict(cell.named_parameters())
        for _ in range(5):
            # Each may come to lie where the one before it lay.
            given = {**names, "orthogonal.skew": torch.randn_like(cell.orthogonal.skew)}
            found = torch.func.functional_call(cell, given, (x, h))
            other = copy.deepcopy(cell)
            other.orthogonal.skew.copy_(given["orthogonal.skew"])
            assert torch.equal(found, other(x, h))


def test_the_cell_under_activation_checkpointing():
    cell, x = OrthogonalRNNCell(3, 5), torch.randn(4, 2, 3)

    def run(x):
        h = None
        for x_t in x:
            h = cell(x_t, h)
        return h

    (expected,) = torch.autograd.grad(run(x).square().sum(), cell.orthogonal.skew)
    loss = checkpoint(run, x, use_reentrant=False).square().sum()
    (found,) = torch.autograd.grad(loss, cell.orthogonal.skew)
    assert_close(found, expected)


@pytest.mark.parametrize("assign", [False, True])
def test_layers_that_were_made_without_memory(assign):
    source = momentumrnn.DTRIV(3, 5)
    layer = momentumrnn.DTRIV(3, 5, device="meta")
    if not assign:
        layer = layer.to_empty(device="cpu")
    layer.load_state_dict(source.state_dict(), assign=assign)
    x = torch.randn(4, 2, 3)
    assert torch.equal(layer(x)[0], source(x)[0])


def test_a_start_from_haar_in_few_bits():
    layer = OrthogonalRNN(4, 6, init="haar", dtype=torch.bfloat16)
    u = layer.orthogonal_l0.base.float()
    assert_close(u.t() @ u, torch.eye(6), rtol=0, atol=0.05)
