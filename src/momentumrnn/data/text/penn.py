"""The Penn Treebank, word level, in the form Mikolov gave it: 10,000 words, lower case, numbers as N."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from momentumrnn.data.text.files import TextSplits, read_words
from momentumrnn.data.text.vocabulary import UNKNOWN, Vocabulary
from momentumrnn.errors import DataError, DataMissingError

WORDS = 10_000
# Of the words with one space between two, <eos> at the end of every line.
SHA256 = {
    "train": "1312f07b5540034ea2f2f76d9261fd3d659b2cc644fb1fb4a2445d52c0c42eec",
    "valid": "3aa2368e8a91af24394c8f23a347150600fdf08a8a04bd7e7313ff15f7f6508c",
    "test": "fd2505cc168558c8fe0b8544e3b2e997c8a8ba8a32b193ab49a80e228ae9d8a6",
}
PLACES = ("ptb", "penn", "simple-examples/data", "ptb/simple-examples/data")
ORIGIN = (
    "licensed (LDC99T42 of the Linguistic Data Consortium): Mikolov's ptb.train.txt, ptb.valid.txt and "
    "ptb.test.txt, from his simple-examples.tgz, put into the data folder's ptb"
)


def find_penn(data: Path) -> Path:
    """The folder of the three files.

    Args:
        data: The data folder.

    Raises:
        DataMissingError: They are not there.
    """
    for place in PLACES:
        if all((data / place / f"ptb.{part}.txt").exists() for part in SHA256):
            return data / place
    raise DataMissingError(
        f"ptb: looked for ptb.train.txt, ptb.valid.txt and ptb.test.txt in "
        f"{', '.join(str(data / place) for place in PLACES)}. The Penn Treebank is {ORIGIN}; or name the "
        "data folder with --data-folder or the environment variable MOMENTUMRNN_DATA. Any other text to run "
        "on instead: --set data.name=text data.folder=… data.vocabulary=…"
    )


def load_penn(data: Path) -> TextSplits:
    """Read the Penn Treebank.

    Args:
        data: The data folder.

    Raises:
        DataMissingError: It is not there.
        DataError: A file is not Mikolov's.
    """
    folder = find_penn(data)
    words = {part: read_words(folder / f"ptb.{part}.txt") for part in SHA256}
    for part, text in words.items():
        _check(folder / f"ptb.{part}.txt", text, SHA256[part])
    vocabulary = Vocabulary.of(words["train"], WORDS, "ptb")
    return TextSplits(vocabulary, *(vocabulary.encode(words[part]) for part in SHA256))


def check_penn(data: Path) -> str:
    """Read the Penn Treebank and say what was found.

    Args:
        data: The data folder.

    Raises:
        DataMissingError: It is not there.
        DataError: A file is not Mikolov's.
    """
    text = load_penn(data)
    sizes = [len(part) for part in (text.train, text.validation, text.test)]
    unknown = int((text.train == text.vocabulary.numbers[UNKNOWN]).sum()) / sizes[0]
    return (
        f"words: {sizes[0]:,} training, {sizes[1]:,} validation, {sizes[2]:,} test, {len(text.vocabulary):,} "
        f"different; {unknown:.1%} {UNKNOWN}"
    )


def _check(path: Path, words: Sequence[str], sha256: str) -> None:
    found = hashlib.sha256(" ".join(words).encode()).hexdigest()
    if found != sha256:
        raise DataError(
            f"{path}: expected Mikolov's words with sha256 {sha256}, got {len(words)} words with {found}; "
            "copy it again, or train on it as a text of your own (--set data.name=text)"
        )
