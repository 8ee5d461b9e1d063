"""Linear heads on recurrent layers: read out at the last step, or at every step."""

from typing import cast

from torch import Tensor, nn


class _Readout(nn.Module):
    """A recurrent layer with a linear head.

    Args:
        layer: A one-directional recurrent layer, (T, B, d) → (T, B, h) and a state.
        hidden_size: h.
        outputs: How many numbers are read out at a step.
    """

    def __init__(self, layer: nn.Module, hidden_size: int, outputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(hidden_size, outputs)


class LastStepReadout(_Readout):
    """A recurrent layer read out at its last step."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Read a batch of sequences.

        Args:
            inputs: (T, B, d).

        Returns:
            (B, outputs).
        """
        states, _ = self.layer(inputs)
        return cast(Tensor, self.head(states[-1]))


class EveryStepReadout(_Readout):
    """A recurrent layer read out at every step."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Read a batch of sequences.

        Args:
            inputs: (T, B, d).

        Returns:
            (T, B, outputs); what is said at a step depends on that step and those before it.
        """
        states, _ = self.layer(inputs)
        return cast(Tensor, self.head(states))
