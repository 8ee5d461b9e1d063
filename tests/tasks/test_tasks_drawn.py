import math

import pytest
import torch

from momentumrnn.errors import RecipeError
from momentumrnn.tasks import Sampling, build_layer, build_task
from momentumrnn.tasks.adding import CONSTANT_LOSS
from momentumrnn.tasks.copying import memoryless_loss

TASKS = ["copying", "adding"]


def loaded(name, length=20, seed=0, size=4, eval_size=512, steps=3):
    task = build_task(name, length=length)
    return task, task.load(None, Sampling(seed, size, eval_size, steps), "cpu")


def same(one, other):
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("name", TASKS)
def test_a_batch_follows_from_seed_and_step_alone(name):
    _, batches = loaded(name)
    first, second = list(batches.training(1, 0)), list(batches.training(2, 0))
    assert len(first) == len(second) == batches.steps_per_epoch == 3
    every = [*first, *second]
    assert not any(same(one, other) for i, one in enumerate(every) for other in every[:i])
    assert same(next(batches.training(2, 1)), second[1])
    # Five steps in, however long an epoch is.
    assert same(next(loaded(name, steps=4)[1].training(2, 0)), second[1])
    assert not same(next(loaded(name, seed=1)[1].training(1, 0)), first[0])
    assert all(batch.weight == 4 for batch in every)


@pytest.mark.parametrize("name", TASKS)
def test_held_out_sequences_are_the_same_for_every_run(name):
    def whole(part, **more):
        parts = list(loaded(name, **more)[1].evaluation(part))
        return torch.cat([batch.inputs for batch in parts], 1), torch.cat([batch.targets for batch in parts])

    inputs, targets = whole("test")
    assert inputs.shape[1] == len(targets) == 1024
    for others in ({"seed": 7}, {"eval_size": 100}, {"eval_size": 5000}, {"size": 1, "steps": 9}):
        assert torch.equal(whole("test", **others)[0], inputs)
        assert torch.equal(whole("test", **others)[1], targets)
    assert not torch.equal(whole("validation")[0], inputs)
    drawn = next(loaded(name, size=1024)[1].training(1, 0))
    assert not torch.equal(drawn.inputs, inputs)
    assert not torch.equal(drawn.inputs, whole("validation")[0])


def test_the_memoryless_guess_costs_what_is_said():
    task, batches = loaded("copying", length=30, size=64)
    batch = next(batches.training(1, 0))
    assert batch.inputs.shape == (50, 64, 10)
    assert torch.equal(batch.inputs.sum(-1), torch.ones(50, 64))
    logits = torch.full((50, 64, 9), -1e4)
    logits[:40, :, 8] = 0
    logits[40:, :, :8] = 0
    score = task.score(logits, batch)
    assert score.loss.item() == pytest.approx(10 * math.log(8) / 50, rel=1e-6)
    assert score.loss.item() == pytest.approx(task.baseline().value, rel=1e-6)
    assert score.metric_sum.item() == pytest.approx(64 * task.baseline().value, rel=1e-6)
    for other in ("validation", "test"):
        assert task.baseline(other).value == task.baseline("training", batches.sampling, 1).value
    assert memoryless_loss(2000) == pytest.approx(0.010294, abs=1e-6)


def test_who_remembers_pays_nothing():
    task, batches = loaded("copying", length=5)
    batch = next(batches.training(1, 0))
    right = torch.nn.functional.one_hot(batch.targets.t(), 9) * 1e4
    assert task.score(right, batch).loss.item() == 0
    # Of one sequence only, so that times and sequences cannot be confused.
    wrong = right.clone()
    wrong[20:, 0] = wrong[20:, 0].roll(1, dims=-1)
    assert task.score(wrong, batch).loss.item() == pytest.approx(1e4 * 5 / 100, rel=1e-3)


def guessed(task, batches, guess):
    """What a guess costs by the score of the task, over some batches."""
    scored = [(task.score(guess(batch), batch), batch.weight) for batch in batches]
    return sum(score.metric_sum.item() for score, _ in scored) / sum(weight for _, weight in scored)


@pytest.mark.parametrize("length", [2, 20, 750])
def test_always_saying_one_costs_what_is_said_on_the_same_sequences(length):
    task, batches = loaded("adding", length=length, seed=3, size=9, eval_size=100)
    for part in ("validation", "test"):
        cost = guessed(task, batches.evaluation(part), lambda batch: torch.ones_like(batch.targets))
        assert task.baseline(part).value == pytest.approx(cost, rel=1e-6)
        assert task.baseline(part, batches.sampling, 2).value == task.baseline(part).value
        # A thousand sequences are no expectation.
        assert abs(cost - 1 / 6) > 1e-4
    for epoch in (1, 2):
        cost = guessed(task, batches.training(epoch, 0), lambda batch: torch.ones_like(batch.targets))
        assert task.baseline("training", batches.sampling, epoch).value == pytest.approx(cost, rel=1e-6)


def test_the_baseline_of_adding_over_750_steps():
    task = build_task("adding", length=750)
    assert task.baseline("test").value == pytest.approx(0.1532, abs=5e-5)
    assert task.baseline().value == CONSTANT_LOSS == 1 / 6
    task, batches = loaded("adding")
    batch = next(batches.training(1, 0))
    assert task.score(batch.targets, batch).loss.item() == 0


@pytest.mark.parametrize(("name", "shape"), [("copying", (40, 4, 9)), ("adding", (4, 1))])
def test_models_say_what_is_scored(name, shape):
    task, batches = loaded(name)
    model = task.build_model(build_layer("LSTM", task.features, 5), 5)
    batch = next(batches.training(1, 0))
    outputs = model(batch.inputs)
    assert outputs.shape == shape
    score = task.score(outputs, batch)
    assert score.loss.shape == score.metric_sum.shape == ()
    assert not score.metric_sum.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "copying"}, "data.length: 'copying' needs it"),
        ({"name": "copying", "length": 0}, "data.length: 'copying' needs 1 or more, got 0"),
        ({"name": "adding", "length": 1}, "data.length: 'adding' needs 2 or more, got 1"),
        ({"name": "adding", "length": 9, "validation": 3}, "data.validation: 'adding' does not take it"),
        ({"name": "digits", "length": 9}, "data.length: 'digits' does not take it, got 9"),
        ({"name": "speech"}, "data.folder: 'speech' needs it"),
        ({"name": "timit", "folder": "x"}, "data.folder: 'timit' does not take it, got 'x'"),
        ({"name": "addin"}, "there is no dataset 'addin': did you mean 'adding'"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(RecipeError) as caught:
        build_task(**options)
    assert message in str(caught.value)


def test_an_epoch_without_an_end():
    with pytest.raises(RecipeError, match=r"training\.steps_per_epoch"):
        build_task("adding", length=9).load(None, Sampling(0, 4, 4), "cpu")
