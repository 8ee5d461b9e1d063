"""The paper's names of orthogonal layers, with the rule's arguments by keyword.

The defaults are the coefficients of the paper's permuted MNIST runs with 512 hidden units, but for
``rebase_every``, which is infinite there.
"""

from __future__ import annotations

from typing import Any, Unpack

from momentumrnn import rules
from momentumrnn.layers.arguments import OrthogonalArguments, passes_on
from momentumrnn.layers.named import check_names
from momentumrnn.layers.orthogonal import OrthogonalRNN
from momentumrnn.rules.base import Learnable, Velocity

__all__ = ["DTRIV", "SRDTRIV", "AdamDTRIV", "ExpRNN", "MomentumDTRIV", "RMSPropDTRIV"]


@passes_on("rule", "map", "rebase_every")
class ExpRNN(OrthogonalRNN):
    r"""A ``momentumrnn.OrthogonalRNN`` by the matrix exponential with a fixed base: U = B exp(A - Aᵀ).

    Args:
        *args: those of ``momentumrnn.OrthogonalRNN``.
        **kwargs: those of ``momentumrnn.OrthogonalRNN``, but ``map``, ``rebase_every`` and ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import ExpRNN
        >>> output, h_n = ExpRNN(10, 20)(torch.randn(5, 3, 10))
    """

    def __init__(self, *args: Any, **kwargs: Unpack[OrthogonalArguments]) -> None:
        for name in ("map", "rebase_every"):
            if name in kwargs:
                raise TypeError(f"ExpRNN has no argument {name!r}; use OrthogonalRNN or DTRIV, which have")
        check_names(self, kwargs)
        super().__init__(*args, **kwargs)


@passes_on("rule")
class DTRIV(OrthogonalRNN):
    r"""A ``momentumrnn.OrthogonalRNN`` by dynamic trivialization: the base changes every K optimizer steps.

    Args:
        *args: those of ``momentumrnn.OrthogonalRNN``.
        rebase_every: K, optimizer steps from one base to the next; ``math.inf`` for a single change.
        **kwargs: those of ``momentumrnn.OrthogonalRNN``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import DTRIV
        >>> output, h_n = DTRIV(10, 20)(torch.randn(5, 3, 10))
    """

    def __init__(
        self,
        *args: Any,
        rebase_every: float | None = 100,
        **kwargs: Unpack[OrthogonalArguments],
    ) -> None:
        check_names(self, kwargs)
        super().__init__(*args, rebase_every=rebase_every, **kwargs)


@passes_on("rule")
class MomentumDTRIV(OrthogonalRNN):
    r"""A ``momentumrnn.DTRIV`` with heavy-ball momentum, (9): v_t = μ v_{t-1} + s (W x_t + b).

    Args:
        *args: those of ``momentumrnn.OrthogonalRNN``.
        momentum: μ in [0, 1), above 0 where learned.
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.HeavyBall``.
        learnable: ``False``, ``True`` or ``"channel"``.
        rebase_every: K, optimizer steps from one base to the next; ``math.inf`` for a single change.
        **kwargs: those of ``momentumrnn.OrthogonalRNN``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import MomentumDTRIV
        >>> output, h_n = MomentumDTRIV(10, 20, momentum=0.3, step_size=0.3)(torch.randn(5, 3, 10))
    """

    def __init__(
        self,
        *args: Any,
        momentum: float = 0.3,
        step_size: float = 0.3,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        rebase_every: float | None = 100,
        **kwargs: Unpack[OrthogonalArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.HeavyBall(momentum, step_size, velocity=velocity, learnable=learnable)
        super().__init__(*args, rebase_every=rebase_every, rule=rule, **kwargs)


@passes_on("rule")
class AdamDTRIV(OrthogonalRNN):
    r"""A ``momentumrnn.DTRIV`` with Adam's rule, (15).

    Args:
        *args: those of ``momentumrnn.OrthogonalRNN``.
        momentum: μ in [0, 1), above 0 where learned.
        step_size: s > 0.
        beta: β in [0, 1), above 0 where learned.
        eps: ε, 2⁻⁶³ or more.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.Adam``.
        learnable: ``False``, ``True`` or ``"channel"``.
        rebase_every: K, optimizer steps from one base to the next; ``math.inf`` for a single change.
        **kwargs: those of ``momentumrnn.OrthogonalRNN``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import AdamDTRIV
        >>> output, h_n = AdamDTRIV(10, 20, momentum=0.3, step_size=0.3, beta=0.8)(torch.randn(5, 3, 10))
    """

    def __init__(
        self,
        *args: Any,
        momentum: float = 0.3,
        step_size: float = 0.3,
        beta: float = 0.8,
        eps: float = 1e-8,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        rebase_every: float | None = 100,
        **kwargs: Unpack[OrthogonalArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.Adam(momentum, step_size, beta, eps, velocity=velocity, learnable=learnable)
        super().__init__(*args, rebase_every=rebase_every, rule=rule, **kwargs)


@passes_on("rule")
class RMSPropDTRIV(OrthogonalRNN):
    r"""A ``momentumrnn.DTRIV`` with RMSProp's rule, §2.4: Adam's with μ = 0.

    Args:
        *args: those of ``momentumrnn.OrthogonalRNN``.
        step_size: s > 0.
        beta: β in [0, 1), above 0 where learned.
        eps: ε, 2⁻⁶³ or more.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.RMSProp``.
        learnable: ``False``, ``True`` or ``"channel"``.
        rebase_every: K, optimizer steps from one base to the next; ``math.inf`` for a single change.
        **kwargs: those of ``momentumrnn.OrthogonalRNN``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import RMSPropDTRIV
        >>> output, h_n = RMSPropDTRIV(10, 20, step_size=0.3, beta=0.9)(torch.randn(5, 3, 10))
    """

    def __init__(
        self,
        *args: Any,
        step_size: float = 0.3,
        beta: float = 0.9,
        eps: float = 1e-8,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        rebase_every: float | None = 100,
        **kwargs: Unpack[OrthogonalArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.RMSProp(step_size, beta, eps, velocity=velocity, learnable=learnable)
        super().__init__(*args, rebase_every=rebase_every, rule=rule, **kwargs)


@passes_on("rule")
class SRDTRIV(OrthogonalRNN):
    r"""A ``momentumrnn.DTRIV`` with scheduled restart, §2.4: Nesterov's momentum, begun again every F steps.

    Args:
        *args: those of ``momentumrnn.OrthogonalRNN``.
        restart: F, the period, 1 or more.
        step_size: s > 0.
        velocity: ``"gate"`` or ``"hidden"``, see ``momentumrnn.rules.ScheduledRestart``.
        learnable: ``False``, ``True`` or ``"channel"``.
        rebase_every: K, optimizer steps from one base to the next; ``math.inf`` for a single change.
        **kwargs: those of ``momentumrnn.OrthogonalRNN``, but ``rule``.

    Example:
        >>> import torch
        >>> from momentumrnn import SRDTRIV
        >>> output, h_n = SRDTRIV(10, 20, restart=2, step_size=0.3)(torch.randn(5, 3, 10))
    """

    def __init__(
        self,
        *args: Any,
        restart: int = 2,
        step_size: float = 0.3,
        velocity: Velocity = "gate",
        learnable: Learnable = False,
        rebase_every: float | None = 100,
        **kwargs: Unpack[OrthogonalArguments],
    ) -> None:
        check_names(self, kwargs)
        rule = rules.ScheduledRestart(restart, step_size, velocity=velocity, learnable=learnable)
        super().__init__(*args, rebase_every=rebase_every, rule=rule, **kwargs)
