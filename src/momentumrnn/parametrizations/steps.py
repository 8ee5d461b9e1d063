"""How many optimizer steps a parameter has seen, whoever the optimizer is.

Counted where torch tells of every ``Optimizer.step``, not in the forward pass: there a step of gradient
accumulation looks like one of the optimizer, and a compiled graph would have nothing to count in.
"""

from __future__ import annotations

from typing import Any, Protocol
from weakref import WeakSet

from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

__all__ = ["follow"]


class Follower(Protocol):
    """Who wants to know of the steps that an optimizer takes with its parameter ``skew``."""

    skew: nn.Parameter

    def after_step(self) -> None:
        """Act after a step."""


_followers: WeakSet[Any] = WeakSet()
_hooked = False


def follow(follower: Follower) -> None:
    """Call ``follower.after_step`` after each optimizer step that may have moved ``follower.skew``."""
    global _hooked
    _followers.add(follower)
    if not _hooked:
        _hooked = True
        register_optimizer_step_post_hook(_after_step)


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    # What a gradient scaler leaves with an optimizer that passes over a step by itself.
    overflown = getattr(optimizer, "found_inf", None)
    if not _followers or (overflown is not None and bool(overflown)):
        return
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for follower in list(_followers):
        # Without a gradient the optimizer has passed it over.
        if id(follower.skew) in held and follower.skew.grad is not None:
            follower.after_step()
