"""Tensors that a layer does not check: an error, and not what lies in memory behind them."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.testing._internal.two_tensor import TwoTensor

import momentumrnn
from cases import make_layer
from momentumrnn import backend
from momentumrnn.errors import BackendError, InputError
from momentumrnn.kernels.cuda import availability
from momentumrnn.kernels.cuda.launch import check_places
from momentumrnn.kernels.extension import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason="the C++ kernels were not built")

LAYERS = ["LSTM", "GRU", "MomentumLSTM", "AdamLSTM", "DTRIV"]
# For sequences of 3, 2 and 1 steps.
SIZES = [3, 2, 1]


@pytest.fixture(params=["cpu", "triton"])
def device(request):
    """Where tensors have to be for one kind of kernels and the other, which run inside."""
    if request.param == "triton":
        pytest.importorskip("triton", reason=str(availability.missing()))
    with backend(request.param):
        yield "cuda" if request.param == "triton" and torch.cuda.is_available() else "cpu"


def layer_of(name, hidden=5, device="cpu"):
    torch.manual_seed(0)
    return getattr(momentumrnn, name)(4, hidden).to(device)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "sizes",
    [
        torch.tensor(SIZES, dtype=torch.int32),
        torch.tensor([3000, 2000, 1000]),
        torch.tensor([3, 2]),
        torch.tensor([3, 2, 1, 0]),
        torch.tensor([3, 3, -1, 1]),
        torch.tensor([SIZES]),
    ],
    ids=["int32", "too many", "too few", "zero", "negative", "2D"],
)
def test_sizes_that_no_packing_gives(name, sizes, device):
    packed = PackedSequence(torch.randn(6, 4, device=device), sizes, None, None)
    with pytest.raises(
        (InputError, RuntimeError, IndexError), match=r"batch_sizes|repeats|index|negative|size"
    ):
        layer_of(name, device=device)(packed)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("sizes", [[1, 2, 3], [3, 2, 1, 0], [3, 3, -1, 1], [0, 3, 3], [2, 1], []], ids=str)
def test_sizes_that_rise_or_hold_no_sequence(name, sizes, device):
    packed = PackedSequence(torch.randn(6, 4, device=device), torch.tensor(sizes).long(), None, None)
    with pytest.raises(
        InputError, match=r"batch_sizes .* never rise, end at 1 or more and add up to its 6 rows"
    ):
        layer_of(name, device=device)(packed)


@pytest.mark.parametrize("name", [*LAYERS, "LSTMCell", "OrthogonalRNNCell"])
@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.to_sparse,
        lambda x: x.reshape(-1, 4).to_sparse_csr(),
        torch.Tensor.to_mkldnn,
        lambda x: torch.nested.nested_tensor(list(x)),
        lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged),
    ],
    ids=["COO", "CSR", "oneDNN", "nested", "jagged"],
)
def test_an_input_that_is_not_dense(name, convert):
    x = torch.randn(3, 4) if name.endswith("Cell") else torch.randn(6, 2, 4)
    with pytest.raises(InputError, match=f"{name}: expected the input as a dense tensor"):
        layer_of(name)(convert(x))


@pytest.mark.parametrize("name", [*LAYERS, "LSTMCell", "OrthogonalRNNCell"])
@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.to_mkldnn,
        lambda h: torch.nested.nested_tensor(list(h)),
        lambda h: torch.nested.nested_tensor(list(h), layout=torch.jagged),
    ],
    ids=["COO", "oneDNN", "nested", "jagged"],
)
def test_a_state_that_is_not_dense(name, convert):
    is_cell = name.endswith("Cell")
    x, h = torch.randn(2, 4) if is_cell else torch.randn(6, 2, 4), torch.zeros(2, 5)
    h = h if is_cell else h.unsqueeze(0)
    state = (convert(h), h) if "LSTM" in name else convert(h)
    with pytest.raises(InputError, match=f"{name}: expected .* as a dense tensor"):
        layer_of(name)(x, state)


@pytest.mark.parametrize("name", ["MomentumLSTM", "NAGLSTM", "AdamLSTM", "MomentumDTRIV"])
@pytest.mark.parametrize("what", [None, 0.5])
def test_a_momentum_state_of_no_tensors(name, what):
    layer, x = getattr(momentumrnn, name)(4, 5, carry_momentum=True), torch.randn(6, 2, 4)
    _, (*state, momentum) = layer(x)
    with pytest.raises(TypeError, match=r"expected momentum state \w+ to be a tensor"):
        layer(x, (*state, type(momentum)(*(what for _ in momentum))))


@pytest.mark.parametrize("name", ["MomentumLSTM", "AdamLSTM"])
def test_a_momentum_state_that_is_sparse(name):
    layer, x = getattr(momentumrnn, name)(4, 5, carry_momentum=True), torch.randn(6, 2, 4)
    _, (*state, momentum) = layer(x)
    with pytest.raises(InputError, match="expected momentum state velocity as a dense tensor"):
        layer(x, (*state, type(momentum)(*(part.to_sparse() for part in momentum))))


@pytest.mark.filterwarnings("error:Casting complex values")
@pytest.mark.parametrize("name", ["cpu", "torch", "reference", "triton"])
@pytest.mark.parametrize("parameter", ["bias_ih_l0", "bias_hh_l0", "weight_ih_l0", "weight_hh_l0"])
@pytest.mark.parametrize("rule", ["none", "heavy_ball", "learned", "hidden", "adam"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_a_complex_weight_does_not_lose_its_imaginary_part(cell, rule, parameter, name):
    if name == "triton":
        pytest.importorskip("triton", reason=str(availability.missing()))
    velocity = "hidden" if rule == "hidden" else "gate"
    kind = "heavy_ball" if rule in ("learned", "hidden") else rule
    layer = make_layer(cell, kind, velocity, rule == "learned").float()
    weight = getattr(layer, parameter).detach()
    setattr(layer, parameter, torch.nn.Parameter(torch.complex(weight, weight)))
    with torch.no_grad(), backend(name), pytest.raises((RuntimeError, ValueError)):
        layer(torch.randn(6, 2, layer.input_size))


@pytest.mark.filterwarnings("error:Casting complex values")
@pytest.mark.parametrize("name", ["MomentumLSTM", "AdamLSTM"])
def test_a_complex_or_whole_input_under_autocast(name):
    layer = layer_of(name)
    for dtype in (torch.complex64, torch.int32):
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match=f"got {dtype}"):
            layer(torch.ones(6, 2, 4, dtype=dtype))


class Complex(momentumrnn.rules.HeavyBall):
    """A user's rule whose decay turns."""

    def decay(self, steps, state, device):
        return torch.full((steps,), 0.5 + 0.5j, dtype=torch.complex128)


