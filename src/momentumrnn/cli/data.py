"""``momentumrnn data``: what there is, what is here, and whether it is whole."""

from pathlib import Path

from momentumrnn.data import DATASETS, data_folder, find_dataset
from momentumrnn.errors import DataError, DataMissingError


def list_datasets(folder: Path | None) -> None:
    """Print every dataset and whether it is here.

    Args:
        folder: The data folder.
    """
    where = data_folder(folder)
    print(f"data folder: {where}")
    for dataset in DATASETS.values():
        try:
            state = dataset.check(where)
        except DataMissingError:
            state = f"not here; to get it: {dataset.origin}"
        except DataError as error:
            state = f"damaged: {error}"
        except OSError as error:
            state = f"cannot be read: {error}"
        print(f"{dataset.name:8} {dataset.summary}\n{'':8} {state}")


def fetch_dataset(name: str, folder: Path | None) -> None:
    """Download a dataset.

    Args:
        name: Which.
        folder: The data folder.

    Raises:
        DataError: There is no such dataset, or it is damaged.
        DataMissingError: It is not here afterwards.
    """
    dataset = find_dataset(name)
    if dataset.fetch is None:
        print(f"{name}: nothing to fetch; {dataset.origin}")
    where = data_folder(folder)
    if dataset.fetch is not None:
        dataset.fetch(where)
    # Also where nothing can be fetched: a script that goes on needs to know whether the data are here.
    print(f"{name}: {dataset.check(where)}")


def check_dataset(name: str, folder: Path | None) -> None:
    """Read a dataset whole.

    Args:
        name: Which.
        folder: The data folder.
    """
    print(f"{name}: {find_dataset(name).check(data_folder(folder))}")
