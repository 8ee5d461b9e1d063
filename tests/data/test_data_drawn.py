import math

import pytest
import torch

from momentumrnn.data.adding import draw_adding
from momentumrnn.data.copying import draw_copying


@pytest.mark.parametrize("length", [1, 2, 7, 2000])
def test_copying_by_its_definition(length):
    inputs, targets = draw_copying(6, length, (1, 2))
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.shape == (length + 20, 6)
    assert targets.shape == (6, length + 20)
    for column in range(6):
        read, said = inputs[:, column].tolist(), targets[column].tolist()
        assert all(0 <= symbol < 8 for symbol in read[:10])
        assert read[10:] == [8] * (length - 1) + [9] + [8] * 10
        assert said == [8] * (length + 10) + read[:10]


@pytest.mark.parametrize("length", [2, 3, 10, 750])
def test_adding_by_its_definition(length):
    inputs, targets = draw_adding(50, length, (1, 2))
    assert inputs.shape == (length, 50, 2)
    assert targets.shape == (50, 1)
    values, marks = inputs.unbind(-1)
    assert 0 <= values.min() <= values.max() <= 1
    assert set(marks.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(marks[: length // 2].sum(0), torch.ones(50))
    assert torch.equal(marks[length // 2 :].sum(0), torch.ones(50))
    for column in range(50):
        first, second = values[marks[:, column] == 1, column].tolist()
        assert targets[column].item() == pytest.approx(first + second, abs=1e-6)


@pytest.mark.parametrize("draw", [draw_copying, draw_adding])
def test_what_is_drawn_follows_from_the_seed_alone(draw):
    first, again, other, third = (draw(4, 20, seed) for seed in ((0, 5), (0, 5), (0, 6), (5, 0)))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], third[0])


def test_every_symbol_and_every_place_is_as_likely():
    inputs, _ = draw_copying(10_000, 1, (0,))
    shares = inputs[:10].flatten().bincount(minlength=8) / 100_000
    assert (shares - 1 / 8).abs().max() < 0.005
    inputs, targets = draw_adding(60_000, 7, (0,))
    shares = inputs[..., 1].sum(1) / 60_000
    expected = torch.tensor([1 / 3] * 3 + [1 / 4] * 4)
    assert (shares - expected).abs().max() < 0.01
    assert targets.mean().item() == pytest.approx(1, abs=0.01)
    assert targets.std().item() == pytest.approx(math.sqrt(1 / 6), abs=0.01)
