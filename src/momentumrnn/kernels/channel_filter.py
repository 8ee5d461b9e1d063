"""A linear rule whose coefficients differ from channel to channel, with the drive that it acts on.

    a_t = W x_t + b,        u_t = μ u_{t-1} + a_t,        d_t = e a_t + Re(c u_t)

μ, c and u are real or complex.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from momentumrnn.kernels import adaptive_operator, dispatch
from momentumrnn.kernels.adaptive import AdaptiveRule
from momentumrnn.kernels.adaptive_operator import RuleInputs
from momentumrnn.kernels.channel_scan import channel_scan
from momentumrnn.kernels.operands import wide_dtype
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.rules.scan import without_autocast

__all__ = ["channel_filter", "channel_filter_in_torch"]

_filter = AdaptiveRule("channel_filter", adaptive_operator.forward, adaptive_operator.backward)


def channel_filter(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    coefficients: Tensor,
    initial: Tensor | None,
    packed: PackedRows | None,
) -> tuple[Tensor, Tensor, RuleInputs | None]:
    """Run the filter, in C++ where that can run.

    Args:
        x: (T, B, d), or the rows (N, d) of a packed batch.
        weight: W, (C, d), or ``None`` where x is the drive itself.
        bias: b, (C,) or ``None``.
        coefficients: (3, C): μ, c and e; or (5, C) where they are complex: Re μ, Im μ, Re c, Im c and e.
        initial: u before the first step, (1, B, C), or its real and its imaginary part, (2, B, C); ``None``
            for zero.
        packed: the packed batch's places.

    Returns:
        d, (T, B, C) or (N, C), in x's dtype; u after each sequence's own last step, in the form of
        ``initial`` and in float32 at least; and what d was made of, for a backend that makes it again instead
        of keeping it, ``None`` where that cannot be done.
    """
    if not dispatch.runs_rules(x):
        return *channel_filter_in_torch(x, weight, bias, coefficients, initial, packed), None
    wide = wide_dtype(x.dtype)
    u_0 = (None,) if initial is None else initial.to(wide).unbind()
    sizes = None if packed is None else packed.batch_sizes
    inputs = RuleInputs(
        x, weight, bias, coefficients.to(wide), 0.0, u_0[0], u_0[-1] if len(u_0) > 1 else None, sizes
    )
    d, *last = _filter.run(inputs)
    return d, torch.stack(last[: inputs.states]), inputs


def channel_filter_in_torch(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    coefficients: Tensor,
    initial: Tensor | None,
    packed: PackedRows | None,
) -> tuple[Tensor, Tensor]:
    """Run the filter by torch's operators, which can be differentiated any number of times.

    Arguments and results are the first of ``channel_filter``.
    """
    drive = x if weight is None else F.linear(x, weight, bias)
    wide = torch.promote_types(x.dtype, torch.float32)
    with without_autocast(x.device):
        u_0 = (None, None) if initial is None else initial.to(wide).unbind()
        d, last = channel_scan(drive.to(wide), coefficients.to(wide), u_0, packed)
        return d.to(x.dtype), torch.stack(last)
