"""Whole layers on a GPU against the reference in float64 on the CPU; without a GPU all of this is skipped."""

import copy
import warnings

import pytest
import torch
from torch.autograd import grad
from torch.nn.utils.rnn import pack_padded_sequence

import momentumrnn
from cases import CELLS, RULES, flat, make_layer
from momentumrnn import LSTM, backend
from momentumrnn.rules import Adam, RMSProp

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@pytest.fixture(autouse=True)
def _float32_in_full():
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def results_of(layer, x):
    outputs = [out for out in flat(layer(x)) if out.is_floating_point()]
    return [*outputs, *grad(sum(out.square().sum() for out in outputs), [*layer.parameters()])]


def assert_close_to_float64(layer, x, tolerance=1e-4):
    """Hold a float32 layer on CUDA to what its float64 twin on the CPU computes."""
    twin = copy.deepcopy(layer).cpu().double()
    with backend("reference"):
        expected = results_of(twin, x.cpu().double())
    for got, other in zip(results_of(layer, x), expected, strict=True):
        scale = max(1.0, other.abs().max().item())
        assert (got.cpu().double() - other).abs().max() <= tolerance * scale


@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_computes_what_it_does_on_the_cpu(cell, rule):
    layer = make_layer(cell, rule, dtype=torch.float32, num_layers=2).cuda()
    assert_close_to_float64(layer, torch.randn(7, 3, 3, device="cuda"))


@pytest.mark.parametrize("hidden", [128, 512])
@pytest.mark.parametrize("name", ["AdamLSTM", "MomentumDTRIV"])
def test_sizes_of_the_papers_models(name, hidden):
    options = {"momentum": 0.3, "step_size": 0.3} if name == "MomentumDTRIV" else {}
    layer = getattr(momentumrnn, name)(1, hidden, **options).cuda()
    assert_close_to_float64(layer, torch.randn(50, 33, 1, device="cuda"), tolerance=1e-3)


@pytest.mark.parametrize("rule", ["heavy_ball", "adam"])
def test_packed_in_both_directions(rule):
    layer = make_layer("lstm", rule, dtype=torch.float32, bidirectional=True).cuda()
    packed = pack_padded_sequence(torch.randn(5, 3, 3), torch.tensor([5, 3, 1]))
    assert_close_to_float64(layer, packed.to("cuda"))


@pytest.mark.parametrize("cell", ["lstm", "lstm_projected", "gru", "rnn_tanh"])
def test_cudnn_finds_its_weights_in_one_buffer(cell):
    layer = make_layer(cell, "heavy_ball", dtype=torch.float32).cuda()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results_of(layer, torch.randn(5, 2, 3, device="cuda"))


@pytest.mark.parametrize("rule", ["heavy_ball", "adam"])
@pytest.mark.parametrize("cell", ["lstm", "lstm_original", "gru", "rnn_modrelu"])
def test_autocast_answers_in_its_dtype(cell, rule):
    layer = make_layer(cell, rule, dtype=torch.float32).cuda()
    x = torch.randn(5, 2, 3, device="cuda")
    with torch.autocast("cuda", torch.bfloat16):
        output, _ = layer(x)
        one_step, _ = layer(x[:1])
        with backend("reference"):
            by_reference, _ = layer(x)
    assert output.dtype is one_step.dtype is by_reference.dtype is torch.bfloat16
    torch.testing.assert_close(output.float(), layer(x)[0], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("hidden_size", [64, 600])
@pytest.mark.parametrize("rule", [Adam(0.6, 1.0, 0.01), RMSProp(1.0, 0.01)])
def test_a_drive_of_all_but_zero_keeps_its_sign_under_autocast(rule, hidden_size):
    """A step of full size hangs on it, on U kept close and by cuDNN."""
    torch.manual_seed(0)
    layer = LSTM(20, hidden_size, rule=rule).cuda()
    x = torch.randn(64, 8, 20, device="cuda", requires_grad=True)
    slope = torch.randn(64, 8, hidden_size, device="cuda")
    results = []
    for low in (False, True):
        with torch.autocast("cuda", torch.bfloat16, enabled=low):
            output = layer(x)[0]
        gradients = torch.autograd.grad((output * slope).sum(), [x, *layer.parameters()])
        results.append([output, *gradients])
    for want, got in zip(*results, strict=True):
        assert (got - want).norm() <= 0.03 * want.norm()


@pytest.mark.parametrize("cell", ["lstm_original", "rnn_modrelu"])
def test_the_same_bits_each_time(cell):
    layer = make_layer(cell, "adam", dtype=torch.float32, hidden_size=200).cuda()
    x = torch.randn(20, 40, 3, device="cuda")
    first, second = results_of(layer, x), results_of(layer, x)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_torch_compile_gives_the_same():
    layer = make_layer("lstm_original", "adam", dtype=torch.float32).cuda()
    x = torch.randn(5, 2, 3, device="cuda")
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x)[0], layer(x)[0])
