"""The paper's names: a layer and a rule in one, with the rule's arguments by keyword.

The defaults are the coefficients of the paper's permuted MNIST runs, its longest benchmark; where it has
none, those of the nearest: MomentumLSTM's for MomentumRNN and MomentumGRU, SRLSTM's step size for NAGLSTM.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Unpack

from torch import nn

from momentumrnn import rules
from momentumrnn.layers.arguments import GRUArguments, LSTMArguments, RNNArguments, passes_on
from momentumrnn.layers.gru import GRU
from momentumrnn.layers.lstm import LSTM
from momentumrnn.layers.rnn import RNN
from momentumrnn.nearest import did_you_mean
from momentumrnn.rules.base import Learnable, Velocity

__all__ = [
    "NAGLSTM",
    "SRLSTM",
    "AdamLSTM",
    "MomentumGRU",
    "MomentumLSTM",
    "MomentumRNN",
    "RMSPropLSTM",
    "check_names",
]


@passes_on("rule")
class MomentumRNN(RNN):
    r"""A ``momentumrnn.RNN`` with heavy-ball momentum, (9): v_t = μ v_{t-1} + s (W x_t + b).

    Args:
        *args: those of ``momentumrnn.RNN``.
        momentum: μ in [0, 1), above 0 where learned.
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``, ``True`` or ``"channel"``.
        **kwargs: those of ``momentumrnn.RNN``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import MomentumRNN
        >>> output, h_n = MomentumRNN(10, 20, momentum=0.6, step_size=0.6)(torch.randn(5, 3, 10))
    """

    def __init__(
        self,
        *args: Any,
        momentum: float = 0.6,
        step_size: float = 1.0,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        **kwargs: Unpack[RNNArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.HeavyBall(momentum, step_size, velocity=velocity, learnable=learnable)
        super().__init__(*args, rule=rule, **kwargs)


@passes_on("rule")
class MomentumGRU(GRU):
    r"""A ``momentumrnn.GRU`` with heavy-ball momentum, (9): v_t = μ v_{t-1} + s (W x_t + b).

    Args:
        *args: those of ``momentumrnn.GRU``.
        momentum: μ in [0, 1), above 0 where learned.
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``, ``True`` or ``"channel"``.
        **kwargs: those of ``momentumrnn.GRU``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import MomentumGRU
        >>> output, h_n = MomentumGRU(10, 20, momentum=0.6, step_size=0.6)(torch.randn(5, 3, 10))
    """

    def __init__(
        self,
        *args: Any,
        momentum: float = 0.6,
        step_size: float = 1.0,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        **kwargs: Unpack[GRUArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.HeavyBall(momentum, step_size, velocity=velocity, learnable=learnable)
        super().__init__(*args, rule=rule, **kwargs)


@passes_on("rule")
class MomentumLSTM(LSTM):
    r"""A ``momentumrnn.LSTM`` with heavy-ball momentum, (9): v_t = μ v_{t-1} + s (W x_t + b).

    Args:
        *args: those of ``momentumrnn.LSTM``.
        momentum: μ in [0, 1), above 0 where learned.
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``, ``True`` or ``"channel"``.
        **kwargs: those of ``momentumrnn.LSTM``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import MomentumLSTM
        >>> layer = MomentumLSTM(64, 256, momentum=0.6, step_size=0.6)
        >>> output, (h_n, c_n) = layer(torch.randn(5, 3, 64))
    """

    def __init__(
        self,
        *args: Any,
        momentum: float = 0.6,
        step_size: float = 1.0,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        **kwargs: Unpack[LSTMArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.HeavyBall(momentum, step_size, velocity=velocity, learnable=learnable)
        super().__init__(*args, rule=rule, **kwargs)


@passes_on("rule")
class NAGLSTM(LSTM):
    r"""A ``momentumrnn.LSTM`` with Nesterov momentum, §2.4: μ_k = k/(k + 3).

    Args:
        *args: those of ``momentumrnn.LSTM``.
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.Nesterov``.
        learnable: ``False``, ``True`` or ``"channel"``.
        **kwargs: those of ``momentumrnn.LSTM``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import NAGLSTM
        >>> output, (h_n, c_n) = NAGLSTM(64, 256, step_size=0.9)(torch.randn(5, 3, 64))
    """

    def __init__(
        self,
        *args: Any,
        step_size: float = 0.9,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        **kwargs: Unpack[LSTMArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.Nesterov(step_size, velocity=velocity, learnable=learnable)
        super().__init__(*args, rule=rule, **kwargs)


@passes_on("rule")
class SRLSTM(LSTM):
    r"""A ``momentumrnn.LSTM`` with Nesterov momentum restarted every F steps, §2.4.

    Args:
        *args: those of ``momentumrnn.LSTM``.
        restart: F, at least 1.
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.ScheduledRestart``.
        learnable: ``False``, ``True`` or ``"channel"``.
        **kwargs: those of ``momentumrnn.LSTM``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import SRLSTM
        >>> output, (h_n, c_n) = SRLSTM(64, 256, restart=2, step_size=1.0)(torch.randn(5, 3, 64))
    """

    def __init__(
        self,
        *args: Any,
        restart: int = 40,
        step_size: float = 0.9,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        **kwargs: Unpack[LSTMArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.ScheduledRestart(restart, step_size, velocity=velocity, learnable=learnable)
        super().__init__(*args, rule=rule, **kwargs)


@passes_on("rule")
class AdamLSTM(LSTM):
    r"""A ``momentumrnn.LSTM`` with Adam's rule, (15).

    Args:
        *args: those of ``momentumrnn.LSTM``.
        momentum: μ in [0, 1), above 0 where learned.
        step_size: s > 0.
        beta: β in [0, 1), above 0 where learned.
        eps: ε, 2⁻⁶³ or more.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.Adam``.
        learnable: ``False``, ``True`` or ``"channel"``.
        **kwargs: those of ``momentumrnn.LSTM``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import AdamLSTM
        >>> layer = AdamLSTM(64, 256, momentum=0.6, step_size=1.0, beta=0.01)
        >>> output, (h_n, c_n) = layer(torch.randn(5, 3, 64))
    """

    def __init__(
        self,
        *args: Any,
        momentum: float = 0.6,
        step_size: float = 1.0,
        beta: float = 0.01,
        eps: float = 1e-8,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        **kwargs: Unpack[LSTMArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.Adam(momentum, step_size, beta, eps, velocity=velocity, learnable=learnable)
        super().__init__(*args, rule=rule, **kwargs)


@passes_on("rule")
class RMSPropLSTM(LSTM):
    r"""A ``momentumrnn.LSTM`` with RMSProp's rule, §2.4: Adam's with μ = 0.

    Args:
        *args: those of ``momentumrnn.LSTM``.
        step_size: s > 0.
        beta: β in [0, 1), above 0 where learned.
        eps: ε, 2⁻⁶³ or more.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.RMSProp``.
        learnable: ``False``, ``True`` or ``"channel"``.
        **kwargs: those of ``momentumrnn.LSTM``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import RMSPropLSTM
        >>> layer = RMSPropLSTM(64, 256, step_size=1.0, beta=0.01)
        >>> output, (h_n, c_n) = layer(torch.randn(5, 3, 64))
    """

    def __init__(
        self,
        *args: Any,
        step_size: float = 1.0,
        beta: float = 0.01,
        eps: float = 1e-8,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        **kwargs: Unpack[LSTMArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.RMSProp(step_size, beta, eps, velocity=velocity, learnable=learnable)
        super().__init__(*args, rule=rule, **kwargs)


# How the paper writes what is an argument here.
_SYMBOLS = {
    "mu": "momentum",
    "μ": "momentum",
    "s": "step_size",
    "β": "beta",
    "b": "beta",
    "ε": "eps",
    "epsilon": "eps",
    "F": "restart",
    "T": "restart",
    "K": "rebase_every",
}


def check_names(layer: nn.Module, kwargs: Mapping[str, object]) -> None:
    """Raise ``TypeError`` for an argument that a named layer does not have, such as a rule beside its own."""
    owner = type(layer).__name__
    if "rule" in kwargs:
        raise TypeError(
            f"{owner} has a rule of its own and takes its arguments by keyword; "
            "for another rule use RNN, LSTM, GRU or OrthogonalRNN with rule=..."
        )
    # Not a subclass of the user's, which may hand on what it likes.
    named = next(kind for kind in type(layer).__mro__ if kind.__module__.startswith(__name__))
    known = list(inspect.signature(named).parameters)
    for name in kwargs:
        if name not in known:
            hint = did_you_mean(_SYMBOLS.get(name, name), known, f"it takes {', '.join(known)}", before="; ")
            raise TypeError(f"{owner}: unexpected argument {name!r}{hint}")
