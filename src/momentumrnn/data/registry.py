"""The datasets by name."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from momentumrnn.data import mnist
from momentumrnn.data.digits import load_digits
from momentumrnn.data.sequences import Splits
from momentumrnn.errors import DataError

Load = Callable[[Path, int | None, int], Splits]


@dataclass(frozen=True)
class Dataset:
    """A dataset, known before it is read.

    Attributes:
        name: Its name in recipes and on the command line.
        summary: What it is, in a line.
        origin: How to get it.
        features: d, the values per time step.
        classes: How many classes.
        load: Reads it: (data folder, validation size or None for the default, seed) → splits.
        check: Reads everything and says what was found.
        fetch: Downloads it into a data folder; ``None`` where there is nothing to download.
        takes_validation: Whether the size of the validation split can be chosen.
    """

    name: str
    summary: str
    origin: str
    features: int
    classes: int
    load: Load
    check: Callable[[Path], str]
    fetch: Callable[[Path], list[Path]] | None
    takes_validation: bool


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


_FETCHED = "`momentumrnn data fetch mnist`, or mnist/*-ubyte[.gz] in the data folder"

DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="digits",
            summary="1,797 handwritten digits of 8 × 8 pixels, read pixel by pixel (T = 64)",
            origin="ships with scikit-learn",
            features=1,
            classes=10,
            load=_load_digits,
            check=_check_digits,
            fetch=None,
            takes_validation=False,
        ),
        Dataset(
            name="mnist",
            summary="70,000 handwritten digits of 28 × 28 pixels, read pixel by pixel (T = 784)",
            origin=_FETCHED,
            features=1,
            classes=10,
            load=_load_mnist,
            check=mnist.check_mnist,
            fetch=mnist.fetch_mnist,
            takes_validation=True,
        ),
        Dataset(
            name="pmnist",
            summary="MNIST with its pixels in one random order per seed (T = 784)",
            origin=_FETCHED,
            features=1,
            classes=10,
            load=_load_pmnist,
            check=mnist.check_mnist,
            fetch=mnist.fetch_mnist,
            takes_validation=True,
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
    near = difflib.get_close_matches(name, DATASETS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(DATASETS)}"
    raise DataError(f"there is no dataset {name!r}: {hint}")
