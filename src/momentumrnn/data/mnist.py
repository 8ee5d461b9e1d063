"""MNIST as sequences of 784 pixels, in reading order or in one fixed random order."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from momentumrnn.data.fetch import fetch_files
from momentumrnn.data.idx import read_idx, read_idx_and_sha256
from momentumrnn.data.sequences import LabelledSequences, Splits
from momentumrnn.errors import DataError, DataMissingError

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
# Of the decompressed contents: copies differ in how they were compressed.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
VALIDATION_SIZE = 5_000
COUNTS, PIXELS = {"train": 60_000, "t10k": 10_000}, 28 * 28


def load_mnist(folder: Path, validation: int = VALIDATION_SIZE) -> Splits:
    """Read MNIST row by row: T = 784, values in [0, 1].

    Checksums tell a damaged file from another dataset. Where one to three of the four files are not MNIST's,
    they are damaged, and that is an error; where none is, they are another dataset in its form, such as
    Fashion-MNIST, and a warning says so.

    Args:
        folder: The data folder; the four files are in its folder ``mnist``, ``.gz`` or plain.
        validation: How many training images, the last ones, are held out; 0 trains on all of them.

    Raises:
        DataMissingError: A file is not there.
        DataError: A file is damaged.
    """
    found: dict[Path, str] = {}
    train = _read_part(folder, "train", found)
    test = _read_part(folder, "t10k", found)
    _check_contents(found)
    if not 0 <= validation < len(train):
        raise DataError(f"mnist: expected 0 to {len(train) - 1} validation images, got {validation}")
    kept = len(train) - validation
    held_out = train.select(slice(kept, None)) if validation else None
    return Splits(train.select(slice(kept)), held_out, test)


def load_pmnist(folder: Path, validation: int = VALIDATION_SIZE, seed: int = 0) -> Splits:
    """Read permuted MNIST: the pixels in one random order, the same for every image.

    Args:
        folder: The data folder.
        validation: How many training images are held out.
        seed: Which order.
    """
    return load_mnist(folder, validation).permute_time(seed)


def fetch_mnist(folder: Path) -> list[Path]:
    """Download the four files, unless they are there.

    Args:
        folder: The data folder.
    """
    files = {f"{name}.gz": sha256 for name, sha256 in SHA256.items()}
    return fetch_files(files, MIRRORS, folder / "mnist")


def check_mnist(folder: Path) -> str:
    """Read all four files and compare their checksums.

    Args:
        folder: The data folder.

    Returns:
        A line that says what was found.
    """
    for name, sha256 in SHA256.items():
        path = _find(folder, name)
        count = COUNTS[name.partition("-")[0]]
        dimensions, most = (3, count * PIXELS) if "images" in name else (1, count)
        read_idx(path, dimensions, sha256, most)
    splits = load_mnist(folder, validation=0)
    return f"{len(splits.train)} training and {len(splits.test)} test images in {folder / 'mnist'}"


def _find(folder: Path, name: str) -> Path:
    candidates = [folder / "mnist" / f"{name}.gz", folder / "mnist" / name]
    for path in candidates:
        if path.exists():
            return path
    raise DataMissingError(
        f"MNIST: {name} was not found; looked for {candidates[0]} and {candidates[1]}. Get it with "
        "`momentumrnn data fetch mnist`, or name the folder that holds mnist/ with --data-folder or the "
        "environment variable MOMENTUMRNN_DATA"
    )


def _check_contents(found: Mapping[Path, str]) -> None:
    expected = {path: SHA256[path.name.removesuffix(".gz")] for path in found}
    others = [path for path, sha256 in found.items() if sha256 != expected[path]]
    if len(others) == len(found):
        warnings.warn(
            f"{others[0].parent}: by their checksums none of the files is MNIST's; they are used as another "
            "dataset in its form. If they should be MNIST, delete them, and get them with `momentumrnn data "
            "fetch mnist`",
            stacklevel=3,
        )
    elif others:
        raise DataError(
            f"{others[0]}: expected contents with sha256 {expected[others[0]]}, got {found[others[0]]}: it "
            "is damaged, or of another dataset than the files beside it; delete it, and get it again with "
            "`momentumrnn data fetch mnist`"
        )


def _read_part(folder: Path, part: str, found: dict[Path, str]) -> LabelledSequences:
    # Both are looked for before either is read, so that a missing one is known at once.
    images_path = _find(folder, f"{part}-images-idx3-ubyte")
    labels_path = _find(folder, f"{part}-labels-idx1-ubyte")
    count = COUNTS[part]
    images, found[images_path] = read_idx_and_sha256(images_path, 3, count * PIXELS)
    labels, found[labels_path] = read_idx_and_sha256(labels_path, 1, count)
    if len(images) != len(labels):
        raise DataError(
            f"{images_path}: expected as many images as {labels_path} has labels, got {len(images)} images "
            f"and {len(labels)} labels; delete both and fetch them again"
        )
    if len(labels) and int(labels.max()) > 9:
        raise DataError(
            f"{labels_path}: expected labels from 0 to 9, got {int(labels.max())}; "
            "delete it and fetch it again"
        )
    if images.shape[1:] != (28, 28) or len(images) != count:
        raise DataError(
            f"{images_path}: expected {count} images of 28 × 28, got {len(images)} of "
            f"{images.shape[1]} × {images.shape[2]}; delete it and fetch it again"
        )
    return LabelledSequences(images.flatten(1), labels.long(), classes=10, scale=255.0, name=str(images_path))
