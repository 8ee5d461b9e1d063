"""A lock on a folder that the operating system takes back when its process ends, however it ends."""

import errno
import os
import sys
from pathlib import Path
from types import TracebackType

from momentumrnn.errors import CheckpointError, InUseError


class FolderLock:
    """Held by one process at a time, as a context manager.

    Args:
        path: The lock file; it stays when the lock is released, and means nothing by itself.

    Raises:
        InUseError: On entering, when another process holds it.
        CheckpointError: On entering, when the file system knows no locks, or something else has its name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        # The file is emptied, so it must be no other one; and a pipe or device cannot be.
        if self._path.is_symlink() or (self._path.exists() and not self._path.is_file()):
            raise CheckpointError(
                f"{self._path}: expected a regular file or none, got a link, a folder, a pipe or a device; "
                "remove it"
            )
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor)
        except OSError as error:
            held = error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() if held else ""
            os.close(descriptor)
            if not held:
                raise CheckpointError(
                    f"{self._path}: cannot be locked ({error.strerror}), so that nothing would keep a second "
                    "process away; choose a folder on another file system with --out"
                ) from error
            raise InUseError(
                f"{self._path.parent} is in use by another process{f' ({holder})' if holder else ''}; "
                "wait for it, end it, or choose another folder with --out"
            ) from error
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()}\n".encode("ascii"))
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        # Far behind the process id: a locked byte cannot be read by others there.
        os.lseek(descriptor, 1024, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
