"""Recurrent networks with momentum, for PyTorch.

Read the input as a gradient step on the hidden state and give that step the momentum that
optimizers use. ``momentumrnn.LSTM``, ``GRU`` and ``RNN`` are drop-ins for those of ``torch.nn``, with
a rule of ``momentumrnn.rules`` on their input.

Example:
    >>> import torch
    >>> from momentumrnn import LSTM, rules
    >>> layer = LSTM(64, 256, batch_first=True, rule=rules.HeavyBall(momentum=0.6, step_size=0.6))
    >>> output, (h_n, c_n) = layer(torch.randn(8, 100, 64))
    >>> output.shape
    torch.Size([8, 100, 256])
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from momentumrnn._startup import is_command_line

if TYPE_CHECKING or not is_command_line():
    from momentumrnn import errors, rules
    from momentumrnn.kernels import backend
    from momentumrnn.layers import (
        DTRIV,
        GRU,
        LSTM,
        NAGLSTM,
        RNN,
        SRDTRIV,
        SRLSTM,
        AdamDTRIV,
        AdamLSTM,
        ExpRNN,
        GRUCell,
        LSTMCell,
        MomentumDTRIV,
        MomentumGRU,
        MomentumLSTM,
        MomentumRNN,
        OrthogonalRNN,
        OrthogonalRNNCell,
        RMSPropDTRIV,
        RMSPropLSTM,
        RNNCell,
    )
    from momentumrnn.layers.explain import explain
    from momentumrnn.parametrizations import parameter_groups
else:
    # The command answers --version, --help and a mistyped word without importing torch. Every other program
    # imports all of it at once: loading a compiled or exported layer needs the operators registered.
    def __getattr__(name: str) -> object:
        if name in ("errors", "rules"):
            return import_module(f"{__name__}.{name}")
        for package in ("layers", "kernels", "parametrizations") if name in __all__ else ():
            module = import_module(f"{__name__}.{package}")
            if name in module.__all__:
                return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = version("momentumrnn")

__all__ = [
    "DTRIV",
    "GRU",
    "LSTM",
    "NAGLSTM",
    "RNN",
    "SRDTRIV",
    "SRLSTM",
    "AdamDTRIV",
    "AdamLSTM",
    "ExpRNN",
    "GRUCell",
    "LSTMCell",
    "MomentumDTRIV",
    "MomentumGRU",
    "MomentumLSTM",
    "MomentumRNN",
    "OrthogonalRNN",
    "OrthogonalRNNCell",
    "RMSPropDTRIV",
    "RMSPropLSTM",
    "RNNCell",
    "__version__",
    "backend",
    "errors",
    "explain",
    "parameter_groups",
    "rules",
]
