"""A value that is not finite reaches its own step and later ones, never an earlier one."""

import pytest
import torch
from torch.autograd import grad
from torch.testing import assert_close

import momentumrnn
from cases import RULES, VELOCITIES, make_layer, make_rule
from momentumrnn.kernels.adaptive import coefficients_of, scanned
from momentumrnn.rules.scan import linear_scan, linear_scan_loop

NAN, INF = float("nan"), float("inf")
# In one chunk, at the boundaries between chunks, and in chunks of chunks.
LENGTHS = [1, 2, 16, 24, 25, 33, 145, 600]


def make_decay(kind, T, B, C):
    if kind == "float":
        return 0.9
    shape = {"scalar": (), "per_step": (T,), "per_step_and_sequence": (T, B), "per_channel": (1, 1, C)}[kind]
    decay = torch.rand(shape, dtype=torch.float64) * 0.5 + 0.5
    if kind.startswith("per_step"):
        decay[::7] = 0.0
    return decay


KINDS = ["float", "scalar", "per_step", "per_step_and_sequence", "per_channel"]


def spoiled(T, B, C, dtype=torch.float64):
    """An input in which each of the first sequences meets another kind of trouble, the last one none."""
    x = torch.randn(T, B, C, dtype=dtype)
    middle = T // 2
    x[middle:, 0] = NAN
    x[middle, 1, 0] = INF
    x[middle, 2] = -INF
    x[-1, 2, 0] = INF
    x[T // 3, 3, 1] = NAN
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given_initial", [False, True])
@pytest.mark.parametrize("T", LENGTHS)
def test_the_scan_treats_what_is_not_finite_as_the_loop_does(kind, given_initial, T):
    B, C = 5, 3
    x, decay = spoiled(T, B, C), make_decay(kind, T, B, C)
    initial = torch.randn(B, C, dtype=torch.float64) if given_initial else None
    if given_initial:
        initial[3, 2], initial[2, 2] = NAN, INF
    for gain in (0.7, torch.tensor(0.7, dtype=torch.float64), torch.full((1, 1, C), 0.7)):
        expected = linear_scan_loop(decay, x, initial, gain)
        assert_close(linear_scan(decay, x, initial, gain), expected, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("T", [24, 33, 600])
def test_a_graph_treats_it_alike(kind, T):
    x, decay = spoiled(T, 5, 3), make_decay(kind, T, 5, 3)
    torch.compiler.reset()  # the kinds together would reach torch's limit of recompilations
    compiled = torch.compile(linear_scan, backend="eager", fullgraph=True)
    assert_close(compiled(decay, x), linear_scan_loop(decay, x), equal_nan=True)


@pytest.mark.parametrize("kind", ["scalar", "per_step", "per_channel"])
def test_transforms_treat_it_alike(kind):
    T, B, C = 33, 5, 3
    x, decay = torch.stack([spoiled(T, B, C), torch.randn(T, B, C).double()]), make_decay(kind, T, B, C)
    expected = torch.stack([linear_scan_loop(decay, each) for each in x])
    assert_close(torch.vmap(linear_scan, (None, 0))(decay, x), expected, equal_nan=True)
    tangent = torch.randn(T, B, C, dtype=torch.float64)
    y, slope = torch.func.jvp(lambda given: linear_scan(decay, given), (x[0],), (tangent,))
    assert_close(y, expected[0], equal_nan=True)
    assert slope[: T // 3].isfinite().all()


@pytest.mark.parametrize("kind", ["scalar", "per_step"])
def test_an_overflow_stays_in_its_future(kind):
    T = 700
    x = torch.randn(T, 2, 2)
    x[400:420, 0] = 3e38
    decay = torch.full(() if kind == "scalar" else (T,), 0.999)
    expected = linear_scan_loop(decay, x)
    assert expected[405:, 0].isinf().all()
    assert_close(linear_scan(decay, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["scalar", "per_step", "per_channel"])
@pytest.mark.parametrize("T", [24, 33, 600])
def test_gradients_of_earlier_outputs_do_not_know_of_it(kind, T):
    x, decay = spoiled(T, 5, 3), make_decay(kind, T, 5, 3).requires_grad_()
    clean = torch.where(x.isfinite(), x, 1.0).requires_grad_()
    x.requires_grad_()
    sides = [(given, linear_scan(decay, given)[: T // 3].square().sum()) for given in (x, clean)]
    # Twice: the second derivative goes through the same product.
    slopes = [grad(loss, (given, decay), create_graph=True) for given, loss in sides]
    assert_close(slopes[0], slopes[1])
    again = [grad(s[0].square().sum(), given)[0] for (given, _), s in zip(sides, slopes, strict=True)]
    assert_close(*again)


def backends(dtype):
    return ["auto", "reference", "torch", *(["cpu"] if dtype is torch.float32 else [])]


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("learnable", [False, True, "channel"])
@pytest.mark.parametrize("velocity", VELOCITIES)
@pytest.mark.parametrize("rule", RULES)
def test_layers_on_every_backend_in_every_dtype(rule, velocity, learnable, carried):
    T, B = 40, 3
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        layer = make_layer("lstm", rule, velocity, learnable, carry_momentum=carried).to(dtype)
        state = None
        if carried:
            state = layer(torch.randn(4, B, 3, dtype=dtype))[1]
        x = torch.randn(T, B, 3, dtype=dtype)
        bad = x.clone()
        bad[30:, 0] = NAN
        bad[27, 1] = INF
        for name in backends(dtype):
            for autocast in (False, True) if dtype is torch.float32 and name != "cpu" else (False,):
                with momentumrnn.backend(name), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    expected, got = layer(x, state)[0], layer(bad, state)[0]
                assert not got[30:, 0].isfinite().any()
                assert_close(got[:30, 0], expected[:30, 0])
                assert_close(got[:27, 1], expected[:27, 1])
                assert_close(got[:, 2], expected[:, 2])


@pytest.mark.parametrize("rule", ["adam", "rmsprop"])
@pytest.mark.parametrize("learnable", [False, True])
def test_adaptive_rules_in_triton(rule, learnable):
    pytest.importorskip("triton")
    from momentumrnn.kernels.cuda import adaptive_operator  # noqa: F401

    device = "cuda" if torch.cuda.is_available() else "cpu"
    bound = make_rule(rule, learnable=learnable).bind(4, device, torch.float32)
    coefficients = coefficients_of(bound, 4, torch.float32, torch.device(device)).detach()
    x, weight = torch.randn(40, 3, 2, device=device), torch.randn(4, 2, device=device)
    x[30:, 0], x[27, 1] = NAN, INF
    operator = torch.ops.momentumrnn.triton_adaptive_rule
    d = operator(x, weight, None, coefficients, 0.05, None, None, None, False, None)[0]
    expected = scanned(torch.where(x.isfinite(), x, 1.0) @ weight.t(), coefficients, 0.05, None, None, None)[
        0
    ]
    assert not d[30:, 0].isfinite().any()
    assert_close(d[:30, 0], expected[:30, 0])
    assert_close(d[:27, 1], expected[:27, 1])
    assert_close(d[:, 2], expected[:, 2])
