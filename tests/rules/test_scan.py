"""The parallel scan y_t = decay_t y_{t-1} + gain x_t against its loop."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from momentumrnn.rules.scan import linear_scan, linear_scan_loop, linear_step

# On both sides of the boundaries between chunks of 12, 16, 24 or 32 steps, and between chunks of chunks.
LENGTHS = [1, 2, 3, 5, 11, 12, 13, 15, 16, 17, 23, 24, 25, 31, 32, 33, 65, 144, 145, 257, 577]
DECAYS = ["float", "scalar", "per_step", "per_step_and_sequence", "per_channel"]
GAINS = ["float", "scalar", "per_channel"]


def make_decay(kind, T, B, C, dtype=torch.float64):
    """A decay of each accepted shape; those that change with time are exactly zero at times."""
    if kind == "float":
        return 0.9
    shape = {"scalar": (), "per_step": (T,), "per_step_and_sequence": (T, B), "per_channel": (1, 1, C)}[kind]
    decay = torch.rand(shape, dtype=dtype)
    if kind.startswith("per_step"):
        decay[::5] = 0.0
    return decay


def make_gain(kind, C, dtype=torch.float64):
    return 0.6 if kind == "float" else torch.rand(() if kind == "scalar" else (1, 1, C), dtype=dtype) + 0.5


def by_hand(decay, x, initial, gain):
    """The recurrence with everything broadcast to (T, B, C)."""
    decay = torch.as_tensor(decay, dtype=x.dtype)
    if decay.dim() in (1, 2):
        decay = decay.reshape(*decay.shape, *[1] * (3 - decay.dim()))
    decay = decay.expand_as(x)
    y, outputs = torch.zeros_like(x[0]) if initial is None else initial, []
    for t in range(len(x)):
        y = decay[t] * y + gain * x[t] if not isinstance(gain, torch.Tensor) else decay[t] * y + (gain * x)[t]
        outputs.append(y)
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("given_initial", [False, True])
def test_one_step_equals_a_sequence_of_one(kind, gain, given_initial):
    for B, C in [(1, 1), (3, 5), (5, 3), (4, 4)]:
        x = torch.randn(B, C, dtype=torch.float64)
        decay, by = make_decay(kind, 2, B, C), make_gain(gain, C)
        if kind.startswith("per_step"):
            decay = decay[1:]  # the first is zero
        initial = torch.randn(B, C, dtype=torch.float64) if given_initial else None
        expected = linear_scan_loop(decay, x.unsqueeze(0), initial, by)[0]
        assert_close(linear_step(decay, x, initial, by), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scan", [linear_scan, linear_scan_loop])
@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("given_initial", [False, True])
def test_equals_the_recurrence_written_out(scan, kind, gain, given_initial):
    for T in LENGTHS if gain == "float" else LENGTHS[::3]:
        for B, C in [(1, 1), (3, 5)]:
            x = torch.randn(T, B, C, dtype=torch.float64)
            decay, by = make_decay(kind, T, B, C), make_gain(gain, C)
            initial = torch.randn(B, C, dtype=torch.float64) if given_initial else None
            y = scan(decay, x, initial, by)
            assert y.shape == x.shape
            assert y.dtype == x.dtype
            assert_close(y, by_hand(decay, x, initial, by), rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    T=st.integers(1, 300), B=st.integers(1, 4), C=st.integers(1, 6), seed=st.integers(0, 99), data=st.data()
)
def test_scan_in_two_pieces_equals_the_whole(T, B, C, seed, data):
    torch.manual_seed(seed)
    decay = make_decay(data.draw(st.sampled_from(["per_step", "per_step_and_sequence"])), T, B, C)
    cut = data.draw(st.integers(0, T - 1))
    x, initial = torch.randn(T, B, C, dtype=torch.float64), torch.randn(B, C, dtype=torch.float64)
    whole = linear_scan(decay, x, initial)
    last = initial
    for piece in (slice(0, cut), slice(cut, T)):
        if x[piece].shape[0]:
            y = linear_scan(decay[piece], x[piece], last)
            assert_close(y, whole[piece], rtol=1e-12, atol=1e-12)
            last = y[-1]


@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("T", [1, 3, 64, 131])
def test_gradients_of_everything(kind, gain, T):
    B, C = 3, 2
    x = torch.randn(T, B, C, dtype=torch.float64)
    initial = torch.randn(B, C, dtype=torch.float64)
    decay, by = make_decay(kind, T, B, C), make_gain(gain, C)
    leaves = [t.requires_grad_() for t in (x, initial, decay, by) if isinstance(t, torch.Tensor)]
    cotangent = torch.randn(T, B, C, dtype=torch.float64)
    got = grad((linear_scan(decay, x, initial, by) * cotangent).sum(), leaves)
    expected = grad((by_hand(decay, x, initial, by) * cotangent).sum(), leaves)
    for a, b in zip(got, expected, strict=True):
        assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", DECAYS)
@pytest.mark.parametrize("T", [1, 4, 35])
def test_first_and_second_derivatives_by_finite_differences(kind, T):
    B, C = (2, 2) if T < 30 else (1, 1)
    x = torch.randn(T, B, C, dtype=torch.float64, requires_grad=True)
    initial = torch.randn(B, C, dtype=torch.float64, requires_grad=True)
    gain = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    decay = make_decay(kind, T, B, C)
    if kind == "float":
        arguments = (x, initial, gain)
        function = partial(linear_scan, 0.9)
    else:
        arguments = (decay.requires_grad_(), x, initial, gain)
        function = linear_scan
    assert gradcheck(function, arguments)
    assert gradgradcheck(function, arguments, fast_mode=T > 30)


@pytest.mark.parametrize("signal", ["noise", "constant"])
@pytest.mark.parametrize("kind", ["float", "scalar", "per_channel", "per_step"])
@pytest.mark.parametrize("decay", [0.5, 0.9999])
def test_long_sequences_in_float32_stay_finite_and_accurate(signal, kind, decay):
    T, C = 100_000, 2
    x = torch.randn(T, 1, C) if signal == "noise" else torch.ones(T, 1, C)
    exact = decay
    if kind != "float":
        # A tensor has already been rounded to float32; the exact answer is for the number it holds.
        shape = {"scalar": (), "per_channel": (1, 1, C), "per_step": (T,)}[kind]
        decay = torch.full(shape, decay, requires_grad=True)
        exact = decay.detach().double()
    y = linear_scan(decay, x)
    expected = linear_scan(exact, x.double())
    assert y.isfinite().all()
    assert (y - expected).abs().max() <= 1e-5 * expected.abs().max()
    if kind != "float":
        (slope,) = grad(y[-1].sum(), decay)
        assert slope.isfinite().all()


def test_float64_over_a_long_sequence_equals_the_loop():
    x = torch.randn(20_000, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        assert_close(linear_scan(0.9999, x), linear_scan_loop(0.9999, x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", DECAYS)
def test_memory_for_the_backward_pass_is_linear_in_time(kind):
    def saved(T):
        total = 0

        def count(tensor):
            nonlocal total
            total += tensor.numel()
            return tensor

        x = torch.randn(T, 2, 3, requires_grad=True)
        decay = make_decay(kind, T, 2, 3, torch.float32)
        if isinstance(decay, torch.Tensor):
            decay.requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            linear_scan(decay, x, gain=torch.tensor(0.5, requires_grad=True))
        return total

    assert saved(16_384) <= 2.1 * saved(8_192) <= 2.1 * 2.1 * saved(4_096)


def test_works_under_vmap_and_with_strided_input():
    x = torch.randn(4, 50, 2, 3, dtype=torch.float64)
    decay = torch.rand(4, dtype=torch.float64)
    batched = torch.func.vmap(linear_scan)(decay, x)
    assert_close(batched, torch.stack([linear_scan(d, each) for d, each in zip(decay, x, strict=True)]))
    strided = x[0].transpose(0, 1).contiguous().transpose(0, 1)
    assert_close(linear_scan(0.9, strided), linear_scan(0.9, x[0]))
