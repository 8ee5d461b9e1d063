"""Text, word by word: a vocabulary, streams of word numbers, and how they are cut into batches."""

from momentumrnn.data.text.files import TextSplits, load_text_folder
from momentumrnn.data.text.penn import check_penn, load_penn
from momentumrnn.data.text.streams import IGNORED, Columns, draw_lengths
from momentumrnn.data.text.vocabulary import END, UNKNOWN, Vocabulary

__all__ = [
    "END",
    "IGNORED",
    "UNKNOWN",
    "Columns",
    "TextSplits",
    "Vocabulary",
    "check_penn",
    "draw_lengths",
    "load_penn",
    "load_text_folder",
]
