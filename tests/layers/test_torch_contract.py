"""With ``rule=None`` a layer is torch.nn's: every argument, every form of input, the same numbers."""

import copy
import inspect

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import grad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence
from torch.testing import assert_close
from torch.testing._internal.common_modules import module_db

import momentumrnn
from cases import flat, make_rule

LAYERS = {nn.RNN: momentumrnn.RNN, nn.LSTM: momentumrnn.LSTM, nn.GRU: momentumrnn.GRU}
CELLS = {
    nn.RNNCell: momentumrnn.RNNCell,
    nn.LSTMCell: momentumrnn.LSTMCell,
    nn.GRUCell: momentumrnn.GRUCell,
}
OURS = LAYERS | CELLS
# torch.nn has its kernels and we have the same ones, or a loop: they differ in rounding alone.
ROUNDING = {torch.float32: {"rtol": 1e-5, "atol": 5e-6}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}


def pair(kind, *args, **kwargs):
    """torch's module and ours, with torch's weights loaded."""
    theirs = kind(*args, **kwargs)
    ours = OURS[kind](*args, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def tensors(result):
    """The tensors of a result; of a packed sequence the data."""
    if isinstance(result, PackedSequence):
        return [result.data]
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result if part is not None for tensor in tensors(part)]


def assert_same(theirs, ours, *args, dtype=torch.float64, **kwargs):
    """The same results, shapes and gradients for the same arguments."""
    expected, got = theirs(*args, **kwargs), ours(*args, **kwargs)
    assert type(got) is type(expected)
    for a, b in zip(tensors(got), tensors(expected), strict=True):
        assert a.shape == b.shape
        assert_close(a, b, **ROUNDING[dtype])
    leaves = [t for t in tensors([*args, *kwargs.values()]) if t.requires_grad]
    cotangents = [torch.randn_like(t) for t in tensors(expected)]

    def gradients(result, module):
        loss = sum((t * w).sum() for t, w in zip(tensors(result), cotangents, strict=True))
        return grad(loss, [*leaves, *dict(module.named_parameters()).values()], materialize_grads=True)

    for a, b in zip(gradients(got, ours), gradients(expected, theirs), strict=True):
        assert_close(a, b, **ROUNDING[dtype])


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("dtype", "training"), [(torch.float32, True), (torch.float64, False)])
@pytest.mark.parametrize("info", [m for m in module_db if m.module_cls in OURS], ids=lambda m: m.name)
def test_the_module_inputs_pytorch_tests_itself_with(info, dtype, training, backend):
    options = {"device": "cpu", "dtype": dtype, "requires_grad": True, "training": training}
    if info.module_cls in (nn.RNN, nn.GRU):
        options["with_packed_sequence"] = True
    for sample in info.module_inputs_func(info, **options):
        construct, forward = sample.constructor_input, sample.forward_input
        theirs, ours = pair(info.module_cls, *construct.args, **construct.kwargs, dtype=dtype)
        theirs.train(training)
        ours.train(training)
        with momentumrnn.backend(backend):
            assert_same(theirs, ours, *forward.args, dtype=dtype, **forward.kwargs)


SHAPES = [
    {"num_layers": layers, "bidirectional": both, "bias": bias, "batch_first": batch_first}
    for layers in (1, 2)
    for both in (False, True)
    for bias in (False, True)
    for batch_first in (False, True)
]


def variants(kind):
    """The variants of a layer that are its own."""
    own = {nn.RNN: ("nonlinearity", ["tanh", "relu"]), nn.LSTM: ("proj_size", [0, 2]), nn.GRU: (None, [None])}
    name, values = own[kind]
    return [{} if name is None else {name: value} for value in values]


def initial(layer, batch, dtype=torch.float64):
    """A random state for the layer; batch () for an unbatched sequence."""
    places = layer.num_layers * (2 if layer.bidirectional else 1)
    h = torch.randn(places, *batch, layer.proj_size or layer.hidden_size, dtype=dtype, requires_grad=True)
    if not isinstance(layer, nn.LSTM):
        return h
    return h, torch.randn(places, *batch, layer.hidden_size, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "-".join(f"{k}={int(v)}" for k, v in s.items()))
