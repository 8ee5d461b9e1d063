"""Checkpoints: folders of weights and state, whole or not there, and checked before they are believed."""

import hashlib
import io
import json
import shutil
import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from momentumrnn.errors import CheckpointError
from momentumrnn.regular_files import open_regular, read_regular
from momentumrnn.training.files import SCRATCH_SUFFIX, sync, write_atomically

KEPT = 2
WEIGHTS, STATE, MANIFEST = "model.safetensors", "state.pt", "manifest.json"
DAMAGED_SUFFIX = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        weights: The model's state dict.
        state: Everything else; loadable with ``torch.load(..., weights_only=True)``.
    """

    weights: dict[str, Tensor]
    state: dict[str, Any]


def save_weights(path: Path, weights: Mapping[str, Tensor], **metadata: str) -> None:
    """Write weights as safetensors, replacing the file as a whole.

    Args:
        path: The file.
        weights: A state dict.
        metadata: Text stored with them.
    """
    write_atomically(path, safetensors.torch.save(_plain(weights), metadata))


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint beside the others, and drop all but the last two.

    Args:
        folder: The folder of all checkpoints of a run; it exists.
        checkpoint: What to write.

    Returns:
        The folder of this checkpoint.
    """
    existing = _folders(folder)
    target = folder / f"{int(existing[-1].name) + 1 if existing else 1:06d}"
    scratch = folder / f".{target.name}.{uuid.uuid4().hex}{SCRATCH_SUFFIX}"
    scratch.mkdir()
    try:
        (scratch / WEIGHTS).write_bytes(safetensors.torch.save(_plain(checkpoint.weights)))
        # By way of memory: torch's own writing tells of a full disk as of a bug in itself.
        buffer = io.BytesIO()
        torch.save(checkpoint.state, buffer)
        (scratch / STATE).write_bytes(buffer.getbuffer())
        sums = {name: _sha256(scratch / name) for name in (WEIGHTS, STATE)}
        (scratch / MANIFEST).write_text(json.dumps({"sha256": sums}, indent=2) + "\n", encoding="utf-8")
        for name in (WEIGHTS, STATE, MANIFEST):
            sync(scratch / name)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    sync(folder)
    for old in _folders(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The latest checkpoint that is undamaged; later ones that are damaged are renamed.

    Args:
        folder: The folder of all checkpoints of a run; no other process writes to it.

    Returns:
        It, or ``None`` where there is none at all.

    Raises:
        CheckpointError: There are some, all damaged: starting over would destroy them unasked.
    """
    problems, damaged = [], []
    for candidate in reversed(_folders(folder)):
        try:
            checkpoint = load_checkpoint(candidate)
        except CheckpointError as error:
            problems.append(str(error))
            damaged.append(candidate)
            continue
        # One of the few that are kept would else be none.
        for one in damaged:
            one.rename(one.with_name(f"{one.name}.{uuid.uuid4().hex[:8]}{DAMAGED_SUFFIX}"))
        if problems:
            warnings.warn(
                f"{'; '.join(problems)}; going on from the checkpoint before, {candidate}", stacklevel=2
            )
        return checkpoint
    if problems:
        raise CheckpointError(
            f"{folder}: no checkpoint is usable ({'; '.join(problems)}); delete the run folder to start anew"
        )
    return None


def has_checkpoints(folder: Path) -> bool:
    """Whether there is a checkpoint, damaged or not.

    Args:
        folder: The folder of all checkpoints of a run.
    """
    return bool(_folders(folder))


def read_history(folder: Path) -> list[dict[str, int | float | None]]:
    """The rows of measured epochs in the latest checkpoint that is undamaged; none where all are damaged.

    Args:
        folder: The folder of all checkpoints of a run; nothing in it is changed.
    """
    for candidate in reversed(_folders(folder)):
        try:
            history: list[dict[str, int | float | None]] = load_checkpoint(candidate).state["history"]
        except (CheckpointError, KeyError, TypeError):
            continue
        return history
    return []


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read one checkpoint after comparing its checksums.

    Args:
        folder: The folder of this checkpoint.

    Raises:
        CheckpointError: A file is missing, its checksum is wrong, or it cannot be read in spite of that.
    """
    try:
        sums = json.loads(read_regular(folder / MANIFEST))["sha256"]
        for name in (WEIGHTS, STATE):
            if _sha256(folder / name) != sums[name]:
                raise CheckpointError(f"{folder / name} is damaged: its checksum is not the manifest's")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from error
    try:
        with open_regular(folder / STATE) as stream:
            state = torch.load(stream, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise TypeError(f"expected a dictionary, got {type(state).__name__}")
        return Checkpoint(safetensors.torch.load_file(folder / WEIGHTS), state)
    # Whatever readers of two formats think of; torch's words advise to read it unsafely.
    except Exception as error:
        raise CheckpointError(f"{folder} cannot be read ({type(error).__name__})") from error


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Say what it means that a checkpoint with right checksums does not fit the run that resumes from it.

    Args:
        folder: The run folder, or that of all checkpoints.

    Raises:
        CheckpointError: Something is missing, superfluous, or of another type or shape.
    """
    try:
        yield
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise CheckpointError(
            f"{folder}: its checkpoint belongs to another run, or was edited ({type(error).__name__}: "
            f"{said}); bring the run's own checkpoints back, or choose another folder with --out"
        ) from error


def _plain(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses tensors that share memory or are strided.
    return {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.name.isdigit() and path.is_dir())


def _sha256(path: Path) -> str:
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
