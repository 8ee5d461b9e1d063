"""The IDX format of MNIST: a magic number, the dimensions, then the bytes, big-endian throughout."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from momentumrnn.errors import DataError
from momentumrnn.regular_files import open_regular

# The third byte of the magic number is the type of the values: only unsigned bytes are in use.
UNSIGNED_BYTE = 0x08
# Bytes that are decompressed at once: a small file can hold more than there is memory.
CHUNK = 2**20


@contextmanager
def open_contents(path: Path) -> Iterator[BinaryIO]:
    """A file's contents as a stream, decompressed where its name ends in ``.gz``.

    Args:
        path: The file.

    Raises:
        DataError: It ends early, is not what its name says, cannot be read, or is no regular file.
    """
    try:
        with open_regular(path) as file:
            if path.suffix != ".gz":
                yield file
            else:
                with gzip.open(file) as stream:
                    yield cast(BinaryIO, stream)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: expected a complete gzip file, got one that is cut short or damaged ({error}); "
            "delete it and fetch it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def content_sha256(path: Path) -> str:
    """The checksum of a file's contents, decompressed.

    Two gzip files of the same contents differ by how they were compressed; their contents do not.

    Args:
        path: The file, ``.gz`` or plain.

    Raises:
        DataError: It cannot be read.
    """
    digest = hashlib.sha256()
    with open_contents(path) as stream:
        while piece := stream.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def read_idx(
    path: Path, dimensions: int, expected_sha256: str | None = None, most: int | None = None
) -> Tensor:
    """Read an IDX file of unsigned bytes.

    Args:
        path: The file, ``.gz`` or plain.
        dimensions: How many dimensions it must have: 1 for labels, 3 for images.
        expected_sha256: The checksum of the decompressed contents, where known.
        most: As for ``read_idx_and_sha256``.

    Returns:
        A uint8 tensor of the shape the file declares.

    Raises:
        DataError: The file is cut short, too long, of another kind, or not the expected one.
    """
    values, found = read_idx_and_sha256(path, dimensions, most)
    if expected_sha256 is not None and found != expected_sha256:
        raise DataError(
            f"{path}: expected contents with sha256 {expected_sha256}, got {found}; "
            "delete it and fetch it again"
        )
    return values


def read_idx_and_sha256(path: Path, dimensions: int, most: int | None = None) -> tuple[Tensor, str]:
    """Read an IDX file of unsigned bytes, and the checksum of its decompressed contents.

    No more is decompressed than its header declares, and a byte to see that it ends there.

    Args:
        path: The file, ``.gz`` or plain.
        dimensions: How many dimensions it must have.
        most: How many values it may declare, where that is known.

    Raises:
        DataError: The file is cut short, too long, or of another kind.
    """
    with open_contents(path) as stream:
        header = _read_at_most(stream, 4 + 4 * dimensions)
        shape = _parse_header(path, bytes(header), dimensions)
        size = math.prod(shape)
        if most is not None and size > most:
            raise DataError(
                f"{path}: expected at most {most} values, got {size} by its header, of the shape "
                f"{tuple(shape)}; check that the file is the one its name says"
            )
        content = _read_at_most(stream, size + 1)
    if len(content) != size:
        found = f"{len(content)} or more" if len(content) > size else len(content)
        raise DataError(
            f"{path}: expected {size} values for the shape {tuple(shape)} it declares, got {found}; "
            "delete it and fetch it again"
        )
    digest = hashlib.sha256(header)
    digest.update(content)
    return torch.from_numpy(np.frombuffer(content, np.uint8).reshape(shape)), digest.hexdigest()


def _read_at_most(stream: BinaryIO, count: int) -> bytearray:
    content = bytearray()
    while piece := stream.read(min(CHUNK, count - len(content))):
        content += piece
    return content


def _parse_header(path: Path, header: bytes, dimensions: int) -> list[int]:
    wanted = 4 + 4 * dimensions
    if len(header) < wanted:
        raise DataError(
            f"{path}: expected an IDX header of {wanted} bytes, got a file of {len(header)} bytes; "
            "delete it and fetch it again"
        )
    magic, expected_magic = header[:4], bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if magic != expected_magic:
        raise DataError(
            f"{path}: expected the magic number 0x{expected_magic.hex()} of an IDX file of unsigned bytes in "
            f"{dimensions} dimension(s), got 0x{magic.hex()}; check that the file is the one its name says"
        )
    shape: list[int] = np.frombuffer(header, ">u4", offset=4).astype(np.int64).tolist()
    return shape
