"""∂L/∂h_t of every step against a plain loop over time that holds each h_t, and by finite differences."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence, unpack_sequence
from torch.testing import assert_close

import momentumrnn
import oracle
from cases import CELLS, RULES, VELOCITIES, make_layer, oracle_layer
from momentumrnn.analysis import hidden_gradient_norms
from momentumrnn.analysis.hidden_gradients import hidden_gradients

T, B = 7, 3
EXACT = {"rtol": 1e-9, "atol": 1e-12}
BACKENDS = ["auto", "reference"]
RULED = [("none", "gate"), *itertools.product(RULES, VELOCITIES)]


@pytest.fixture
def every_state(monkeypatch):
    """All h_t that the oracle computes, each a node in the graph, place after place."""
    seen, step = [], oracle.cell_step

    def keeping(*args):
        h, c = step(*args)
        seen.append(h)
        return h, c

    monkeypatch.setattr(oracle, "cell_step", keeping)
    return seen


def states_of(layer, cell, rule, velocity, x, seen):
    """The oracle's output, h_n, and its h_t as one list of T nodes for each place, in the input's order."""
    output, h_n, c_n, _ = oracle_layer(layer, cell, rule, velocity, x)
    count = len(x)
    places = [seen[k : k + count] for k in range(0, len(seen), count)]
    seen.clear()
    names = [suffix for suffix, _ in layer.places()]
    return (output, h_n, c_n), {
        name[1:]: nodes[::-1] if name.endswith("reverse") else nodes
        for name, nodes in zip(names, places, strict=True)
    }


def some_loss(output, h_n, c_n=None):
    """Something of every output and last state, with different weights, not linear in any."""
    value = (output.sin() * torch.linspace(0.5, 2, output.shape[0])[:, None, None]).sum() / 3
    value = value + (h_n**2).sum() * 0.7
    return value if c_n is None else value + c_n.cos().sum()


def of_layer(layer, x):
    output, state = layer(x)
    h_n, c_n = state if isinstance(state, tuple) else (state, None)
    return some_loss(output, h_n, c_n)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rule", "velocity"), RULED)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_and_rule(cell, rule, velocity, backend, every_state):
    layer = make_layer(cell, rule, velocity)
    x = torch.randn(T, B, 3, dtype=torch.float64)
    (output, h_n, c_n), nodes = states_of(layer, cell, rule, velocity, x, every_state)
    value = some_loss(output, h_n, c_n if cell.startswith("lstm") else None)
    expected = torch.stack(torch.autograd.grad(value, nodes["l0"]))

    with momentumrnn.backend(backend):
        found, loss, running = hidden_gradients(layer, lambda: of_layer(layer, x))
        result = hidden_gradient_norms(layer, lambda: of_layer(layer, x))

    assert_close(found, expected, **EXACT)
    assert loss == pytest.approx(value.item(), rel=1e-12)
    assert running.all()
    assert_close(result.per_sequence, expected.norm(dim=-1), **EXACT)
    assert_close(result.reduce(), expected.flatten(1).norm(dim=1), **EXACT)
    assert_close(result.reduce("sequence"), expected.norm(dim=-1).mean(1), **EXACT)


@pytest.mark.parametrize("place", ["l0", "l0_reverse", "l1", "l1_reverse"])
@pytest.mark.parametrize("learnable", [False, "channel"])
@pytest.mark.parametrize("cell", ["rnn_modrelu", "lstm", "gru"])
def test_stacked_and_bidirectional(cell, learnable, place, every_state):
    layer = make_layer(cell, "adam", learnable=learnable, num_layers=2, bidirectional=True)
    x = torch.randn(T, B, 3, dtype=torch.float64)
    (output, h_n, c_n), nodes = states_of(layer, cell, "adam", "gate", x, every_state)
    value = some_loss(output, h_n, c_n if cell.startswith("lstm") else None)
    expected = torch.stack(torch.autograd.grad(value, nodes[place]))
    found, *_ = hidden_gradients(layer, lambda: of_layer(layer, x), place=place)
    assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("place", ["l0", "l0_reverse"])
@pytest.mark.parametrize(
    ("rule", "velocity"), [("none", "gate"), *itertools.product(["heavy_ball", "rmsprop"], VELOCITIES)]
)
@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "lstm_projected", "gru"])
def test_a_packed_batch_is_its_sequences_one_by_one(cell, rule, velocity, place, every_state):
    layer = make_layer(cell, rule, velocity, bidirectional=True)
    lengths = [3, 6, 1, 6, 2]
    sequences = [torch.randn(length, 3, dtype=torch.float64) for length in lengths]

    def loss():
        output, state = layer(pack_sequence(sequences, enforce_sorted=False))
        h_n = state[0] if isinstance(state, tuple) else state
        parts = zip(unpack_sequence(output), h_n.unbind(1), strict=True)
        return sum((k + 1) * some_loss(y[:, None], h[:, None]) for k, (y, h) in enumerate(parts))

    expected = torch.full((max(lengths), len(lengths)), torch.nan, dtype=torch.float64)
    for k, x in enumerate(sequences):
        (output, h_n, _), nodes = states_of(layer, cell, rule, velocity, x[:, None], every_state)
        slopes = torch.autograd.grad((k + 1) * some_loss(output, h_n), nodes[place])
        expected[: len(x), k] = torch.stack(slopes).norm(dim=-1).flatten()

    found = hidden_gradient_norms(layer, loss, place=place)
    assert_close(found.per_sequence, expected, equal_nan=True, **EXACT)
    assert_close(found.reduce("sequence"), expected.nanmean(1), **EXACT)
    assert_close(found.reduce("batch"), expected.nan_to_num().norm(dim=1), **EXACT)


@pytest.mark.parametrize("cell", ["rnn_relu", "lstm", "gru"])
def test_batch_first_unbatched_and_inside_a_model(cell, every_state):
    layer = make_layer(cell, "nesterov", batch_first=True)
    model = nn.ModuleDict({"body": layer, "head": nn.Linear(5, 2, dtype=torch.float64)})
    x = torch.randn(T, B, 3, dtype=torch.float64)
    (output, _, _), nodes = states_of(layer, cell, "nesterov", "gate", x, every_state)
    head = model["head"]
    expected = torch.stack(torch.autograd.grad(head(output[-1]).square().sum(), nodes["l0"]))

    def loss(x, last):
        return head(last(layer(x)[0])).square().sum()

    found, *_ = hidden_gradients(model, lambda: loss(x.transpose(0, 1), lambda y: y[:, -1]))
    assert_close(found, expected, **EXACT)
    for k in range(B):
        found, *_ = hidden_gradients(model, lambda k=k: loss(x[:, k], lambda y: y[-1]), "body")
        assert_close(found, expected[:, k : k + 1], **EXACT)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
@pytest.mark.parametrize("rule", ["none", "heavy_ball", "nesterov", "adam"])
def test_chunks_of_a_sequence_are_the_whole(cell, rule):
    # Learned by channel, the velocity that is carried and the gate inputs are one tensor.
    carry = {"carry_momentum": True, "learnable": "channel"} if rule != "none" else {}
    layer = make_layer(cell, rule, **carry)
    x = torch.randn(T, B, 3, dtype=torch.float64)
    whole, *_ = hidden_gradients(layer, lambda: layer(x)[0].square().sum())

    def in_chunks():
        value, state = 0, None
        for part in x.split([2, 4, 1]):
            output, state = layer(part, state)
            value = value + output.square().sum()
        return value

    assert_close(hidden_gradients(layer, in_chunks)[0], whole, **EXACT)


@pytest.mark.parametrize(
    ("cell", "single"), [("rnn_tanh", "RNNCell"), ("lstm", "LSTMCell"), ("gru", "GRUCell")]
)
def test_a_cell_in_a_loop_is_the_layer(cell, single):
    layer = make_layer(cell, "heavy_ball")
    one = getattr(momentumrnn, single)(3, 5, rule=momentumrnn.rules.HeavyBall(0.7, 0.6), dtype=torch.float64)
    one.load_state_dict({name.removesuffix("_l0"): value for name, value in layer.state_dict().items()})
    x = torch.randn(T, B, 3, dtype=torch.float64)

    def loss():
        state, value = None, 0
        for x_t in x:
            state = one(x_t, state)
            value = value + state[0].square().sum()
        return value

    expected, *_ = hidden_gradients(layer, lambda: layer(x)[0].square().sum())
    assert_close(hidden_gradients(one, loss)[0], expected, **EXACT)


def test_what_the_layer_returned_may_be_written_into():
    layer = make_layer("lstm", "heavy_ball")
    x = torch.randn(T, B, 3, dtype=torch.float64)
    expected, *_ = hidden_gradients(layer, lambda: layer(x)[0].mul(3).square().sum())
    found, *_ = hidden_gradients(layer, lambda: layer(x)[0].mul_(3).square().sum())
    assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
def test_finite_differences(cell):
    """h_t enters the rest of the sequence as its initial state."""
    layer = make_layer(cell, "heavy_ball", carry_momentum=True)
    x, t = torch.randn(T, B, 3, dtype=torch.float64), 2
    found, *_ = hidden_gradients(layer, lambda: layer(x)[0][t + 1 :].square().sum())
    _, state = layer(x[: t + 1])

    def rest(h):
        return layer(x[t + 1 :], (h, *state[1:]))[0].square().sum().item()

    step, expected = 1e-6, torch.empty(B, 5, dtype=torch.float64)
    for b in range(B):
        for k in range(5):
            moved = torch.zeros_like(state[0])
            moved[0, b, k] = step
            expected[b, k] = (rest(state[0] + moved) - rest(state[0] - moved)) / (2 * step)
    assert_close(found[t], expected, rtol=1e-7, atol=1e-8)


def test_orthogonal_layers():
    layer = momentumrnn.MomentumDTRIV(3, 6, momentum=0.9, step_size=0.6, dtype=torch.float64)
    x = torch.randn(T, B, 3, dtype=torch.float64)
    found, *_ = hidden_gradients(layer, lambda: layer(x)[0][-1].square().sum())
    with torch.no_grad():
        output, weight = layer(x)[0], layer.weight_hh_l0
    expected = [2 * output[-1]]
    for h in output[1:].flip(0):
        # Where modrelu lets something through, its slope is one.
        expected.append((expected[-1] * (h != 0)) @ weight)
    assert_close(found, torch.stack(expected[::-1]), **EXACT)


def test_norms_below_the_squares_of_float32():
    layer = momentumrnn.RNN(1, 4, nonlinearity="relu")
    with torch.no_grad():
        layer.weight_hh_l0.copy_(1e-3 * torch.eye(4))
    found = hidden_gradient_norms(layer, lambda: layer(torch.ones(10, 1, 1))[0][-1].sum())
    assert (found.per_sequence > 0).all()
    assert found.per_sequence[0] < 1e-23


def test_padded_again_inside_the_model():
    layer = make_layer("gru", "restart")
    x, lengths = torch.randn(T, B, 3, dtype=torch.float64), torch.tensor([7, 2, 4])

    def loss():
        packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
        return pad_packed_sequence(layer(packed)[0])[0].square().sum()

    found = hidden_gradient_norms(layer, loss).per_sequence
    assert torch.equal(found.isnan(), torch.arange(T)[:, None] >= lengths)
