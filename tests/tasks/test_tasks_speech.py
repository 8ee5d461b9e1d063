import numpy as np
import pytest
import torch

from momentumrnn.data import SpeechSplits, Utterances
from momentumrnn.tasks import Sampling, build_layer, build_task
from momentumrnn.tasks.speech import SpeechBatches, masked_mse


@pytest.fixture
def task():
    return build_task("speech", folder="here")


@pytest.fixture
def utterances():
    lengths = [5, 12, 3, 9, 4, 7, 8]
    ends = np.cumsum(lengths)
    return Utterances.of(torch.randn(int(ends[-1]), 129), (ends - lengths).tolist(), ends.tolist())


@pytest.fixture
def model(task):
    return task.build_model(build_layer("LSTM", 129, 6), 6)


def test_the_loss_by_hand():
    predicted = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 0.0], [100.0, -7.0]]])
    targets = torch.tensor([[[0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[[1.0], [1.0]], [[1.0], [0.0]]])
    # 1 + 4, 1 + 0, 9 + 0 over three frames of two.
    assert masked_mse(predicted, targets, mask, 3).item() == pytest.approx(15 / 6)


def test_padding_is_neither_loss_nor_gradient(task, utterances, model):
    batches = SpeechBatches(SpeechSplits(utterances, utterances, utterances), Sampling(0, 7, 7))
    (batch,) = batches.training(1, 0)
    padding = batch.mask == 0
    assert padding.any()
    outputs = model(batch.inputs).detach().requires_grad_()
    score = task.score(outputs, batch)
    score.loss.backward()
    assert not outputs.grad[padding.expand_as(outputs)].any()
    assert outputs.grad[~padding.expand_as(outputs)].all()
    changed = torch.where(padding, 1e6, outputs)
    assert task.score(changed, batch).loss == score.loss


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_metric_does_not_depend_on_the_batches(task, utterances, model, size):
    whole = [model(utterances.batch(np.array([row])).inputs) for row in range(len(utterances))]
    errors = [
        (said - utterances.batch(np.array([row])).targets).double().square().flatten()
        for row, said in enumerate(whole)
    ]
    expected = torch.cat(errors).mean()
    splits = SpeechSplits(utterances, utterances, utterances)
    batches = SpeechBatches(splits, Sampling(0, size, size))
    for parts in (batches.evaluation("test"), batches.evaluation("validation"), batches.training(1, 0)):
        scored = [(task.score(model(batch.inputs), batch), batch.weight) for batch in parts]
        weight = sum(count for _, count in scored)
        assert weight == utterances.steps.sum()
        metric = sum(score.metric_sum for score, _ in scored) / weight
        torch.testing.assert_close(metric, expected, rtol=1e-6, atol=0)
        loss = sum(score.loss.double() * count for score, count in scored) / weight
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_a_frame_is_predicted_from_those_before_it(utterances, model):
    inputs = utterances.batch(np.array([1])).inputs
    before = model(inputs)
    inputs[6] += 1
    after = model(inputs)
    assert torch.equal(before[:6], after[:6])
    assert (before[6:] != after[6:]).all()


def test_going_on_inside_an_epoch_sees_the_same_batches(utterances):
    batches = SpeechBatches(SpeechSplits(utterances, utterances, utterances), Sampling(3, 2, 2))
    assert batches.steps_per_epoch == 4
    whole, rest = list(batches.training(2, 0)), list(batches.training(2, 3))
    assert len(whole) == 4
    assert len(rest) == 1
    assert torch.equal(whole[3].inputs, rest[0].inputs)
    assert torch.equal(whole[3].targets, rest[0].targets)


def test_a_subset_is_the_first_of_each_part(utterances):
    part = SpeechSplits(utterances, utterances, utterances).first(3)
    for here in (part.train, part.validation, part.test):
        assert here.steps.tolist() == utterances.steps[:3].tolist()
        assert here.starts.tolist() == utterances.starts[:3].tolist()
