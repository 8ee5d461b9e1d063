"""Words and their numbers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from momentumrnn.errors import DataError
from momentumrnn.nearest import did_you_mean

# Stands for every word that is not in the vocabulary, and at the end of every line.
UNKNOWN, END = "<unk>", "<eos>"


@dataclass(frozen=True)
class Vocabulary:
    """The words a model knows; a word's number is its place.

    Attributes:
        words: ``<unk>`` and ``<eos>`` first.

    >>> vocabulary = Vocabulary.of("the cat saw the dog <eos>".split(), size=4, source="a text")
    >>> vocabulary.words
    ('<unk>', '<eos>', 'the', 'cat')
    >>> vocabulary.encode("the dog sleeps <eos>".split())
    tensor([2, 0, 0, 1])
    """

    words: tuple[str, ...]

    @staticmethod
    def of(words: Iterable[str], size: int, source: str) -> "Vocabulary":
        """The most frequent words of a text; of two as frequent ones, the first in the alphabet.

        Args:
            words: The text.
            size: How many words to know, ``<unk>`` and ``<eos>`` included.
            source: What the text is, for error messages.

        Raises:
            DataError: It holds fewer.
        """
        counts = Counter(words)
        for special in (UNKNOWN, END):
            counts.pop(special, None)
        if len(counts) + 2 < size:
            raise DataError(
                f"{source}: expected {size} different words, {UNKNOWN} and {END} included, got "
                f"{len(counts) + 2}; set data.vocabulary to that or to less"
            )
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return Vocabulary((UNKNOWN, END, *ordered[: size - 2]))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Word → its number."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, words: Iterable[str]) -> Tensor:
        """The numbers of words, (N,), int64; unknown ones have that of ``<unk>``.

        Args:
            words: A text.
        """
        known, unknown = self.numbers, self.numbers[UNKNOWN]
        return torch.tensor([known.get(word, unknown) for word in words], dtype=torch.int64)

    def number(self, word: str) -> int:
        """The number of a word that must be known.

        Args:
            word: The word.

        Raises:
            DataError: It is not; the message names the nearest.
        """
        if word in self.numbers:
            return self.numbers[word]
        hint = did_you_mean(word, self.words, f"{UNKNOWN} stands for words it does not know")
        raise DataError(f"the vocabulary of {len(self)} words does not hold {word!r}{hint}")
