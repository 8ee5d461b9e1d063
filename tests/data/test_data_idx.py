import gzip
import hashlib
import struct

import pytest
import torch

from momentumrnn.data.idx import read_idx
from momentumrnn.errors import DataError


def idx_bytes(values: torch.Tensor) -> bytes:
    header = bytes([0, 0, 8, values.dim()]) + struct.pack(f">{values.dim()}I", *values.shape)
    return header + values.numpy().tobytes()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.arange(5 * 3 * 2, dtype=torch.uint8).reshape(5, 3, 2)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_what_was_written(tmp_path, images, suffix):
    path = tmp_path / f"images{suffix}"
    content = idx_bytes(images)
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert torch.equal(read_idx(path, 3, hashlib.sha256(content).hexdigest()), images)


def test_truncated_gzip(tmp_path, images):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(images))[:-9])
    with pytest.raises(DataError, match=r"images\.gz: expected a complete gzip file.*fetch it again"):
        read_idx(path, 3)


def test_a_folder_of_that_name(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="images: cannot be read: "):
        read_idx(tmp_path / "images", 3)


def test_not_gzip_at_all(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match="expected a complete gzip file"):
        read_idx(path, 3)


@pytest.mark.parametrize("keep", [0, 3, 15])
def test_no_whole_header(tmp_path, images, keep):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(images)[:keep])
    with pytest.raises(DataError, match=f"expected an IDX header of 16 bytes, got a file of {keep} bytes"):
        read_idx(path, 3)


def test_wrong_magic(tmp_path, images):
    path = tmp_path / "images"
    path.write_bytes(b"\x00\x00\x0d\x03" + idx_bytes(images)[4:])
    with pytest.raises(DataError, match=r"expected the magic number 0x00000803.*got 0x00000d03"):
        read_idx(path, 3)


def test_labels_where_images_are_expected(tmp_path, images):
    path = tmp_path / "labels"
    path.write_bytes(idx_bytes(images.flatten()))
    with pytest.raises(DataError, match="got 0x00000801"):
        read_idx(path, 3)


@pytest.mark.parametrize(("change", "got"), [(lambda b: b[:-1], 29), (lambda b: b + b"\0", 31)])
def test_size_is_not_the_declared_one(tmp_path, images, change, got):
    path = tmp_path / "images"
    path.write_bytes(change(idx_bytes(images)))
    with pytest.raises(DataError, match=rf"expected 30 values for the shape \(5, 3, 2\).*got {got}"):
        read_idx(path, 3)


def test_a_huge_declared_shape_is_no_overflow(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(bytes([0, 0, 8, 3]) + b"\xff" * 12)
    with pytest.raises(DataError, match=f"expected {(2**32 - 1) ** 3} values"):
        read_idx(path, 3)


def test_wrong_contents(tmp_path, images):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(images))
    with pytest.raises(DataError, match="expected contents with sha256 00"):
        read_idx(path, 3, "00" * 32)
