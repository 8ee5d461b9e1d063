"""The datasets by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from momentumrnn.data import adding, copying, mnist, speech, text
from momentumrnn.data.digits import load_digits
from momentumrnn.data.sequences import Splits
from momentumrnn.data.speech import SpeechSplits
from momentumrnn.data.text import TextSplits
from momentumrnn.errors import DataError
from momentumrnn.nearest import did_you_mean

# (data folder, validation size or None for the default, seed) → splits
Load = Callable[[Path, int | None, int], Splits]
# (data folder, folder of recordings or None where the dataset has one of its own) → splits
LoadSpeech = Callable[[Path, str | None], SpeechSplits]
# (data folder, folder of the files or None where the dataset has one of its own, words to know) → splits
LoadText = Callable[[Path, str | None, int], TextSplits]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset, known before it is read.

    Attributes:
        name: Its name in recipes and on the command line.
        summary: What it is, in a line.
        origin: How to get it.
        features: d, the values per time step.
        check: Reads everything and says what was found.
        fetch: Downloads it into a data folder; ``None`` where there is nothing to download.
        options: The keys of a recipe's section [data] that it takes beside its name → whether it needs them.
    """

    name: str
    summary: str
    origin: str
    features: int
    check: Callable[[Path], str]
    fetch: Callable[[Path], list[Path]] | None = None
    options: ClassVar[dict[str, bool]] = {}


@dataclass(frozen=True, kw_only=True)
class ClassifiedDataset(Dataset):
    """Sequences, each of a class.

    Attributes:
        classes: How many classes.
        length: T, the time steps of each.
        load: Reads it.
        takes_validation: Whether the size of the validation split can be chosen.
    """

    classes: int
    length: int
    load: Load
    takes_validation: bool
    options: ClassVar[dict[str, bool]] = {"validation": False}


@dataclass(frozen=True, kw_only=True)
class SpeechDataset(Dataset):
    """Recordings.

    Attributes:
        load: Reads it.
    """

    load: LoadSpeech


@dataclass(frozen=True, kw_only=True)
class FolderDataset(SpeechDataset):
    """Recordings in a folder that the recipe names."""

    options: ClassVar[dict[str, bool]] = {"folder": True}


@dataclass(frozen=True, kw_only=True)
class TextDataset(Dataset):
    """Text, word by word.

    Attributes:
        load: Reads it.
        words: How many words its vocabulary holds; ``None`` where a recipe says it.
    """

    load: LoadText
    words: int | None


@dataclass(frozen=True, kw_only=True)
class FolderTextDataset(TextDataset):
    """Text in a folder that the recipe names, with a vocabulary of a size that it names."""

    words: int | None = None
    options: ClassVar[dict[str, bool]] = {"folder": True, "vocabulary": True}


@dataclass(frozen=True, kw_only=True)
class DrawnDataset(Dataset):
    """A problem whose sequences are drawn as they are needed.

    Attributes:
        shortest: The smallest T there can be.
    """

    shortest: int
    options: ClassVar[dict[str, bool]] = {"length": True}


def _load_digits(folder: Path, validation: int | None, seed: int) -> Splits:
    return load_digits()


def _check_digits(folder: Path) -> str:
    splits = load_digits()
    sizes = [len(part) for part in (splits.train, splits.validation, splits.test) if part is not None]
    return "{} training, {} validation and {} test images, from scikit-learn".format(*sizes)


def _load_mnist(folder: Path, validation: int | None, seed: int) -> Splits:
    return mnist.load_mnist(folder, mnist.VALIDATION_SIZE if validation is None else validation)


def _load_pmnist(folder: Path, validation: int | None, seed: int) -> Splits:
    return mnist.load_pmnist(folder, mnist.VALIDATION_SIZE if validation is None else validation, seed)


def _described(splits: SpeechSplits) -> str:
    parts = {"training": splits.train, "validation": splits.validation, "test": splits.test}
    told = [
        f"{len(part)} {name} ({part.steps.sum() / 62.5 / 60:.0f} minutes)" for name, part in parts.items()
    ]
    return f"utterances: {', '.join(told)}"


