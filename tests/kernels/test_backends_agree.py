"""Every backend computes the same function: in float32 to rounding, dense and packed."""

import pytest
import torch
from torch.autograd import grad
from torch.nn.utils.rnn import pack_padded_sequence
from torch.testing import assert_close

from cases import CELLS, LEARNABLE, ORTHOGONAL_CELLS, RULE_CASES, RULES, flat, make_layer
from momentumrnn import backend
from momentumrnn.errors import BackendError

# Float64 is held to the equations, with the layers.
ROUNDING = {"rtol": 1e-4, "atol": 2e-5}


def everything(layer, x, state=None):
    """All the layer returns and all its gradients."""
    output, new = layer(x, state)
    data = getattr(output, "data", output) if isinstance(output, tuple) else output
    results = [data, *flat(new)]
    floats = [part for part in results if part.is_floating_point()]
    weights = [torch.linspace(-1, 1, part.numel(), dtype=part.dtype).reshape(part.shape) for part in floats]
    loss = sum((part * w).sum() for part, w in zip(floats, weights, strict=True))
    source = x.data if isinstance(x, tuple) else x
    gradients = grad(loss, [source, *layer.parameters()], materialize_grads=True)
    return [*results, *gradients]


@pytest.mark.parametrize("form", ["dense", "packed", "one step"])
@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
# An orthogonal layer's recurrence is modrelu's, and its gradient a difference in which float32 loses digits.
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in ORTHOGONAL_CELLS])
def test_torch_and_reference(cell, rule, velocity, form):
    options = {"carry_momentum": True} if rule != "none" else {}
    layer = make_layer(cell, rule, velocity, True, num_layers=2, bidirectional=True, **options).float()
    T, B = {"dense": (9, 3), "packed": (9, 3), "one step": (1, 1)}[form]
    x = torch.randn(T, B, 3)
    if form == "packed":
        x = pack_padded_sequence(x, torch.tensor([4, 9, 1]), enforce_sorted=False)
    (x.data if form == "packed" else x).requires_grad_()
    with backend("reference"):
        expected = everything(layer, x)
    for name in ("torch", "auto"):
        with backend(name):
            try:
                got = everything(layer, x)
            except BackendError:
                assert name == "torch"
                continue
        for a, b in zip(got, expected, strict=True):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            if a.is_floating_point():
                # The gradients of adaptive rules are large, and so are the rounding errors of their sums.
                largest = max(1.0, b.abs().max().item())
                assert_close(a, b, rtol=ROUNDING["rtol"], atol=ROUNDING["atol"] * largest)
            else:
                assert torch.equal(a, b)


@pytest.mark.parametrize("learnable", LEARNABLE)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "lstm_original", "gru"])
def test_without_grad_they_agree_too(cell, rule, learnable):
    """torch takes other kernels when nothing is to be differentiated."""
    layer = make_layer(cell, rule, learnable=learnable).float()
    x = torch.randn(20, 3, 3)
    with torch.no_grad():
        with backend("reference"):
            expected = layer(x)
        got = layer(x)
    for a, b in zip(flat(got), flat(expected), strict=True):
        assert_close(a, b, **ROUNDING)


# Not complex momentum: its gate input turns, and is negative at times.
@pytest.mark.parametrize("rule", ["none", *(rule for rule in RULES if rule != "complex")])
@pytest.mark.parametrize("bias", [True, False])
def test_the_original_lstm_forgets_nothing(rule, bias):
    """c_t − c_{t−1} = i ⊙ g over a long sequence: with i and g at their largest, c counts the steps."""
    layer = make_layer("lstm_original", rule, bias=bias, input_size=1, hidden_size=1)
    assert layer.weight_hh_l0.shape == (3, 1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.weight_ih_l0.fill_(1000.0)  # the rules scale this down, by no more than a factor of four
    x = torch.ones(200, 1, 1, dtype=torch.float64)
    for name in ("reference", "auto"):
        with backend(name):
            _, (_, c) = layer(x)
        if rule in ("adam", "rmsprop"):  # their gate input is of order one, whatever the scale
            assert 20 < c.item() < 200
        else:
            assert_close(c.item(), 200.0, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("cell", CELLS)
def test_fresh_memory_holds_no_secrets(cell, rule):
    """Uninitialised memory is filled with NaN, so a kernel that reads what it never wrote is found out."""
    layer = make_layer(cell, rule, num_layers=2, bidirectional=True)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    expected = flat(layer(x))
    deterministic, fill = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    try:
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        got = flat(layer(x))
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fill
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)
