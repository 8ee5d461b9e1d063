"""Each sequence of a packed batch behaves as if it ran alone: padding never leaks into the velocity."""

import pytest
import torch
from torch.autograd import grad
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, unpack_sequence
from torch.testing import assert_close

import momentumrnn
from cases import (
    BACKEND_CASES,
    CELLS,
    RULE_CASES,
    RULES,
    VELOCITIES,
    flat,
    has_memory_cell,
    make_layer,
    oracle_layer,
    random_memory,
    state_of,
)

LENGTHS = [3, 5, 1, 5, 2]
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def pick(state, n):
    """The state of sequence n, as that of a batch of one."""
    if isinstance(state, torch.Tensor):
        return state[:, n : n + 1]
    parts = [pick(part, n) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def draw(layer, cell, rule, with_state):
    x = [torch.randn(T, 3, dtype=torch.float64, requires_grad=True) for T in LENGTHS]
    if not with_state:
        return x, None
    B, places = len(LENGTHS), layer.num_layers * (2 if layer.bidirectional else 1)
    h = torch.randn(places, B, getattr(layer, "proj_size", 0) or layer.hidden_size, dtype=torch.float64)
    c = torch.randn(places, B, layer.hidden_size, dtype=torch.float64)
    m = () if rule == "none" else (state_of(rule, random_memory(places, B, layer.weight_ih_l0.shape[0])),)
    state = (h, c, *m) if has_memory_cell(cell) else (h, *m)
    for part in flat(state):
        part.requires_grad_(part.is_floating_point())
    return x, state if len(state) > 1 else h


@pytest.mark.parametrize(("bidirectional", "with_state"), [(False, True), (True, False), (True, True)])
@pytest.mark.parametrize("velocity", VELOCITIES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_alone_and_in_a_batch(cell, rule, velocity, bidirectional, with_state):
    layer = make_layer(
        cell, rule, velocity, True, num_layers=2, bidirectional=bidirectional, carry_momentum=True
    )
    x, state = draw(layer, cell, rule, with_state)
    packed_output, packed_state = layer(pack_sequence(x, enforce_sorted=False), state)
    together = unpack_sequence(packed_output)

    loss_together = loss_alone = 0.0
    for n, sequence in enumerate(x):
        own = None if state is None else pick(state, n)
        output, last = layer(sequence[:, None], own)
        assert_close(together[n], output[:, 0], **EXACT)
        got = [together[n], *flat(pick(packed_state, n))]
        expected = [output[:, 0], *flat(last)]
        for a, b in zip(got, expected, strict=True):
            assert_close(a, b, **EXACT)
        for a, b in zip(got, expected, strict=True):
            if a.is_floating_point():
                w = torch.randn_like(a)
                loss_together, loss_alone = loss_together + (a * w).sum(), loss_alone + (b * w).sum()

    leaves = [*x, *layer.parameters(), *(part for part in flat(state) if part.is_floating_point())]
    for a, b in zip(
        grad(loss_together, leaves, materialize_grads=True),
        grad(loss_alone, leaves, materialize_grads=True),
        strict=True,
    ):
        assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
@pytest.mark.parametrize(("cell", "backend"), [*BACKEND_CASES, *((cell, "auto") for cell in CELLS)])
def test_each_sequence_obeys_the_equations(cell, backend, rule, velocity):
    layer = make_layer(cell, rule, velocity, bidirectional=True, num_layers=2, carry_momentum=rule != "none")
    x, _ = draw(layer, cell, rule, False)
    with momentumrnn.backend(backend):
        output, state = layer(pack_sequence(x, enforce_sorted=False))
    for n, (sequence, y) in enumerate(zip(x, unpack_sequence(output), strict=True)):
        expected, h, c, memory = oracle_layer(layer, cell, rule, velocity, sequence[:, None])
        right = [h, c] if has_memory_cell(cell) else [h]
        right += [] if rule == "none" else list(state_of(rule, memory))
        assert_close(y, expected[:, 0], **EXACT)
        for a, b in zip(flat(pick(state, n)), right, strict=True):
            assert_close(a, b, **EXACT)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
def test_what_stands_in_the_padding_does_not_matter(cell, rule, poison):
    layer = make_layer(cell, rule, bidirectional=True, num_layers=2, carry_momentum=True)
    lengths = torch.tensor([3, 6, 1])
    x = torch.randn(6, 3, 3, dtype=torch.float64)
    results = []
    for filler in (0.0, poison):
        padded = x.clone()
        for n, length in enumerate(lengths):
            padded[length:, n] = filler
        output, state = layer(pack_padded_sequence(padded, lengths, enforce_sorted=False))
        results.append([output.data, *flat(state)])
    for a, b in zip(*results, strict=True):
        assert a.isfinite().all()
        assert torch.equal(a, b)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_the_order_of_the_sequences_does_not_matter(cell, rule):
    layer = make_layer(cell, rule, bidirectional=True, carry_momentum=True)
    x, state = draw(layer, cell, rule, True)
    order = [4, 2, 0, 3, 1]
    output, last = layer(pack_sequence(x, enforce_sorted=False), state)
    shuffled_state = tuple(
        type(part)(*(p[:, order] for p in part)) if hasattr(part, "_fields") else part[:, order]
        for part in state
    )
    shuffled, shuffled_last = layer(
        pack_sequence([x[n] for n in order], enforce_sorted=False), shuffled_state
    )
    ours, theirs = unpack_sequence(output), unpack_sequence(shuffled)
    for place, n in enumerate(order):
        assert_close(theirs[place], ours[n], **EXACT)
        for a, b in zip(flat(pick(shuffled_last, place)), flat(pick(last, n)), strict=True):
            assert_close(a, b, **EXACT)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", CELLS)
def test_equal_lengths_packed_equal_the_plain_batch(cell, rule, batch_first):
    layer = make_layer(cell, rule, bidirectional=True, batch_first=batch_first, carry_momentum=True)
    x = torch.randn(4, 4, 3, dtype=torch.float64)
    output, state = layer(x)
    packed, packed_state = layer(pack_padded_sequence(x, torch.full((4,), 4), batch_first))
    stacked = torch.stack(unpack_sequence(packed), dim=0 if batch_first else 1)
    for a, b in zip([stacked, *flat(packed_state)], [output, *flat(state)], strict=True):
        assert_close(a, b, **EXACT)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_on_each_backend(backend):
    layer = make_layer("lstm", "restart", bidirectional=True, num_layers=2, carry_momentum=True)
    x, state = draw(layer, "lstm", "restart", True)
    with momentumrnn.backend(backend):
        output, last = layer(pack_sequence(x, enforce_sorted=False), state)
        for n, sequence in enumerate(x):
            y, own = layer(sequence[:, None], pick(state, n))
            assert_close(unpack_sequence(output)[n], y[:, 0], **EXACT)
            for a, b in zip(flat(pick(last, n)), flat(own), strict=True):
                assert_close(a, b, **EXACT)