@pytest.mark.filterwarnings("error:Casting complex values")
def test_a_complex_decay():
    with pytest.raises(InputError, match=r"the decay of a rule of real numbers.*complex128"):
        momentumrnn.GRU(4, 5, rule=Complex(0.6, 1.0))(torch.randn(500, 2, 4))


@pytest.mark.parametrize("name", LAYERS)
def test_sizes_between_other_numbers(name):
    layer, x = layer_of(name), torch.randn(6, 4)
    apart = torch.tensor([[size, 7] for size in SIZES])[:, 0]
    assert not apart.is_contiguous()
    expected, _ = layer(pack_sequence(list(x.split(SIZES))))
    for sizes in (apart, torch.tensor(SIZES)):
        data = pack_sequence(list(x.split(SIZES))).data
        found, _ = layer(PackedSequence(data, sizes, None, None))
        assert torch.equal(found.data, expected.data)


@pytest.mark.parametrize(
    ("name", "parameter", "shape"),
    [
        ("LSTM", "bias_hh_l0", (3,)),
        ("LSTM", "weight_ih_l0", (10, 4)),
        ("GRU", "weight_hh_l0", (20, 5)),
        ("AdamLSTM", "bias_ih_l0", (7,)),
        ("AdamLSTM", "weight_ih_l0", (16, 4)),
        ("DTRIV", "modrelu_bias_l0", (4,)),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_weights_of_another_size(name, parameter, shape, train, device):
    layer = layer_of(name, device=device)
    setattr(layer, parameter, torch.nn.Parameter(torch.zeros(shape, device=device)))
    with torch.set_grad_enabled(train), pytest.raises((InputError, RuntimeError), match=r"shape|size"):
        layer(torch.randn(6, 2, 4, device=device))


@pytest.mark.parametrize(
    ("name", "parameter", "other"),
    [
        ("LSTM", "bias_ih_l0", torch.zeros(20, dtype=torch.float64)),
        ("MomentumLSTM", "bias_hh_l0", torch.zeros(20, dtype=torch.bfloat16)),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_weights_of_another_dtype(name, parameter, other, train):
    layer = layer_of(name)
    setattr(layer, parameter, torch.nn.Parameter(other))
    with torch.set_grad_enabled(train), pytest.raises((InputError, RuntimeError), match=r"dtype"):
        layer(torch.randn(6, 2, 4))


@pytest.mark.parametrize("name", ["LSTM", "AdamLSTM", "MomentumLSTM"])
def test_weights_that_are_two_tensors(name):
    """A subclass without memory of its own comes to the operator, even where the input is plain."""
    layer, x = layer_of(name), torch.randn(6, 2, 4)
    with torch.no_grad():
        expected, _ = layer(x)
        for part in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            weight = getattr(layer, part).detach()
            setattr(layer, part, torch.nn.Parameter(TwoTensor(weight, weight.clone()), requires_grad=False))
        found, _ = layer(x)
    assert isinstance(found, TwoTensor)
    torch.testing.assert_close(found.a, expected)
    torch.testing.assert_close(found.b, expected)


class TooShort(momentumrnn.rules.HeavyBall):
    """A user's rule whose decay does not go as far as the sequence."""

    def decay(self, steps, state, device):
        return torch.full((8,), 0.5, dtype=torch.float64)


@pytest.mark.parametrize("packed", [False, True])
def test_a_decay_of_another_length(packed):
    layer = momentumrnn.GRU(4, 5, rule=TooShort(0.6, 1.0))
    x = torch.randn(500, 2, 4)
    with pytest.raises(InputError, match=r"decay.*500.*\(8,\)"):
        layer(pack_sequence(list(x.unbind(1))) if packed else x)


def test_weights_of_the_input_in_fewer_bits_than_the_others():
    layer = layer_of("MomentumLSTM")
    for parameter in (layer.weight_ih_l0, layer.bias_ih_l0):
        parameter.data = parameter.data.bfloat16()
    with pytest.raises(InputError, match=r"float32 or torch\.float64.*bfloat16"):
        layer(torch.randn(400, 20, 4, dtype=torch.bfloat16))


def test_a_decay_in_other_numbers():
    with pytest.raises(
        InputError, match=r"the decay of a rule in torch\.float64 on the CPU, got torch\.float32"
    ):
        torch.ops.momentumrnn.linear_filter(
            torch.ones(4, 1, 1), False, torch.full((4,), 0.5), 1.0, None, None
        )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("name", ["LSTM", "GRU", "MomentumLSTM", "AdamLSTM"])
def test_a_traced_layer_on_an_empty_sequence(name):
    """The layer's own check is not in the trace."""
    layer = layer_of(name).requires_grad_(False)
    traced = torch.jit.trace(layer, (torch.randn(30, 2, 4),), check_trace=False)
    with pytest.raises(RuntimeError, match="one or more steps, got an empty one"):
        traced(torch.randn(0, 2, 4))


@pytest.mark.parametrize("operator", ["recurrence", "triton_recurrence"])
@pytest.mark.parametrize(
    ("cell", "gates", "lacks"), [("lstm", 4, "c_0"), ("rnn_modrelu", 1, "the bias of modrelu")]
)
def test_a_cell_without_what_it_needs(operator, cell, gates, lacks):
    device, by_triton = "cpu", operator == "triton_recurrence"
    if by_triton:
        pytest.importorskip("triton", reason=str(availability.missing()))
        device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes = (3, 2, gates * 5), (gates * 5, 5), (2, 5)
    x, weight_hh, h_0 = (torch.ones(shape, device=device) for shape in shapes)
    ready = (x,) if by_triton else (x, None, None)
    run = getattr(torch.ops.momentumrnn, operator)
    with pytest.raises(InputError, match=f"expected {lacks}"):
        run(cell, *ready, weight_hh, None, None, h_0, None, None, False)


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        ("lstm", "none"),
        ("gru", "none"),
        ("rnn_tanh", "none"),
        ("rnn_modrelu", "none"),
        ("lstm", "heavy_ball"),
        ("lstm", "adam"),
        ("gru", "rmsprop"),
    ],
)
@pytest.mark.parametrize("features", [4, 70])
def test_what_was_saved_comes_back_in_another_order(cell, rule, features, device):
    """Whoever packs saved tensors may lay them out as they like."""

    def turned(tensor):
        return tensor.transpose(0, -1).contiguous() if tensor.is_floating_point() else tensor

    def turned_back(tensor):
        return tensor.transpose(0, -1) if tensor.is_floating_point() else tensor

    layer = make_layer(cell, rule, input_size=features).to(device)
    x = torch.randn(5, 3, features, dtype=torch.float64, device=device, requires_grad=True)
    leaves = [x, *layer.parameters()]
    expected = torch.autograd.grad(layer(x)[0].square().sum(), leaves)
    with torch.autograd.graph.saved_tensors_hooks(turned, turned_back):
        output, _ = layer(x)
    torch.testing.assert_close(torch.autograd.grad(output.square().sum(), leaves), expected)


def test_what_was_saved_comes_back_in_fewer_bits(device):
    layer = layer_of("LSTM", device=device).double()
    x = torch.randn(5, 3, 4, dtype=torch.float64, device=device, requires_grad=True)

    def lower(tensor):
        return tensor.float() if tensor.dim() == 3 and tensor.shape[-1] != 4 else tensor

    with torch.autograd.graph.saved_tensors_hooks(lower, lambda tensor: tensor):
        output, _ = layer(x)
    with pytest.raises(InputError, match=r"dtype torch\.float64.*got torch\.float32"):
        output.sum().backward()


def test_more_than_32_bits_can_count():
    check_places((1 << 31) - 1)
    with pytest.raises(BackendError, match=r"2\^31 numbers.*got 2147483648"):
        check_places(1 << 31)