@pytest.mark.parametrize("kind", LAYERS)
def test_every_form_of_input(kind, shape, backend):
    T, B = 5, 4
    lengths = torch.tensor([3, 5, 1, 3])
    for own in variants(kind):
        theirs, ours = pair(kind, 3, 5, **shape, **own, dtype=torch.float64)
        batched = torch.randn(T, B, 3, dtype=torch.float64, requires_grad=True)
        if shape["batch_first"]:
            batched = batched.detach().transpose(0, 1).requires_grad_()
        alone = torch.randn(T, 3, dtype=torch.float64, requires_grad=True)
        unsorted = pack_padded_sequence(batched, lengths, shape["batch_first"], enforce_sorted=False)
        ordered = pack_padded_sequence(batched, lengths.sort(descending=True).values, shape["batch_first"])
        with momentumrnn.backend(backend):
            for x, batch in ((batched, (B,)), (alone, ()), (unsorted, (B,)), (ordered, (B,))):
                for state in (None, initial(theirs, batch)):
                    assert_same(theirs, ours, x, state)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_packed_result_is_packed_alike(kind):
    theirs, ours = pair(kind, 3, 5, bidirectional=True)
    packed = pack_sequence([torch.randn(n, 3) for n in (2, 5, 1)], enforce_sorted=False)
    expected, got = theirs(packed)[0], ours(packed)[0]
    assert isinstance(got, PackedSequence)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(got, name), getattr(expected, name))


@pytest.mark.parametrize("kind", LAYERS)
def test_one_sequence_in_a_batch_keeps_its_batch(kind):
    theirs, ours = pair(kind, 1, 1, dtype=torch.float64)
    x = torch.randn(1, 1, 1, dtype=torch.float64, requires_grad=True)
    assert_same(theirs, ours, x)
    assert_same(theirs, ours, x, initial(theirs, (1,)))


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_batch_of_no_sequences(kind, rule):
    theirs = kind(3, 5, num_layers=2, bidirectional=True)
    ours = LAYERS[kind](3, 5, num_layers=2, bidirectional=True, rule=make_rule(rule))
    x = torch.randn(4, 0, 3)
    for a, b in zip(tensors(ours(x)), tensors(theirs(x)), strict=True):
        assert a.shape == b.shape


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_between_layers_draws_the_same_numbers(kind, packed, batch_first):
    theirs, ours = pair(kind, 3, 6, num_layers=3, dropout=0.5, batch_first=batch_first, bidirectional=True)
    x = torch.randn(4, 4, 3)
    if packed:
        x = pack_padded_sequence(x, torch.tensor([2, 4, 1, 3]), batch_first, enforce_sorted=False)
    for training in (True, False):
        results = []
        for module in (theirs, ours):
            module.train(training)
            torch.manual_seed(3)
            results.append(tensors(module(x)))
        for a, b in zip(*results, strict=True):
            assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "rmsprop"])
