"""A language model: words in, and at each step a score for every word that may follow."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from momentumrnn.tasks.contract import Continued
from momentumrnn.tasks.dropouts import locked_dropout, word_dropout
from momentumrnn.tasks.stack import LayerStack, State

START_BOUND = 0.1


@dataclass(frozen=True)
class Dropouts:
    """What is dropped in training, beside what layers drop themselves.

    Attributes:
        word: Whole words, each at all its places in a batch.
        embedding: Features of the embedded words, the same at all time steps.
        output: Features of what the last layer says, the same at all time steps.
    """

    word: float = 0.0
    embedding: float = 0.0
    output: float = 0.0


class LanguageOutputs(NamedTuple):
    """What a language model says.

    Attributes:
        logits: (T, B, V).
        last: What the last layer says, (T, B, h).
        dropped: The same behind its dropout.
    """

    logits: Tensor
    last: Tensor
    dropped: Tensor


class LanguageModel(nn.Module):
    """Embedding, recurrent layers, and a linear decoder, whose weight may be the embedding's.

    Embedding and decoder start from U[−0.1, 0.1], the decoder's bias from zero.

    Args:
        layer: The recurrent layers.
        vocabulary: V.
        embedding_size: Features of an embedded word.
        last_size: h of the last layer; ``embedding_size`` where ``tied``.
        tied: Whether embedding and decoder share their weight.
        dropouts: What is dropped in training.
    """

    def __init__(
        self,
        layer: LayerStack,
        vocabulary: int,
        embedding_size: int,
        last_size: int,
        tied: bool = True,
        dropouts: Dropouts | None = None,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding_size)
        self.layer = layer
        self.head = nn.Linear(last_size, vocabulary)
        self.dropouts = dropouts or Dropouts()
        nn.init.uniform_(self.embedding.weight, -START_BOUND, START_BOUND)
        nn.init.zeros_(self.head.bias)
        if tied:
            self.head.weight = self.embedding.weight
        else:
            nn.init.uniform_(self.head.weight, -START_BOUND, START_BOUND)

    def forward(self, words: Tensor, state: State | None = None) -> Continued:
        """Read a piece of some texts.

        Args:
            words: Their numbers, (T, B).
            state: After the piece before; ``None`` where texts begin.

        Returns:
            ``LanguageOutputs``, and the state to go on with.
        """
        embedded = self.embedding(words)
        if self.training and self.dropouts.word:
            embedded = embedded * word_dropout(words, self.embedding.num_embeddings, self.dropouts.word)
        embedded = locked_dropout(embedded, self.dropouts.embedding, self.training)
        last, state = self.layer(embedded, state)
        dropped = locked_dropout(last, self.dropouts.output, self.training)
        return Continued(LanguageOutputs(self.head(dropped), last, dropped), state)
