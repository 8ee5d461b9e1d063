import gzip
import os
import shutil
import struct

import numpy
import pytest
import torch

from momentumrnn.data import data_folder
from momentumrnn.data import mnist as mnist_files
from momentumrnn.data.fetch import content_sha256
from momentumrnn.data.mnist import check_mnist, load_mnist, load_pmnist
from momentumrnn.errors import DataError, DataMissingError


def write_idx(folder, name, values):
    (folder / "mnist").mkdir(exist_ok=True)
    header = bytes([0, 0, 8, values.dim()]) + struct.pack(f">{values.dim()}I", *values.shape)
    (folder / "mnist" / f"{name}.gz").write_bytes(gzip.compress(header + values.numpy().tobytes()))


def write_small_mnist(folder, images=3, labels=(1, 2, 3)):
    for part in ("train", "t10k"):
        write_idx(folder, f"{part}-images-idx3-ubyte", torch.zeros(images, 28, 28, dtype=torch.uint8))
        write_idx(folder, f"{part}-labels-idx1-ubyte", torch.tensor(labels, dtype=torch.uint8))


def test_missing_says_where_and_how(tmp_path):
    with pytest.raises(DataMissingError) as caught:
        load_mnist(tmp_path)
    message = str(caught.value)
    for expected in (
        str(tmp_path),
        "train-images-idx3-ubyte.gz",
        "momentumrnn data fetch mnist",
        "MOMENTUMRNN_DATA",
    ):
        assert expected in message


def test_counts_that_differ(tmp_path):
    write_small_mnist(tmp_path, images=3, labels=(1, 2))
    with pytest.raises(DataError, match="got 3 images and 2 labels"):
        load_mnist(tmp_path)


def test_label_out_of_range(tmp_path):
    write_small_mnist(tmp_path, labels=(0, 10, 3))
    with pytest.raises(DataError, match=r"train-labels.*expected labels from 0 to 9, got 10"):
        load_mnist(tmp_path)


def test_a_part_of_mnist(tmp_path):
    write_small_mnist(tmp_path)
    with pytest.raises(DataError, match="expected 60000 images of 28 × 28, got 3"):
        load_mnist(tmp_path)


@pytest.fixture
def blank(tmp_path, monkeypatch):
    """As many images as MNIST has, all of them empty, that are taken for MNIST."""
    sums = {}
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        write_idx(tmp_path, f"{part}-images-idx3-ubyte", torch.zeros(count, 28, 28, dtype=torch.uint8))
        write_idx(tmp_path, f"{part}-labels-idx1-ubyte", torch.zeros(count, dtype=torch.uint8))
    for path in (tmp_path / "mnist").iterdir():
        sums[path.stem] = content_sha256(path)
    monkeypatch.setattr(mnist_files, "SHA256", sums)
    return tmp_path


def change_a_byte(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(gzip.compress(bytes(content), 1))


def test_a_changed_byte_is_noticed_when_it_is_read(blank, recwarn):
    assert len(load_mnist(blank).test) == 10_000
    change_a_byte(blank / "mnist" / "train-images-idx3-ubyte.gz")
    for load in (load_mnist, load_pmnist):
        with pytest.raises(DataError, match=r"train-images.*expected contents with sha256") as caught:
            load(blank)
        assert "momentumrnn data fetch mnist" in str(caught.value)
    assert not recwarn.list


def test_another_dataset_in_its_form_is_told_and_used(blank):
    for path in (blank / "mnist").iterdir():
        change_a_byte(path)
    with pytest.warns(UserWarning, match="none of the files is MNIST's; they are used as another dataset"):
        splits = load_mnist(blank)
    assert splits.test.labels[-1] == 1
    with pytest.raises(DataError, match="expected contents with sha256"):
        check_mnist(blank)


def test_data_folder_order(tmp_path, monkeypatch):
    monkeypatch.setenv("MOMENTUMRNN_DATA", str(tmp_path / "environment"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder(tmp_path / "named") == tmp_path / "named"
    assert data_folder() == tmp_path / "environment"
    monkeypatch.delenv("MOMENTUMRNN_DATA")
    assert data_folder() == tmp_path / "cache" / "momentumrnn"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_folder() == tmp_path / "home" / ".cache" / "momentumrnn"


@pytest.fixture(scope="module")
def real():
    if not os.environ.get("MOMENTUMRNN_DATA"):
        pytest.skip("MOMENTUMRNN_DATA is not set: the real MNIST files are looked for there")
    return data_folder()


@pytest.fixture(scope="module")
def mnist(real):
    return load_mnist(real)


def test_real_splits(mnist):
    assert [len(part) for part in (mnist.train, mnist.validation, mnist.test)] == [55_000, 5_000, 10_000]
    assert mnist.train.values.dtype == torch.uint8
    # The first ten labels of MNIST, known to everyone who has printed them.
    assert mnist.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test.labels[:4].tolist() == [7, 2, 1, 0]
    inputs, labels = mnist.train.batch(slice(2))
    assert inputs.shape == (784, 2, 1)
    assert labels.shape == (2,)
    assert inputs.max() == 1.0
    assert inputs.min() == 0.0
    # Row by row: the inked columns of a row are neighbours in time.
    assert torch.equal(
        inputs[28 * 14 : 28 * 15, 0, 0] * 255, mnist.train.values[0, 28 * 14 : 28 * 15].float()
    )


def test_nothing_held_out(real, mnist):
    whole = load_mnist(real, validation=0)
    assert whole.validation is None
    assert torch.equal(whole.train.labels, torch.cat([mnist.train.labels, mnist.validation.labels]))


def test_permutation_is_one_per_seed(mnist):
    one, again, other = mnist.permute_time(1), mnist.permute_time(1), mnist.permute_time(2)
    assert torch.equal(one.test.values, again.test.values)
    assert not torch.equal(one.test.values, other.test.values)
    # The same order in every split: the place of a pixel in train is its place in test.
    order = torch.from_numpy(numpy.random.RandomState(1).permutation(784))
    assert sorted(order.tolist()) == list(range(784))
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(one, part).values, getattr(mnist, part).values[:, order])
        assert torch.equal(getattr(one, part).labels, getattr(mnist, part).labels)


def test_pmnist_uses_its_seed(real, mnist):
    assert torch.equal(load_pmnist(real, seed=3).test.values, mnist.permute_time(3).test.values)


def test_check_notices_one_changed_pixel(real, tmp_path):
    assert "60000 training and 10000 test images" in check_mnist(real)
    shutil.copytree(real / "mnist", tmp_path / "mnist")
    change_a_byte(tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(DataError, match=r"t10k-labels.*expected contents with sha256"):
        check_mnist(tmp_path)
