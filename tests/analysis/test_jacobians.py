"""Jacobians between hidden states, and the spectrum of U, against automatic differentiation and by hand."""

import pytest
import torch
from torch.nn.utils import parametrizations
from torch.testing import assert_close

import momentumrnn
from cases import CELLS, has_memory_cell, make_layer
from momentumrnn.analysis import recurrence_spectrum, state_jacobian_singular_values
from momentumrnn.analysis.jacobians import state_jacobians
from momentumrnn.errors import InputError

EXACT = {"rtol": 1e-9, "atol": 1e-12}
STEPS = 6


def by_differentiation(layer, x, t, T, block="h"):
    """∂ state_T / ∂ state_t: the rest of the sequence as a function of the state it starts from."""
    carried = layer.carry_momentum
    before, rest = x[: t + 1, None], x[t + 1 : T + 1, None]
    state = layer(before)[1]
    if len(rest) == 0:
        return None
    if not has_memory_cell(layer.cell()):
        h, m = state if carried else (state, None)

        def run(h):
            last = layer(rest, (h, m) if carried else h)[1]
            return last[0] if carried else last

        jacobian = torch.autograd.functional.jacobian(run, h)
        return jacobian.reshape(h.numel(), h.numel())
    h, c, *m = state
    parts = torch.autograd.functional.jacobian(lambda h, c: layer(rest, (h, c, *m))[1][:2], (h, c))
    rows = [
        torch.cat([p.reshape(q.numel(), -1) for p in row], 1) for row, q in zip(parts, (h, c), strict=True)
    ]
    whole, width = torch.cat(rows), h.numel()
    return {"h": whole[:width, :width], "c": whole[width:, width:], "state": whole}[block]


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(cell, rule):
    layer = make_layer(cell, rule, carry_momentum=rule != "none")
    x = torch.randn(STEPS, 3, dtype=torch.float64)
    for block in ("h", "c", "state") if has_memory_cell(cell) else ("h",):
        every = state_jacobians(layer, x, block=block)
        assert len(every) == STEPS
        assert_close(every[-1], torch.eye(every.shape[-1], dtype=torch.float64))
        for t, T in ((0, 5), (2, 5), (1, 3), (2, 3)):
            expected = by_differentiation(layer, x, t, T, block)
            assert_close(state_jacobians(layer, x, t, T, block=block), expected, **EXACT)
            values = state_jacobian_singular_values(layer, x, t, T, block=block)
            assert_close(values, torch.linalg.svdvals(expected), **EXACT)
        assert_close(every[2], by_differentiation(layer, x, 2, 5, block), **EXACT)


def test_places_layouts_and_precision():
    layer = make_layer("gru", "restart", num_layers=2, bidirectional=True, batch_first=True)
    x = torch.randn(STEPS, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="name one of"):
        state_jacobians(layer, x)
    assert_close(state_jacobians(layer, x[None], place="l1"), state_jacobians(layer, x, place="l1"), **EXACT)
    upside_down = state_jacobians(layer, x, place="l0_reverse")
    single = momentumrnn.GRU(3, 5, rule=momentumrnn.rules.ScheduledRestart(3, 0.9), dtype=torch.float64)
    single.load_state_dict(
        {
            f"{n}_l0": getattr(layer, f"{n}_l0_reverse")
            for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
    )
    assert_close(upside_down, state_jacobians(single, x.flip(0)), **EXACT)
    single = single.float()
    found = state_jacobians(single, x.float())
    assert found.dtype is torch.float64
    assert all(parameter.dtype is torch.float32 for parameter in single.parameters())


def test_a_float32_layer_in_float64():
    layer = momentumrnn.RNN(3, 5, bias=False)
    # Nothing enters and nothing saturates: the Jacobians are the powers of U.
    found = state_jacobians(layer, torch.zeros(4, 3), t=0)
    assert_close(
        found, torch.linalg.matrix_power(layer.weight_hh_l0.detach().double(), 3), rtol=1e-12, atol=1e-16
    )


def test_an_orthogonal_recurrence_keeps_every_norm():
    layer = momentumrnn.MomentumDTRIV(3, 6, momentum=0.3, step_size=0.3, dtype=torch.float64)
    torch.nn.init.ones_(layer.modrelu_bias_l0)
    values = state_jacobian_singular_values(layer, torch.randn(30, 3, dtype=torch.float64))
    # With a positive bias modrelu lets all through.
    assert_close(values, torch.ones_like(values), **EXACT)


def test_what_has_no_jacobian():
    layer, x = momentumrnn.LSTM(3, 4), torch.randn(5, 3)
    for t, T in ((3, 2), (-1, None), (0, 5), (5, None)):
        with pytest.raises(IndexError, match="0 <= t <= T < 5"):
            state_jacobian_singular_values(layer, x, t, T)
    with pytest.raises(InputError, match="single sequence"):
        state_jacobian_singular_values(layer, torch.randn(5, 2, 3))
    with pytest.raises(InputError, match="input_size"):
        state_jacobian_singular_values(layer, torch.randn(5, 2))
    with pytest.raises(ValueError, match="h, c, state"):
        state_jacobian_singular_values(layer, x, block="o")
    with pytest.raises(ValueError, match="one of h, got 'c'"):
        state_jacobian_singular_values(momentumrnn.GRU(3, 4), x, block="c")
    with pytest.raises(TypeError, match="got LSTM"):
        state_jacobian_singular_values(torch.nn.LSTM(3, 4), x)


@pytest.mark.parametrize(("cell", "gates"), [("rnn_tanh", 1), ("gru", 3), ("lstm", 4), ("lstm_original", 3)])
def test_spectrum_of_every_gate(cell, gates):
    layer = make_layer(cell, "heavy_ball", "hidden", num_layers=2)
    found = recurrence_spectrum(layer, place="l1")
    assert found.shape == (gates, 5)
    assert (found.abs().diff(dim=1) <= 1e-12).all()
    for values, block in zip(found, layer.weight_hh_l1.detach().chunk(gates), strict=True):
        # The traces of the first powers fix the eigenvalues.
        for power in range(1, 6):
            trace = torch.linalg.matrix_power(block, power).trace()
            assert_close((values**power).sum().real, trace, **EXACT)


def test_spectrum_of_the_matrix_that_is_multiplied_with():
    layer = momentumrnn.ExpRNN(3, 8)
    assert_close(recurrence_spectrum(layer).abs(), torch.ones(1, 8, dtype=torch.float64))
    cell = momentumrnn.OrthogonalRNNCell(3, 8)
    assert_close(recurrence_spectrum(cell).abs(), torch.ones(1, 8, dtype=torch.float64))
    parametrized = parametrizations.orthogonal(momentumrnn.RNN(3, 8), "weight_hh_l0")
    assert_close(recurrence_spectrum(parametrized).abs(), torch.ones(1, 8, dtype=torch.float64))

    layer = momentumrnn.LSTM(3, 8, weight_dropout=0.5)
    before = torch.get_rng_state()
    found = recurrence_spectrum(layer)
    assert layer.training
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found, recurrence_spectrum(layer.eval()))

    with pytest.raises(InputError, match="5 × 2"):
        recurrence_spectrum(momentumrnn.LSTM(3, 5, proj_size=2))
    with pytest.raises(ValueError, match="with an RNN, LSTM or GRU of momentumrnn"):
        recurrence_spectrum(torch.nn.RNN(3, 4))
