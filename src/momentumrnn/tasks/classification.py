"""Classifying a sequence by the last hidden state of a recurrent layer."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F


class SequenceClassifier(nn.Module):
    """A recurrent layer read out at its last step by a linear head.

    Args:
        layer: A one-directional recurrent layer, (T, B, d) → (T, B, h) and a state.
        hidden_size: h.
        classes: How many classes.
    """

    def __init__(self, layer: nn.Module, hidden_size: int, classes: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(hidden_size, classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Score the classes.

        Args:
            inputs: (T, B, d).

        Returns:
            Logits (B, classes).
        """
        output, _ = self.layer(inputs)
        return cast(Tensor, self.head(output[-1]))


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross entropy of a batch.

    Args:
        logits: (B, classes).
        labels: (B,).
    """
    return F.cross_entropy(logits, labels)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many of a batch are classified right, as a tensor that stays on the device.

    Args:
        logits: (B, classes).
        labels: (B,).
    """
    return (logits.argmax(dim=1) == labels).sum()
