"""Whether a file holds the samples that its header promises, of which libsndfile says nothing."""

import re
import struct
from pathlib import Path
from typing import BinaryIO

from momentumrnn.errors import DataError

# Where the length is not known beforehand, as in a pipe, writers put this or more in its place.
NO_LENGTH = 0x7FFFF000
NIST = b"NIST_1A\n"


def check_promised(path: Path, file: BinaryIO) -> None:
    """Refuse a WAV or NIST SPHERE file that was cut off; libsndfile notices by itself where a FLAC file was.

    Args:
        path: The file's name.
        file: It, opened; it is left at its beginning.

    Raises:
        DataError: There are fewer samples than its header says.
    """
    size = file.seek(0, 2)
    found = _of_wav(file) or _of_sphere(file)
    file.seek(0)
    if found is None:
        return
    start, promised = found
    if promised > size - start:
        held = max(0, size - start)
        raise DataError(
            f"{path}: expected {promised:,} bytes of samples, as its header says, got {held:,}: it is cut "
            "off; copy it again, or remove it"
        )


def _of_wav(file: BinaryIO) -> tuple[int, int] | None:
    """Where the samples begin, and how many bytes of them there are to be."""
    file.seek(0)
    head = file.read(12)
    order = {b"RIFF": "<", b"RIFX": ">"}.get(head[:4])
    if order is None or head[8:] != b"WAVE":
        return None
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", head)
        if name == b"data":
            return None if length >= NO_LENGTH else (file.tell(), length)
        # Chunks begin at even places.
        file.seek(length + length % 2, 1)
    return None


def _of_sphere(file: BinaryIO) -> tuple[int, int] | None:
    """Likewise."""
    file.seek(0)
    head = file.read(16)
    if not head.startswith(NIST) or not head[8:].strip().isdigit():
        return None
    start = int(head[8:])
    header = file.read(max(0, start - 16))
    fields = dict(re.findall(rb"^(\w+) -i (\d+)\s*$", header, re.MULTILINE))
    # Compressed samples are fewer bytes, and nothing that libsndfile reads.
    if b"shorten" in header or not {b"sample_count", b"sample_n_bytes"} <= fields.keys():
        return None
    frame = int(fields[b"sample_n_bytes"]) * int(fields.get(b"channel_count", 1))
    return start, int(fields[b"sample_count"]) * frame
