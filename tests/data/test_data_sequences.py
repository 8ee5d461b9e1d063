import pytest
import torch

from momentumrnn.data import DATASETS, LabelledSequences, Splits, data_folder, find_dataset
from momentumrnn.data.digits import load_digits
from momentumrnn.errors import DataError


def some(values, labels=None, **more):
    labels = torch.zeros(len(values), dtype=torch.int64) if labels is None else torch.tensor(labels)
    return LabelledSequences(values, labels, classes=10, **more)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite(bad):
    values = torch.zeros(4, 3)
    values[2, 1] = bad
    with pytest.raises(DataError, match=r"1 that are NaN or infinite, the first in sequence 2"):
        some(values)


@pytest.mark.parametrize("labels", [[0, 10], [-1, 0]])
def test_labels_out_of_range(labels):
    with pytest.raises(DataError, match="expected labels from 0 to 9"):
        some(torch.zeros(2, 3), labels)


def test_as_many_labels_as_sequences():
    with pytest.raises(DataError, match="got 3 labels for 2 sequences"):
        some(torch.zeros(2, 3), [1, 2, 3])


@pytest.mark.parametrize("shape", [(2,), (2, 3, 1), (2, 0)])
def test_values_of_another_shape(shape):
    with pytest.raises(DataError, match="expected values of shape"):
        some(torch.zeros(shape))


def test_a_batch_is_time_first_and_scaled():
    data = some(torch.tensor([[0, 8], [16, 4], [2, 2]], dtype=torch.uint8), [1, 2, 3], scale=16.0)
    inputs, labels = data.batch(torch.tensor([1, 0]))
    assert inputs.dtype == torch.float32
    assert torch.equal(inputs, torch.tensor([[[1.0], [0.0]], [[0.25], [0.5]]]))
    assert labels.tolist() == [2, 1]


def test_permutation_moves_time_and_nothing_else():
    data = some(torch.arange(20, dtype=torch.uint8).reshape(2, 10), [1, 2])
    moved = Splits(data, None, data).permute_time(5)
    assert moved.validation is None
    assert torch.equal(moved.train.values.sort().values, data.values)
    assert torch.equal(
        moved.train.values[1] - moved.train.values[0], torch.full((10,), 10, dtype=torch.uint8)
    )
    assert torch.equal(moved.train.values, moved.test.values)
    assert not torch.equal(moved.train.values, data.values)


def test_digits_are_split_once_and_for_all():
    first, second = load_digits(), load_digits()
    parts = [first.train, first.validation, first.test]
    assert [len(part) for part in parts] == [1077, 360, 360]
    assert torch.equal(first.train.values, second.train.values)
    for part in parts:
        assert part.length == 64
        share = part.labels.bincount() / len(part)
        assert (share - 0.1).abs().max() < 0.01
    inputs, _ = first.train.batch(slice(None))
    assert inputs.min() == 0.0
    assert inputs.max() == 1.0
    # Together they are the whole dataset, each image once.
    from sklearn.datasets import load_digits as read

    whole = torch.from_numpy(read().data).to(torch.uint8)
    together = torch.cat([part.values for part in parts])
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, whole.tolist()))


DATASET_NAMES = {
    "digits",
    "mnist",
    "pmnist",
    "timit",
    "prompts",
    "speech",
    "copying",
    "adding",
    "ptb",
    "text",
}


def test_registry():
    assert set(DATASETS) == DATASET_NAMES
    with pytest.raises(DataError, match="no dataset 'minst': did you mean 'mnist'"):
        find_dataset("minst")
    assert DATASETS["digits"].check(data_folder()).startswith("1077 training")
