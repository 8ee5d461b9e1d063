"""Recurrent layers of different sizes, one on another, with one state."""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from momentumrnn.tasks.dropouts import locked_dropout

State = tuple[Tensor, ...]


class LayerStack(nn.Module):
    """One-directional recurrent layers, each reading what the one below says.

    A layer with a rule is one with ``carry_momentum=True``: then the state is all there is to go on with.

    Args:
        layers: From the lowest; each of one layer, (T, B, d) → (T, B, h) and a state.
        dropout: Between two of them, the same for all time steps.
    """

    def __init__(self, layers: Sequence[nn.Module], dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = dropout

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run over a piece of some sequences.

        Args:
            inputs: (T, B, d).
            state: After the piece before; ``None`` where sequences begin.

        Returns:
            (T, B, h) of the last layer, and the state: the tensors of the lowest layer's state, then those
            of the next.
        """
        reached: list[Tensor] = []
        taken = 0
        for index, layer in enumerate(self.layers):
            if index:
                inputs = locked_dropout(inputs, self.dropout, self.training)
            given = None
            if state is not None:
                size = _state_size(layer)
                given = _nested(layer, state[taken : taken + size])
                taken += size
            inputs, after = layer(inputs, given)
            reached.extend(_flat(layer, after))
        return inputs, tuple(reached)


def _state_size(layer: Any) -> int:
    momentum = len(layer.rule.state_type._fields) if layer.carry_momentum else 0
    return len(layer.state_names) + momentum


def _flat(layer: Any, state: Any) -> State:
    if not layer.carry_momentum:
        return state if isinstance(state, tuple) else (state,)
    *states, momentum = state
    return (*states, *momentum)


def _nested(layer: Any, tensors: State) -> Any:
    count = len(layer.state_names)
    if layer.carry_momentum:
        return (*tensors[:count], layer.rule.state_type(*tensors[count:]))
    return tensors if count > 1 else cast(Any, tensors[0])
