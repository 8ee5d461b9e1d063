"""Writing files so that a reader, and a process killed at any moment, sees the old one or the new one."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from momentumrnn.errors import CheckpointError

# Of files and folders that are written beside, and moved into place.
SCRATCH_SUFFIX = ".tmp"


def sync(path: Path) -> None:
    """Have the contents of a file, or the entries of a folder, reach the disk.

    Args:
        path: The file or folder.
    """
    # Only POSIX lets a folder be opened for this.
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def needing_disk(folder: Path) -> Iterator[None]:
    """Say what it means for a run that something could not be written.

    Args:
        folder: The run folder.

    Raises:
        CheckpointError: An ``OSError`` came up.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{folder}: a file could not be written ({error}); what was written before is whole. Mend that, "
            "by making room for instance, and the same command goes on from the last checkpoint"
        ) from error


def discard_unfinished(folder: Path) -> None:
    """Remove what a process that was killed while writing left behind.

    Args:
        folder: A folder that no other process writes to.
    """
    for scratch in folder.glob(f".*{SCRATCH_SUFFIX}"):
        shutil.rmtree(scratch) if scratch.is_dir() else scratch.unlink()


def written(name: str | Path) -> str:
    r"""Text that UTF-8 has: bytes in names of files that are none become escapes.

    Args:
        name: Any text that holds names of files or folders, which may be any bytes.

    >>> print(written("run-\udcff"))
    run-\udcff
    """
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole.

    Args:
        path: The file; its folder exists.
        content: What it shall hold; text as ``written`` gives it, in UTF-8.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{SCRATCH_SUFFIX}")
    try:
        beside.write_bytes(
            content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
        )
        sync(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
