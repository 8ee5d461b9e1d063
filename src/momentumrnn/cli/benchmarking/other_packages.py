"""Layers of other packages, as a benchmark builds them."""

import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def peephole_lstm(features: int, hidden: int) -> nn.Module:
    """The cell of torchrecurrent that is the nearest to an LSTM.

    Args:
        features: d.
        hidden: h.
    """
    layers: Any = importlib.import_module("torchrecurrent")
    layer: nn.Module = layers.PeepholeLSTM(features, hidden)
    return layer


class FlashLSTM(nn.Module):
    """An LSTM from zero states, its recurrence by the package flashrnn.

    In float64, and on a CPU, it is that package's Python loop, which is there to compare with.

    Args:
        features: d.
        hidden: h.

    Attributes:
        like: The layer of torch.nn that it computes, and whose weights are its own.
    """

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.like = nn.LSTM(features, hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the layer.

        Args:
            x: (T, B, d).

        Returns:
            All h_t, (T, B, h), and the last states of the package.
        """
        package: Any = importlib.import_module("flashrnn")
        weight_ih, weight_hh, bias_ih, bias_hh = self.like.all_weights[0]
        # By gates and heads, of which there is one.
        hidden = self.like.hidden_size
        gates = F.linear(x, weight_ih, bias_ih).unflatten(-1, (4, 1, hidden))
        fused = gates.is_cuda and gates.dtype is not torch.float64
        states, last = package.flashrnn(
            gates.transpose(0, 1),
            weight_hh.to(gates.dtype).view(4, 1, hidden, hidden),
            bias_hh.to(gates.dtype).view(4, 1, hidden),
            function="lstm",
            backend="cuda_fused" if fused else "vanilla",
            dtype=str(gates.dtype).removeprefix("torch."),
        )
        return states[0].squeeze(2).transpose(0, 1), last
