"""What must be the same whenever something is gone on with: its data, and what its weights mean."""

from collections.abc import Mapping
from pathlib import Path

from momentumrnn.errors import CheckpointError
from momentumrnn.regular_files import read_regular
from momentumrnn.tasks.fingerprint import FINGERPRINT_FILE, is_shorter
from momentumrnn.training.files import needing_disk, write_atomically


def keep_documents(folder: Path, documents: Mapping[str, str]) -> None:
    """Write documents, or see that they are what they were.

    Args:
        folder: Of a run or a sweep.
        documents: File name → text, from ``Task.documents``.

    Raises:
        CheckpointError: There was another text in the beginning, or one cannot be read.
    """
    for name, text in documents.items():
        path = folder / name
        try:
            present = read_regular(path) if path.exists() else None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error}); remove it") from error
        if present == text.encode("utf-8"):
            continue
        told = "" if present is None else present.decode("utf-8", "replace")
        if present is not None and not (name == FINGERPRINT_FILE and is_shorter(told, text)):
            raise CheckpointError(
                f"{path} is not what the data give now: they have changed since it was begun; bring them "
                "back, or choose another folder with --out"
            )
        with needing_disk(folder):
            write_atomically(path, text)
