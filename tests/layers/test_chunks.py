"""A sequence run in chunks equals the sequence run whole, the step count of the rule included."""

import pytest
import torch
from torch.autograd import grad
from torch.nn.utils.rnn import pack_sequence, unpack_sequence
from torch.testing import assert_close

import momentumrnn
from cases import BACKEND_CASES, CELLS, RULES, VELOCITIES, flat, has_memory_cell, make_layer

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def run_in_chunks(layer, x, chunks, state=None):
    outputs = []
    for chunk in x.split(chunks):
        output, state = layer(chunk, state)
        outputs.append(output)
    return torch.cat(outputs), state


@pytest.mark.parametrize("velocity", VELOCITIES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("cell", "backend"), BACKEND_CASES)
def test_chunks_equal_the_whole(cell, rule, velocity, backend):
    layer = make_layer(cell, rule, velocity, True, num_layers=2, carry_momentum=True)
    x = torch.randn(7, 2, 3, dtype=torch.float64, requires_grad=True)
    leaves = [x, *layer.parameters()]
    with momentumrnn.backend(backend):
        whole, last = layer(x)
        w = torch.randn_like(whole)
        expected = grad((whole * w).sum() + flat(last)[0].sum(), leaves)
        for chunks in ([1] * 7, [1, 6], [3, 3, 1]):
            output, state = run_in_chunks(layer, x, chunks)
            for a, b in zip([output, *flat(state)], [whole, *flat(last)], strict=True):
                assert_close(a, b, **EXACT)
            got = grad((output * w).sum() + flat(state)[0].sum(), leaves)
            for a, b in zip(got, expected, strict=True):
                assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_chunks_of_different_lengths_in_one_batch(cell, rule):
    """Each sequence goes on from its own state, at its own step."""
    layer = make_layer(cell, rule, num_layers=2, carry_momentum=True)
    pieces = [[3, 2, 1], [1, 5, 2], [4, 1, 6]]
    sequences = [torch.randn(sum(own), 3, dtype=torch.float64) for own in pieces]
    split = [sequence.split(own) for sequence, own in zip(sequences, pieces, strict=True)]
    state, outputs = None, [[], [], []]
    for n in range(3):
        output, state = layer(pack_sequence([own[n] for own in split], enforce_sorted=False), state)
        for parts, part in zip(outputs, unpack_sequence(output), strict=True):
            parts.append(part)
    for n, sequence in enumerate(sequences):
        whole, last = layer(sequence[:, None])
        assert_close(torch.cat(outputs[n]), whole[:, 0], **EXACT)
        for a, b in zip(flat(state), flat(last), strict=True):
            assert_close(a[:, n], b[:, 0], **EXACT)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_shapes_of_the_state(cell, rule):
    layer = make_layer(cell, rule, num_layers=2, bidirectional=True, carry_momentum=True)
    channels = layer.weight_ih_l0.shape[0]
    for batch in ((3,), (1,), ()):
        _, state = layer(torch.randn(4, *batch, 3, dtype=torch.float64))
        assert len(state) == (3 if has_memory_cell(cell) else 2)
        h, m = state[0], state[-1]
        assert h.shape == (4, *batch, getattr(layer, "proj_size", 0) or 5)
        for name, part in m._asdict().items():
            shape = {"step": (), "velocities": (2, channels)}.get(name, (channels,))
            assert part.shape == (4, *batch, *shape)
            assert part.dtype == (torch.int64 if name == "step" else torch.float64)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("velocity", VELOCITIES)
def test_unbatched_is_a_batch_of_one(cell, rule, velocity):
    layer = make_layer(cell, rule, velocity, num_layers=2, bidirectional=True, carry_momentum=True)
    x = torch.randn(5, 3, dtype=torch.float64)
    _, state = layer(x)  # a state worth starting from
    output, last = layer(x, state)
    batched = tuple(
        type(part)(*(p.unsqueeze(1) for p in part)) if hasattr(part, "_fields") else part.unsqueeze(1)
        for part in state
    )
    expected, expected_last = layer(x.unsqueeze(1), batched)
    for a, b in zip([output, *flat(last)], [expected, *flat(expected_last)], strict=True):
        assert_close(a, b.squeeze(1), **EXACT)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_the_momentum_of_a_given_state_may_be_none(cell, rule):
    layer = make_layer(cell, rule, carry_momentum=True)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    _, state = layer(x)
    start = (*state[:-1], None)
    fresh = (*state[:-1], type(state[-1])(*(torch.zeros_like(part) for part in state[-1])))
    for a, b in zip(flat(layer(x, start)), flat(layer(x, fresh)), strict=True):
        assert_close(a, b, **EXACT)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_given_state_is_left_as_it_was(rule, batch_first):
    layer = make_layer("lstm", rule, carry_momentum=True, batch_first=batch_first)
    x = torch.randn(5, 5, 3, dtype=torch.float64)
    with torch.no_grad():
        _, state = layer(x)
        before = [part.clone() for part in flat(state)]
        layer(x, state)
    for a, b in zip(flat(state), before, strict=True):
        assert torch.equal(a, b)


def test_truncated_backpropagation():
    """Detached between chunks, as one trains a language model: values go on, gradients stop."""
    layer = make_layer("lstm", "heavy_ball", carry_momentum=True)
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    _, state = layer(x[:3])
    h, c, m = state
    output, _ = layer(x[3:], (h.detach(), c.detach(), type(m)(*(part.detach() for part in m))))
    (slope,) = grad(output.sum(), x)
    assert (slope[:3] == 0).all()
    assert (slope[3:] != 0).any()
    assert_close(output, layer(x)[0][3:], **EXACT)
