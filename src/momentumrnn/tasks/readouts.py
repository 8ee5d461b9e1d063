"""Linear heads on recurrent layers: read out at the last step, or at every step."""

from typing import cast

from torch import Tensor, nn


class LastStepReadout(nn.Module):
    """A recurrent layer read out at its last step.

    Args:
        layer: A one-directional recurrent layer, (T, B, d) → (T, B, h) and a state.
        hidden_size: h.
        outputs: How many numbers are read out.
    """

    def __init__(self, layer: nn.Module, hidden_size: int, outputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(hidden_size, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Read a batch of sequences.

        Args:
            inputs: (T, B, d).

        Returns:
            (B, outputs).
        """
        states, _ = self.layer(inputs)
        return cast(Tensor, self.head(states[-1]))


class EveryStepReadout(nn.Module):
    """A recurrent layer read out at every step.

    Args:
        layer: A one-directional recurrent layer, (T, B, d) → (T, B, h) and a state.
        hidden_size: h.
        outputs: How many numbers are read out at a step.
    """

    def __init__(self, layer: nn.Module, hidden_size: int, outputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(hidden_size, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Read a batch of sequences.

        Args:
            inputs: (T, B, d).

        Returns:
            (T, B, outputs); what is said at a step depends on that step and those before it.
        """
        states, _ = self.layer(inputs)
        return cast(Tensor, self.head(states))
