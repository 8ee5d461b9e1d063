"""The IDX format of MNIST: a magic number, the dimensions, then the bytes, big-endian throughout."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from momentumrnn.errors import DataError

# The third byte of the magic number is the type of the values: only unsigned bytes are in use.
UNSIGNED_BYTE = 0x08


def read_bytes(path: Path) -> bytes:
    """The contents of a file, decompressed where its name ends in ``.gz``.

    Args:
        path: The file.

    Raises:
        DataError: It ends early, is not what its name says, or cannot be read.
    """
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as stream:
            return stream.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: expected a complete gzip file, got one that is cut short or damaged ({error}); "
            "delete it and fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def read_idx(path: Path, dimensions: int, expected_sha256: str | None = None) -> Tensor:
    """Read an IDX file of unsigned bytes.

    Args:
        path: The file, ``.gz`` or plain.
        dimensions: How many dimensions it must have: 1 for labels, 3 for images.
        expected_sha256: The checksum of the decompressed contents, where known.

    Returns:
        A uint8 tensor of the shape the file declares.

    Raises:
        DataError: The file is cut short, too long, of another kind, or not the expected one.
    """
    values, found = read_idx_and_sha256(path, dimensions)
    if expected_sha256 is not None and found != expected_sha256:
        raise DataError(
            f"{path}: expected contents with sha256 {expected_sha256}, got {found}; "
            "delete it and fetch it again"
        )
    return values


def read_idx_and_sha256(path: Path, dimensions: int) -> tuple[Tensor, str]:
    """Read an IDX file of unsigned bytes, and the checksum of its decompressed contents.

    Args:
        path: The file, ``.gz`` or plain.
        dimensions: How many dimensions it must have.

    Raises:
        DataError: The file is cut short, too long, or of another kind.
    """
    content = read_bytes(path)
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(
            f"{path}: expected an IDX header of {header} bytes, got a file of {len(content)} bytes; "
            "delete it and fetch it again"
        )
    magic, expected_magic = content[:4], bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if magic != expected_magic:
        raise DataError(
            f"{path}: expected the magic number 0x{expected_magic.hex()} of an IDX file of unsigned bytes in "
            f"{dimensions} dimension(s), got 0x{magic.hex()}; check that the file is the one its name says"
        )
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4).astype(np.int64).tolist()
    size = math.prod(shape)
    if len(content) - header != size:
        raise DataError(
            f"{path}: expected {size} values for the shape {tuple(shape)} it declares, got "
            f"{len(content) - header}; delete it and fetch it again"
        )
    values = np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
    return torch.from_numpy(values), hashlib.sha256(content).hexdigest()
