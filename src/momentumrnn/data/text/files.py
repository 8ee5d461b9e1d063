"""Text files for training, validation and test, as streams of word numbers."""

from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path

from torch import Tensor

from momentumrnn.data.text.vocabulary import END, Vocabulary
from momentumrnn.errors import DataError, DataMissingError
from momentumrnn.regular_files import open_regular

# Part → what its file may be called, alone or behind a name and a dot: ptb.train.txt, wiki.valid.tokens.
NAMES = {"train": ("train",), "validation": ("valid", "validation"), "test": ("test",)}
SUFFIXES = ("txt", "tokens")


@dataclass(frozen=True)
class TextSplits:
    """A text in word numbers.

    Attributes:
        vocabulary: The words.
        train: What the weights are fitted to, (N,), int64.
        validation: What choices are made by.
        test: What is reported.
    """

    vocabulary: Vocabulary
    train: Tensor
    validation: Tensor
    test: Tensor

    def first(self, count: int | None) -> "TextSplits":
        """The first words of each part; all where ``count`` is absent.

        Args:
            count: How many.
        """
        parts = (part[:count] for part in (self.train, self.validation, self.test))
        return TextSplits(self.vocabulary, *parts)


def read_words(path: Path) -> list[str]:
    """The words of a file, what stands between white space, with ``<eos>`` at the end of every line.

    Args:
        path: UTF-8 text.

    Raises:
        DataError: It cannot be read, or holds no word.
    """
    try:
        # Not splitlines(): it would also divide lines at rarer characters, such as U+0085. A byte order mark
        # would be part of the first word.
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig") as stream:
            lines = stream.read().removesuffix("\n").split("\n")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: expected text in UTF-8, got {error}; convert it") from error
    words = [word for line in lines for word in (*line.split(), END)]
    if len(words) == len(lines):
        raise DataError(f"{path}: expected text, got a file without a word")
    return words


def find_texts(folder: Path) -> dict[str, Path]:
    """The files of the three parts.

    Args:
        folder: Holds one file for each.

    Returns:
        Part → file.

    Raises:
        DataMissingError: There is no such folder, or a part has no file.
        DataError: A part has several.
    """
    found = {}
    for part, names in NAMES.items():
        files = sorted(
            path
            for name in names
            for suffix in SUFFIXES
            for pattern in (f"{name}.{suffix}", f"*.{name}.{suffix}")
            for path in folder.glob(pattern)
            if not path.is_dir() and not path.name.startswith(".")
        )
        wanted = " or ".join(f"{name}.txt" for name in names)
        if not files:
            state = f"holds no {wanted}" if folder.is_dir() else "is no folder"
            raise DataMissingError(
                f"text: {folder} {state}; expected train.txt, valid.txt and test.txt (also behind a name, "
                "such as ptb.train.txt) in the folder that data.folder names, relative to the data folder "
                "(--data-folder or the environment variable MOMENTUMRNN_DATA) or absolute"
            )
        if len(files) > 1:
            raise DataError(
                f"{folder}: expected one file for {part}, got {', '.join(path.name for path in files)}; "
                "leave one of them there"
            )
        found[part] = files[0]
    return found


def load_text_folder(data: Path, folder: str, vocabulary: int) -> TextSplits:
    """Read any text in three files.

    The vocabulary is that of the training file. Its rarer words, and unknown words of the other two files,
    become ``<unk>``.

    Args:
        data: The data folder.
        folder: The folder of the files, relative to it or absolute.
        vocabulary: How many words to know, ``<unk>`` and ``<eos>`` included.

    Raises:
        DataMissingError: A file is missing.
        DataError: A file cannot be used, or there are fewer words.
    """
    files = find_texts(data / Path(folder).expanduser())
    words = {part: read_words(path) for part, path in files.items()}
    known = Vocabulary.of(words["train"], vocabulary, str(files["train"]))
    return TextSplits(known, *(known.encode(words[part]) for part in NAMES))
