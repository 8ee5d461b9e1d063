"""Any folder of recordings, divided file by file."""

import hashlib
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from momentumrnn.data.folder import cache_folder
from momentumrnn.data.speech.cache import features_of
from momentumrnn.data.speech.utterances import SpeechSplits, Utterances
from momentumrnn.errors import DataError, DataMissingError

SUFFIXES = frozenset({".wav", ".flac"})
PARTS = ("train", "validation", "test")
PROMPTS = "speech/asterisk-en"
# Ten recordings of nothing: no speech to predict.
PROMPTS_LEFT_OUT = "silence/"


def part_of(name: str) -> str:
    """Which part a recording belongs to, by its path alone.

    It stays where it is when others come and go. 80 in 100 are for training, 10 for validation, 10 for the
    test.

    Args:
        name: Its path in the folder, with ``/``.

    >>> part_of("digits/1.wav"), part_of("digits/4.wav")
    ('train', 'train')
    """
    # Some file systems decompose letters with accents.
    text = unicodedata.normalize("NFC", name)
    hundredth = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:8]) % 100
    return "train" if hundredth < 80 else "validation" if hundredth < 90 else "test"


def files_in(root: Path) -> list[str]:
    """The files in a folder and the folders in it, linked ones too, without links that lead nowhere.

    Args:
        root: The folder.

    Returns:
        Their paths in the folder, with ``/``, sorted.
    """
    found = []
    for name, inside, files in os.walk(root, followlinks=True):
        folder = Path(name)
        above = {folder.resolve(), *folder.resolve().parents}
        # A link to where it lies has no end.
        inside[:] = [each for each in inside if (folder / each).resolve() not in above]
        found += [path for path in map(folder.joinpath, files) if path.exists()]
    return sorted(path.relative_to(root).as_posix() for path in found)


def find_recordings(root: Path, how_to_get: str) -> list[str]:
    """The recordings in a folder and the folders in it, by name.

    Args:
        root: The folder.
        how_to_get: What to do where there are none, for the error message.

    Returns:
        Their paths in the folder, with ``/``, sorted.

    Raises:
        DataMissingError: There are none.
    """
    names = [
        name
        for name in files_in(root)
        if Path(name).suffix.lower() in SUFFIXES and not Path(name).name.startswith(".")
    ]
    if not names:
        state = "holds no WAV or FLAC file" if root.is_dir() else "is no folder"
        raise DataMissingError(f"speech: {root} {state}; {how_to_get}")
    return names


def folder_parts(
    root: Path, left_out: str | None = None, how_to_get: str | None = None
) -> dict[str, list[str]]:
    """The recordings of a folder, by part.

    Args:
        root: The folder.
        left_out: What the paths that are left out begin with.
        how_to_get: What to do where there are none.

    Raises:
        DataMissingError: There are none.
        DataError: A part has none.
    """
    advice = how_to_get or (
        "name a folder of recordings with data.folder, relative to the data folder (--data-folder or the "
        "environment variable MOMENTUMRNN_DATA) or absolute"
    )
    names = [n for n in find_recordings(root, advice) if not (left_out and n.startswith(left_out))]
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for name in names:
        parts[part_of(name)].append(name)
    for part, members in parts.items():
        if not members:
            raise DataError(
                f"{root}: expected recordings for training, validation and test, got {len(names)} and none "
                f"of them for {part}: which part a file belongs to follows from its name; add recordings"
            )
    return parts


def load_parts(root: Path, parts: Mapping[str, list[str]], cache: Path | None = None) -> SpeechSplits:
    """Read recordings that are divided already.

    Args:
        root: The folder.
        parts: Part → paths in the folder.
        cache: Where features are kept; in the user's cache where absent.

    Raises:
        DataError: A recording cannot be used.
    """
    place = {name: part for part in PARTS for name in parts[part]}
    names = sorted(place)
    features = features_of(root, names, cache or cache_folder() / "features")
    ends = features.ends.tolist()
    starts = [0, *ends[:-1]]
    contents = [bytes(row) for row in features.contents.tolist()]
    splits = []
    for part in PARTS:
        rows = [row for row, name in enumerate(names) if place[name] == part]
        splits.append(
            Utterances.of(
                features.frames,
                [starts[row] for row in rows],
                [ends[row] for row in rows],
                [contents[row] for row in rows],
            )
        )
    return SpeechSplits(*splits)


def load_speech_folder(data: Path, folder: str) -> SpeechSplits:
    """Read any folder of WAV or FLAC files.

    Args:
        data: The data folder.
        folder: The folder of recordings, relative to it or absolute.

    Raises:
        DataMissingError: There are no recordings.
        DataError: A recording cannot be used, or a part has none.
    """
    root = data / Path(folder).expanduser()
    return load_parts(root, folder_parts(root))


def prompts_parts(data: Path) -> tuple[Path, dict[str, list[str]]]:
    """The English telephone prompts of Asterisk, 8 kHz, CC BY-SA.

    Args:
        data: The data folder.

    Returns:
        Their folder, and their paths in it by part; without the ten recordings of silence.

    Raises:
        DataMissingError: They are not there.
    """
    root = data / PROMPTS
    advice = (
        "unpack the WAV prompts of Debian's package asterisk-core-sounds-en-wav "
        f"(/usr/share/asterisk/sounds/en_US_f_Allison) into {root}, or name the data folder with "
        "--data-folder or the environment variable MOMENTUMRNN_DATA"
    )
    return root, folder_parts(root, PROMPTS_LEFT_OUT, advice)


def load_prompts(data: Path) -> SpeechSplits:
    """Read the English telephone prompts of Asterisk.

    Args:
        data: The data folder.

    Raises:
        DataMissingError: They are not there.
        DataError: One cannot be used.
    """
    return load_parts(*prompts_parts(data))
