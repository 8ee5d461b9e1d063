"""Opening regular files and nothing else: a pipe is waited for without end, and a device may never end."""

import errno
import io
import os
import stat
from pathlib import Path

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path) -> None:
    """Refuse what is no regular file, before a library opens it by its name.

    Args:
        path: The file. A link counts as what it leads to.

    Raises:
        OSError: There is no such file, or it is a folder, a named pipe, a socket or a device.
    """
    _check(path, path.stat().st_mode)


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading, without waiting.

    Args:
        path: The file. A link counts as what it leads to.

    Raises:
        OSError: It cannot be opened, or is a folder, a named pipe, a socket or a device.
    """
    # Before it is opened, because opening some devices changes them; and after, since it may be another now.
    check_regular(path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        _check(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path) -> bytes:
    """The contents of a regular file.

    Args:
        path: The file.

    Raises:
        OSError: As for ``open_regular``.
    """
    with open_regular(path) as file:
        return file.read()


def _check(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "expected a regular file, got a folder", str(path))
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"expected a regular file, got {kind}", str(path))
