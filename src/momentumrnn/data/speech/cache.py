"""Features of many recordings, computed once and kept."""

import contextlib
import hashlib
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from momentumrnn.data.speech.features import FEATURES, SETTINGS, recording_features
from momentumrnn.regular_files import check_regular, open_regular

# Of a cache file; one of another form is another file.
FORM = "frames, ends, contents"


@dataclass(frozen=True)
class Features:
    """The frames of many recordings, one after the other.

    Attributes:
        frames: (sum of all lengths, 129), float32.
        ends: (recordings,), int64: where in ``frames`` each recording ends.
        contents: (recordings, 32), uint8: the sha256 of each recording's file.
    """

    frames: Tensor
    ends: Tensor
    contents: Tensor


def features_of(root: Path, names: Sequence[str], cache: Path) -> Features:
    """The features of recordings, from the cache where it holds them.

    A cache file belongs to the settings of the transform, the folder, and the names, sizes and times of the
    recordings: one that comes, goes or is written again makes another cache file.

    Args:
        root: The folder of the recordings.
        names: Their paths in it, with ``/``.
        cache: The folder of cache files, made where it does not exist. Where it cannot be written to, a
            warning says so and nothing is kept.

    Raises:
        DataError: A recording cannot be used.
    """
    key = _key(root, names)
    path = cache / f"speech-{key[:32]}.safetensors"
    found = _read(path, key)
    if found is None:
        each = [recording_features(root / name) for name in names]
        ends = torch.tensor([len(frames) for frames in each], dtype=torch.int64).cumsum(0)
        sums = [list(_sha256(root / name)) for name in names]
        found = Features(torch.cat(each), ends, torch.tensor(sums, dtype=torch.uint8))
        _write(path, key, found)
    return found


def _sha256(path: Path) -> bytes:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").digest()


def _key(root: Path, names: Sequence[str]) -> str:
    lines = [SETTINGS, FORM, str(root.resolve())]
    for name in names:
        told = (root / name).stat()
        lines.append(f"{name}\0{told.st_size}\0{told.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _digest(features: Features) -> str:
    digest = hashlib.sha256()
    for tensor in (features.frames, features.ends, features.contents):
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _read(path: Path, key: str) -> Features | None:
    import safetensors

    if not path.exists():
        return None
    try:
        check_regular(path)
        with safetensors.safe_open(path, "pt") as stored:
            told = stored.metadata() or {}
            found = Features(*(stored.get_tensor(name) for name in ("frames", "ends", "contents")))
    except (OSError, safetensors.SafetensorError) as error:
        problem = str(error)
    else:
        right_shape = found.frames.shape[1:] == (FEATURES,)
        if right_shape and (told.get("key"), told.get("sha256")) == (key, _digest(found)):
            return found
        problem = "its checksum is not the one it was written with"
    warnings.warn(f"{path} is damaged ({problem}): the features are computed again", stacklevel=4)
    return None


def _write(path: Path, key: str, features: Features) -> None:
    from safetensors.torch import save_file

    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    tensors = {"frames": features.frames, "ends": features.ends, "contents": features.contents}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, beside, {"key": key, "sha256": _digest(features), "settings": SETTINGS})
        beside.replace(path)
    except OSError as error:
        warnings.warn(
            f"{path} cannot be written ({error}): the features will be computed again next time; the cache "
            "is under XDG_CACHE_HOME",
            stacklevel=4,
        )
    finally:
        # Where its folder is none, there is nothing to take away either.
        with contextlib.suppress(OSError):
            beside.unlink()
