"""The datasets: where they are looked for, how they are fetched, read, checked and split, or drawn."""

from momentumrnn.data.folder import data_folder
from momentumrnn.data.registry import DATASETS, Dataset, find_dataset
from momentumrnn.data.sequences import LabelledSequences, Splits
from momentumrnn.data.speech import SpeechSplits, Utterances
from momentumrnn.data.text import TextSplits, Vocabulary

__all__ = [
    "DATASETS",
    "Dataset",
    "LabelledSequences",
    "SpeechSplits",
    "Splits",
    "TextSplits",
    "Utterances",
    "Vocabulary",
    "data_folder",
    "find_dataset",
]
