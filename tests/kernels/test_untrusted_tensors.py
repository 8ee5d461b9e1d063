"""Tensors that a layer does not check: an error, and not what lies in memory behind them."""

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.testing._internal.two_tensor import TwoTensor

import momentumrnn
from momentumrnn.errors import InputError
from momentumrnn.kernels.extension import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason="the C++ kernels were not built")

LAYERS = ["LSTM", "GRU", "MomentumLSTM", "AdamLSTM", "DTRIV"]
# For sequences of 3, 2 and 1 steps.
SIZES = [3, 2, 1]


def layer_of(name, hidden=5):
    torch.manual_seed(0)
    return getattr(momentumrnn, name)(4, hidden)


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
def test_sizes_that_no_packing_gives(name, sizes):
    packed = PackedSequence(torch.randn(6, 4), sizes, None, None)
    with pytest.raises(
        (InputError, RuntimeError, IndexError), match=r"batch_sizes|repeats|index|negative|size"
    ):
        layer_of(name)(packed)


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
    ("name", "parameter", "other"),
    [
        ("LSTM", "bias_hh_l0", torch.zeros(3)),
        ("LSTM", "bias_ih_l0", torch.zeros(20, dtype=torch.float64)),
        ("LSTM", "weight_ih_l0", torch.zeros(10, 4)),
        ("GRU", "weight_hh_l0", torch.zeros(20, 5)),
        ("AdamLSTM", "bias_ih_l0", torch.zeros(7)),
        ("AdamLSTM", "weight_ih_l0", torch.zeros(16, 4)),
        ("MomentumLSTM", "bias_hh_l0", torch.zeros(20, dtype=torch.bfloat16)),
        ("DTRIV", "modrelu_bias_l0", torch.zeros(4)),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_weights_of_another_size_or_dtype(name, parameter, other, train):
    layer = layer_of(name)
    setattr(layer, parameter, torch.nn.Parameter(other))
    with torch.set_grad_enabled(train), pytest.raises((InputError, RuntimeError), match=r"shape|dtype|size"):
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
