"""A large batch is treated in blocks of sequences, which changes nothing."""

import pytest
import torch
from torch.autograd import grad
from torch.testing import assert_close

from cases import RULES, make_rule
from momentumrnn.rules import base


def run(rule, drive, state, lengths, weights):
    gate_input, last = rule(drive, state, lengths)
    floating = [field for field in last if field.is_floating_point()]
    loss = (gate_input * weights).sum() + sum(field.square().sum() for field in floating)
    return (gate_input, *last), grad(loss, [drive, *rule.parameters()])


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("name", RULES)
def test_blocks_change_nothing(name, carried, monkeypatch):
    rule = make_rule(name, learnable=True).bind(3, dtype=torch.float64)
    drive = torch.randn(30, 7, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(drive)
    lengths = torch.tensor([30, 29, 20, 4, 3, 2, 1])
    state = rule(torch.randn(5, 7, 3, dtype=torch.float64))[1] if carried else None
    if state is not None:
        state = type(state)(*(field.detach() for field in state))
    whole, slopes = run(rule, drive, state, lengths, weights)

    sizes = []
    plain = type(rule).run

    def counted(self, drive, state, lengths):
        sizes.append(drive.shape[1])
        return plain(self, drive, state, lengths)

    monkeypatch.setattr(base, "_BLOCK_BYTES", 2 * 30 * 3 * 8)
    monkeypatch.setattr(type(rule), "run", counted)
    blocks, block_slopes = run(rule, drive, state, lengths, weights)
    assert sizes == [2, 2, 2, 1]
    assert_close(blocks, whole)
    assert_close(block_slopes, slopes)