@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_is_between_layers_in_training_only(kind, rule):
    layer = LAYERS[kind](3, 6, num_layers=2, dropout=0.9, rule=make_rule(rule))
    single = LAYERS[kind](3, 6, rule=make_rule(rule))
    single.load_state_dict({k: v for k, v in layer.state_dict().items() if "l0" in k})
    x = torch.randn(4, 2, 3)
    one, two = layer(x), layer(x)
    assert not torch.equal(one[0], two[0])
    first = flat(one[1])[0][0]  # h_n of the first layer, before any dropout
    assert_close(first, flat(single(x)[1])[0][0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    layer.train()
    layer.dropout = 0.0
    assert_close(layer(x)[0], layer.eval()(x)[0])


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_arguments_have_the_same_names_order_and_defaults(kind):
    ours = inspect.signature(OURS[kind].__init__).parameters
    positional = [p for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
    if kind in LAYERS:
        expected = {
            nn.RNN: "input_size hidden_size num_layers nonlinearity bias batch_first dropout bidirectional",
            nn.LSTM: "input_size hidden_size num_layers bias batch_first dropout bidirectional proj_size",
            nn.GRU: "input_size hidden_size num_layers bias batch_first dropout bidirectional",
        }[kind].split()
        expected += ["device", "dtype"]
    else:
        expected = list(inspect.signature(kind.__init__).parameters)[1:]
    assert [p.name for p in positional] == expected
    example = kind(3, 5)
    for parameter in positional[2:]:
        if parameter.name not in ("device", "dtype"):
            assert parameter.default == getattr(example, parameter.name)
        else:
            assert parameter.default is None
    assert ours["rule"].kind is inspect.Parameter.KEYWORD_ONLY
    assert ours["rule"].default is None


@pytest.mark.parametrize("own", [{}, {"bias": False}])
@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_default_initialisation_draws_the_same_numbers(kind, own):
    options = own | ({"num_layers": 2, "bidirectional": True} if kind in LAYERS else {})
    if kind is nn.LSTM:
        options["proj_size"] = 2
    torch.manual_seed(5)
    theirs = kind(3, 5, **options)
    torch.manual_seed(5)
    ours = OURS[kind](3, 5, **options)
    expected, got = theirs.state_dict(), ours.state_dict()
    assert list(got) == list(expected)
    for name in expected:
        assert torch.equal(got[name], expected[name])
    torch.manual_seed(6)
    theirs.reset_parameters()
    torch.manual_seed(6)
    ours.reset_parameters()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", LAYERS)
def test_all_weights_and_attributes(kind):
    for own in variants(kind):
        for bias in (False, True):
            theirs, ours = pair(kind, 3, 5, num_layers=2, bidirectional=True, bias=bias, **own)
            assert ours.mode == theirs.mode
            for a, b in zip(ours.all_weights, theirs.all_weights, strict=True):
                assert len(a) == len(b)
                for one, two in zip(a, b, strict=True):
                    assert isinstance(one, nn.Parameter)
                    assert torch.equal(one, two)
            for name in inspect.signature(type(ours).__init__).parameters:
                if hasattr(theirs, name):
                    assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_extra_repr_is_the_same_without_a_rule(kind):
    assert OURS[kind](3, 5).extra_repr() == kind(3, 5).extra_repr()
    if kind in LAYERS:
        options = {"num_layers": 2, "bias": False, "batch_first": True, "dropout": 0.5, "bidirectional": True}
        for own in variants(kind)[-1:]:
            theirs, ours = kind(3, 5, **options, **own), LAYERS[kind](3, 5, **options, **own)
            for part in theirs.extra_repr().split(", "):
                assert part in ours.extra_repr() or "relu" in repr(ours)


@pytest.mark.parametrize("kind", LAYERS)
def test_flatten_parameters_changes_nothing(kind):
    _, ours = pair(kind, 3, 5, num_layers=2)
    x = torch.randn(4, 2, 3)
    before = ours(x)[0]
    assert ours.flatten_parameters() is None
    assert torch.equal(ours(x)[0], before)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_weight_that_is_replaced_is_used(kind):
    """torch.nn keeps a list of its weights beside the parameters; assigning one must still work."""
    theirs, ours = pair(kind, 3, 5, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    ours(x)
    for module in (theirs, ours):
        module.weight_hh_l0 = nn.Parameter(torch.zeros_like(module.weight_hh_l0))
    assert_same(theirs, ours, x)
    nn.utils.parametrizations.spectral_norm(ours, "weight_ih_l0")
    assert not torch.equal(ours(x)[0], theirs(x)[0])


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
@pytest.mark.parametrize("kind", LAYERS)
def test_weights_load_both_ways(kind, rule):
    ours = LAYERS[kind](3, 5, num_layers=2, bidirectional=True, rule=make_rule(rule))
    theirs = kind(3, 5, num_layers=2, bidirectional=True)
    before = copy.deepcopy(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("kind", LAYERS)
def test_states_may_be_detached_in_place(kind, backend, num_layers, carry):
    """As truncated backpropagation often does it; torch refuses it for a view."""
    layer = LAYERS[kind](3, 5, num_layers=num_layers, rule=make_rule("adam"), carry_momentum=carry)
    with momentumrnn.backend(backend):
        state = layer(torch.randn(4, 2, 3))[1]
        tensors = flat(state)
        for tensor in tensors:
            assert not tensor.detach_().requires_grad
        layer(torch.randn(4, 2, 3), state)[0].sum().backward()
    assert len(tensors) == (2 if kind is nn.LSTM else 1) + (2 if carry else 0)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_state_may_be_passed_by_name(kind):
    theirs, ours = pair(kind, 3, 5, dtype=torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    assert_same(theirs, ours, x, hx=initial(theirs, (2,)))


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind, bias, batched):
    theirs, ours = pair(kind, 3, 5, bias=bias, dtype=torch.float64)
    batch = (2,) if batched else ()
    x = torch.randn(*batch, 3, dtype=torch.float64, requires_grad=True)
    h = torch.randn(*batch, 5, dtype=torch.float64, requires_grad=True)
    state = (h, torch.randn(*batch, 5, dtype=torch.float64)) if kind is nn.LSTMCell else h
    assert_same(theirs, ours, x)
    assert_same(theirs, ours, x, state)


# What torch.nn refuses, we refuse with the same kind of error, or a kind that includes it.
REFUSED_ARGUMENTS = [
    {"input_size": 0},
    {"input_size": -1},
    {"input_size": "3"},
    {"input_size": 3.0},
    {"hidden_size": 0},
    {"hidden_size": "5"},
    {"hidden_size": 5.0},
    {"num_layers": 0},
    {"num_layers": -2},
    {"bias": 1},
    {"bias": "yes"},
    {"batch_first": 0},
    {"dropout": -0.1},
    {"dropout": 1.5},
    {"dropout": True},
    {"dropout": "half"},
    {"no_such_argument": 1},
]


@pytest.mark.parametrize("arguments", REFUSED_ARGUMENTS, ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_arguments_refused_by_torch_are_refused_alike(kind, arguments):
    with pytest.raises((ValueError, TypeError)) as expected:
        kind(**({"input_size": 3, "hidden_size": 5} | arguments))
    with pytest.raises(expected.type) as caught:
        LAYERS[kind](**({"input_size": 3, "hidden_size": 5} | arguments))
    assert next(iter(arguments)) in str(caught.value)


@pytest.mark.parametrize("proj_size", [-1, 5, 6])
def test_projections_refused_by_torch_are_refused_alike(proj_size):
    with pytest.raises(ValueError, match="proj_size"):
        momentumrnn.LSTM(3, 5, proj_size=proj_size)


@pytest.mark.parametrize("nonlinearity", ["sigmoid", "", None])
def test_an_unknown_nonlinearity_names_the_known_ones(nonlinearity):
    with pytest.raises(ValueError, match=r"tanh.*relu.*modrelu") as caught:
        momentumrnn.RNN(3, 5, nonlinearity=nonlinearity)
    assert repr(nonlinearity) in str(caught.value)


@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_without_a_next_layer_warns(kind):
    with pytest.warns(UserWarning, match="num_layers"):
        kind(3, 5, dropout=0.5)
    with pytest.warns(UserWarning, match="num_layers"):
        LAYERS[kind](3, 5, dropout=0.5)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_sizes_may_be_anything_that_stands_for_an_integer(kind):
    for size in (np.int64(5), torch.tensor(5)):
        layer = getattr(momentumrnn, kind)(np.int32(3), size, num_layers=np.int64(2))
        assert type(layer.hidden_size) is type(layer.input_size) is type(layer.num_layers) is int
        cell = getattr(momentumrnn, kind + "Cell")(np.int32(3), size)
        assert type(cell.hidden_size) is int


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("sizes", [(10, 0), (0, 5)])
def test_cells_of_no_size_are_those_of_torch(kind, sizes):
    ours, theirs = getattr(momentumrnn, kind)(*sizes), getattr(nn, kind)(*sizes)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, sizes[0])
    assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("kind", ["RNN", "GRU"])
def test_only_an_lstm_has_a_projection(kind):
    for package in (nn, momentumrnn):
        with pytest.raises(ValueError, match="proj_size"):
            getattr(package, kind)(3, 5, proj_size=2)


@pytest.mark.parametrize("options", [{}, {"proj_size": 2}, {"batch_first": True, "bidirectional": True}])
@pytest.mark.parametrize("packed", [False, True])
def test_members_that_client_code_calls(options, packed):
    ours, theirs = momentumrnn.LSTM(3, 5, 2, **options), nn.LSTM(3, 5, 2, **options)
    assert ours._all_weights == theirs._all_weights
    x = torch.randn(7, 2, 3)
    sizes = None
    if packed:
        x, sizes = x.flatten(0, 1), torch.full((7,), 2)
    size = theirs.get_expected_hidden_size(x, sizes)
    assert ours.get_expected_hidden_size(x, sizes) == size
    h, c = torch.randn(size), torch.randn(theirs.get_expected_cell_size(x, sizes))
    order = torch.randperm(size[1])
    assert_close(ours.permute_hidden((h, c), order), theirs.permute_hidden((h, c), order))
    assert ours.permute_hidden((h, c), None) == (h, c)
    for layer in (ours, theirs):
        layer.check_forward_args(x, (h, c), sizes)
        layer.check_hidden_size(h, size)
        for wrong in ((h[1:], c), (h, c[..., :1])):
            with pytest.raises(RuntimeError, match="Expected"):
                layer.check_forward_args(x, wrong, sizes)
        with pytest.raises(RuntimeError, match="Expected hidden size"):
            layer.check_hidden_size(h[1:], size)
        with pytest.raises(RuntimeError):
            layer.check_forward_args(x[..., :2], (h, c), sizes)
