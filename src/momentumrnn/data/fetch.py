"""Downloading files, believed only when their checksum is right."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from momentumrnn.data.idx import content_sha256
from momentumrnn.errors import DataError, DataMissingError


def fetch_files(files: Mapping[str, str], mirrors: Sequence[str], folder: Path) -> list[Path]:
    """Fetch files that are not there yet, from the first mirror that has the right ones.

    A file is downloaded beside its place and moved there once its checksum is right, so that an
    interrupted download leaves nothing behind that looks like data.

    Args:
        files: File name → sha256 of its decompressed contents.
        mirrors: Base addresses, each ending in a slash, tried in order.
        folder: Where the files go; it is made where it does not exist.

    Returns:
        The paths of all files.

    Raises:
        DataError: A file that was there already has other contents.
        DataMissingError: No mirror gave the right file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_fetch_one(name, sha256, mirrors, folder) for name, sha256 in files.items()]


def _fetch_one(name: str, sha256: str, mirrors: Sequence[str], folder: Path) -> Path:
    import pooch

    target = folder / name
    if target.exists():
        found = content_sha256(target)
        if found != sha256:
            raise DataError(
                f"{target}: expected contents with sha256 {sha256}, got {found}; delete it and fetch it again"
            )
        return target
    # Pooch names a checksum that it was not given at every download; ours is of the contents.
    pooch.get_logger().setLevel("WARNING")
    failures = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        for mirror in mirrors:
            try:
                download = Path(pooch.retrieve(mirror + name, known_hash=None, fname=name, path=scratch))
                found = content_sha256(download)
            except (OSError, DataError) as error:
                failures.append(f"  {mirror + name}: {error}")
                (Path(scratch) / name).unlink(missing_ok=True)
                continue
            if found == sha256:
                return download.replace(target)
            failures.append(f"  {mirror + name}: expected contents with sha256 {sha256}, got {found}")
            download.unlink()
    raise DataMissingError(
        "\n".join(
            [f"{name} could not be fetched:", *failures, f"put the file into {folder} by hand, or try later"]
        )
    )