def _check_folder(folder: Path) -> str:
    return "nothing to check by itself: a recipe names the folder"


def _check_drawn(folder: Path) -> str:
    return "nothing to check: drawn as it is needed"


_FETCHED = "`momentumrnn data fetch mnist`, or mnist/*-ubyte[.gz] in the data folder"
_DRAWN = "drawn as it is needed"

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        ClassifiedDataset(
            name="digits",
            summary="1,797 handwritten digits of 8 × 8 pixels, read pixel by pixel (T = 64)",
            origin="ships with scikit-learn",
            features=1,
            classes=10,
            length=64,
            load=_load_digits,
            check=_check_digits,
            takes_validation=False,
        ),
        ClassifiedDataset(
            name="mnist",
            summary="70,000 handwritten digits of 28 × 28 pixels, read pixel by pixel (T = 784)",
            origin=_FETCHED,
            features=1,
            classes=10,
            length=784,
            load=_load_mnist,
            check=mnist.check_mnist,
            fetch=mnist.fetch_mnist,
            takes_validation=True,
        ),
        ClassifiedDataset(
            name="pmnist",
            summary="MNIST with its pixels in one random order per seed (T = 784)",
            origin=_FETCHED,
            features=1,
            classes=10,
            length=784,
            load=_load_pmnist,
            check=mnist.check_mnist,
            fetch=mnist.fetch_mnist,
            takes_validation=True,
        ),
        SpeechDataset(
            name="timit",
            summary="TIMIT, read speech, as log-magnitudes at 8 kHz (d = 129)",
            origin="LDC93S1 of the Linguistic Data Consortium, its tree put into the data folder as timit",
            features=speech.FEATURES,
            load=lambda folder, _: speech.load_timit(folder),
            check=lambda folder: _described(speech.load_timit(folder)),
        ),
        SpeechDataset(
            name="prompts",
            summary="558 English telephone prompts, as log-magnitudes at 8 kHz (d = 129)",
            origin="Debian's asterisk-core-sounds-en-wav, unpacked into the data folder's speech/asterisk-en",
            features=speech.FEATURES,
            load=lambda folder, _: speech.load_prompts(folder),
            check=lambda folder: _described(speech.load_prompts(folder)),
        ),
        FolderDataset(
            name="speech",
            summary="any folder of WAV or FLAC files, as log-magnitudes at 8 kHz (d = 129)",
            origin="the folder that a recipe's data.folder names",
            features=speech.FEATURES,
            load=lambda folder, named: speech.load_speech_folder(folder, named or "."),
            check=_check_folder,
        ),
        TextDataset(
            name="ptb",
            summary="the Penn Treebank, a million words of newspaper text, a word a step",
            origin=text.penn.ORIGIN,
            features=1,
            words=text.penn.WORDS,
            load=lambda folder, _, __: text.load_penn(folder),
            check=text.check_penn,
        ),
        FolderTextDataset(
            name="text",
            summary="any text in files for training, validation and test, a word a step",
            origin="train.txt, valid.txt and test.txt in the folder that a recipe's data.folder names",
            features=1,
            load=lambda folder, named, words: text.load_text_folder(folder, named or ".", words),
            check=_check_folder,
        ),
        DrawnDataset(
            name="copying",
            summary="the copying problem: ten symbols, remembered over T steps",
            origin=_DRAWN,
            features=copying.FEATURES,
            check=_check_drawn,
            shortest=1,
        ),
        DrawnDataset(
            name="adding",
            summary="the adding problem: the sum of two marked numbers among T",
            origin=_DRAWN,
            features=adding.FEATURES,
            check=_check_drawn,
            shortest=2,
        ),
    )
}


def find_dataset(name: str) -> Dataset:
    """The dataset of that name.

    Args:
        name: One of ``DATASETS``.

    Raises:
        DataError: There is none; the message names the nearest.
    """
    if name in DATASETS:
        return DATASETS[name]
    hint = did_you_mean(name, DATASETS, f"known are {', '.join(DATASETS)}")
    raise DataError(f"there is no dataset {name!r}{hint}")
