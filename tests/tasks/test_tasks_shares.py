"""What the shares of a batch give, averaged over the processes, is what the whole batch gives."""

import pytest
import torch

from momentumrnn.data.speech.utterances import Utterances
from momentumrnn.data.text import Columns
from momentumrnn.tasks import Batch, Sampling, build_task
from momentumrnn.tasks.language import _pieces
from momentumrnn.tasks.language_model import LanguageOutputs
from momentumrnn.tasks.shares import own_sequences, share_of
from momentumrnn.tasks.speech import SpeechBatches


def drawn(size):
    def batches(task):
        return task.load(None, Sampling(0, size, 8, 1), "cpu")

    return batches


def spoken(task):
    frames = torch.randn(60, task.features, generator=torch.Generator().manual_seed(1))
    some = Utterances.of(frames, [0, 4, 17, 20, 41], [4, 17, 20, 41, 60])
    part = type("Splits", (), {"train": some})()
    return SpeechBatches(part, Sampling(0, 5, 5))


CASES = {
    "digits": ({}, drawn(7)),
    "adding": ({"length": 6}, drawn(7)),
    "copying": ({"length": 3}, drawn(7)),
    "speech": ({"folder": "mine"}, spoken),
}


@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("name", CASES)
def test_shares_average_to_the_whole(name, count):
    options, batches_of = CASES[name]
    task = build_task(name, **options)
    whole = next(iter(batches_of(task).training(1, 0)))
    layer = torch.nn.LSTM(task.features, 4)
    model = task.build_model(layer, 4)

    def scored(batch, counted=lambda score: score):
        model.zero_grad()
        score = counted(task.score(model(batch.inputs), batch))
        score.loss.backward()
        return score.loss.detach().double(), score.metric_sum, [p.grad.clone() for p in model.parameters()]

    loss, metric, gradients = scored(whole)
    shares = [share_of(whole, task.sequence_dim, rank, count) for rank in range(count)]
    assert all(share.batch.inputs.shape[1] >= 1 for share in shares)
    counting = [share for share in shares if share.loss_factor]
    assert sum(share.batch.weight for share in counting) == whole.weight
    assert sum(share.batch.inputs.shape[1] for share in counting) == whole.inputs.shape[1]
    each = [scored(share.batch, share.counted) for share in shares]
    assert sum(part[0] for part in each) / count == pytest.approx(loss.item(), rel=1e-5)
    assert sum(part[1] for part in each).item() / count == pytest.approx(metric.item(), rel=1e-5)
    for index, gradient in enumerate(gradients):
        average = sum(part[2][index] for part in each) / count
        torch.testing.assert_close(average, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_shares_of_a_text_average_to_the_whole(count):
    """The second row of columns of two words, two, two and one: a process may have nothing to say."""
    columns = Columns.of(torch.arange(1, 8), 4, before=0, whole=True)
    whole = list(_pieces(columns, [1, 1]))[1]
    assert (whole.weight, whole.lengths) == (3, (1, 1, 1, 0))
    task = build_task("text", folder="mine", vocabulary=8, language={"embedding_size": 3})
    logits = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))

    def scored(share):
        first = int((whole.inputs[0] == share.batch.inputs[0, 0]).nonzero())
        own = logits[:, first : first + share.batch.inputs.shape[1]]
        return share.counted(task.score(LanguageOutputs(own, own, own), share.batch))

    expected = task.score(LanguageOutputs(logits, logits, logits), whole)
    each = [scored(share_of(whole, task.sequence_dim, rank, count)) for rank in range(count)]
    for name in ("loss", "metric_sum"):
        mean = sum(getattr(score, name) for score in each).item() / count
        assert mean == pytest.approx(getattr(expected, name).item(), rel=1e-6)


@pytest.mark.parametrize(("size", "count"), [(5, 2), (5, 3), (7, 4), (2, 3)])
def test_shares_of_a_penalty_average_to_the_whole(size, count):
    """Where some processes have a sequence more than others, or none."""
    columns = Columns.of(torch.arange(3 * size) % 8, size, before=0, whole=True)
    (whole,) = _pieces(columns, [3])
    assert whole.lengths == (3,) * size
    penalties = {"embedding_size": 3, "activation_penalty": 2.0, "slowness_penalty": 3.0}
    task = build_task("text", folder="mine", vocabulary=8, language=penalties)
    logits, last, dropped = (torch.randn(3, size, 8, dtype=torch.float64) for _ in range(3))

    def scored(rank):
        first, end, _ = own_sequences(size, rank, count)
        own = LanguageOutputs(*(part[:, first:end] for part in (logits, last, dropped)))
        share = share_of(whole, task.sequence_dim, rank, count)
        return share.counted(task.score(own, share.batch))

    expected = task.score(LanguageOutputs(logits, last, dropped), whole)
    by_hand = 2 * dropped.square().mean() + 3 * (last[1:] - last[:-1]).square().mean()
    torch.testing.assert_close(expected.penalty, by_hand)
    each = [scored(rank) for rank in range(count)]
    for name in ("penalty", "objective"):
        mean = sum(getattr(score, name) for score in each) / count
        torch.testing.assert_close(mean, getattr(expected, name))


def test_all_of_a_sequence_goes_to_one_process():
    mask = torch.ones(3, 5, 1)
    whole = Batch(torch.arange(15.0).view(3, 5, 1), torch.arange(15).view(3, 5), 12, mask, (3, 3, 2, 2, 2))
    first, second = (share_of(whole, 1, rank, 2).batch for rank in range(2))
    assert torch.equal(torch.cat([first.inputs, second.inputs], 1), whole.inputs)
    assert torch.equal(torch.cat([first.targets, second.targets], 1), whole.targets)
    assert (first.lengths, second.lengths) == ((3, 3), (2, 2, 2))
    assert (first.weight, second.weight) == (6, 6)
    assert first.mask.shape == (3, 2, 1)
