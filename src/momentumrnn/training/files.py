"""Writing files so that a reader, and a process killed at any moment, sees the old one or the new one."""

import os
import uuid
from pathlib import Path


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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file as a whole.

    Args:
        path: The file; its folder exists.
        content: What it shall hold; text is written as UTF-8.
    """
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        sync(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
