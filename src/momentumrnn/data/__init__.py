"""The datasets: where they are looked for, how they are fetched, read, checked and split."""

from momentumrnn.data.folder import data_folder
from momentumrnn.data.registry import DATASETS, Dataset, find_dataset
from momentumrnn.data.sequences import LabelledSequences, Splits

__all__ = ["DATASETS", "Dataset", "LabelledSequences", "Splits", "data_folder", "find_dataset"]
