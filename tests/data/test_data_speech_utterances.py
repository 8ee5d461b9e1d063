import numpy as np
import pytest
import torch

from momentumrnn.data.speech import utterances
from momentumrnn.data.speech.utterances import Utterances


@pytest.fixture
def some():
    """Sixty utterances whose frames count up from 1, so that every value tells its place."""
    lengths = np.random.RandomState(0).randint(2, 40, size=60)
    ends = lengths.cumsum()
    frames = torch.arange(1.0, ends[-1] + 1).unsqueeze(1).repeat(1, 2)
    return Utterances.of(frames, (ends - lengths).tolist(), ends.tolist())


def test_a_batch_is_the_next_frame_and_its_padding(some):
    rows = np.array([3, 10, 4])
    batch = some.batch(rows)
    steps = some.steps[rows]
    assert batch.inputs.shape == batch.targets.shape == (steps.max(), 3, 2)
    assert batch.steps == steps.sum() == batch.mask.sum()
    for column, (start, count) in enumerate(zip(some.starts[rows], steps, strict=True)):
        expected = torch.arange(1.0, count + 1) + start
        assert torch.equal(batch.inputs[:count, column, 0], expected)
        assert torch.equal(batch.targets[:count, column, 1], expected + 1)
        assert batch.mask[:, column, 0].tolist() == [1.0] * count + [0.0] * (steps.max() - count)
        assert not batch.inputs[count:, column].any()
        assert not batch.targets[count:, column].any()


def test_long_utterances_are_cut_and_every_frame_is_predicted_once(monkeypatch):
    monkeypatch.setattr(utterances, "MAX_STEPS", 5)
    frames = torch.arange(1.0, 31.0).unsqueeze(1)
    cut = Utterances.of(frames, [0, 6, 7, 19], [6, 7, 19, 30])
    # A recording of one frame has nothing to predict.
    assert cut.steps.tolist() == [5, 5, 5, 1, 5, 5]
    predicted = torch.cat([cut.batch(np.array([row])).targets.flatten() for row in range(len(cut))])
    assert predicted.tolist() == [*range(2, 7), *range(9, 20), *range(21, 31)]
    assert max(cut.batch(np.array([row])).inputs.shape[0] for row in range(len(cut))) == 5


def test_an_hour_becomes_minutes():
    cut = Utterances.of(torch.empty(0, 129), [0], [225_001])
    assert cut.steps.tolist() == [3_750] * 60


def test_an_epoch_is_everything_once_in_batches_of_similar_length(some):
    batches = some.shuffled_batches(8, (0, 1))
    assert [len(batch) for batch in batches].count(8) == 7
    assert sorted(np.concatenate(batches).tolist()) == list(range(60))
    for batch in batches:
        assert some.steps[batch].max() <= 1.1 / 0.9 * some.steps[batch].min() + 8
    padded = sum(len(batch) * some.steps[batch].max() for batch in batches)
    assert padded < 1.35 * some.steps.sum()


def test_the_order_follows_from_the_seed_alone(some):
    def order(*seed):
        return [batch.tolist() for batch in some.shuffled_batches(8, seed)]

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    company = [{frozenset(batch) for batch in order(0, epoch)} for epoch in (1, 2)]
    assert len(company[0] & company[1]) < 4
    # Not from short to long.
    longest = [max(some.steps[batch]) for batch in order(0, 1)]
    assert longest != sorted(longest)


@pytest.mark.parametrize(("frames", "size"), [(100, 8), (100, 100), (1, 3), (10_000, 7)])
def test_evaluation_is_everything_once_in_batches_of_bounded_size(some, monkeypatch, frames, size):
    monkeypatch.setattr(utterances, "EVALUATION_FRAMES", frames)
    batches = some.sorted_batches(size)
    assert sorted(np.concatenate(batches).tolist()) == list(range(60))
    for batch in batches:
        assert len(batch) <= size
        assert len(batch) == 1 or len(batch) * some.steps[batch].max() <= frames
    assert len(batches) < 60 or frames == 1
