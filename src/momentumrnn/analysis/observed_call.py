"""One call of a recurrence, opened up so that the gradient of every hidden state can be read off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from momentumrnn.kernels import GateInput

__all__ = ["ObservedCall", "arguments"]


def arguments(
    recurrence: str, args: tuple[Any, ...]
) -> tuple[GateInput, list[Tensor], Tensor, Tensor | None]:
    """Take apart what a recurrence was called with: d, the initial states, U and bias_hh."""
    states = 2 if recurrence == "lstm" else 1
    return args[0], list(args[1 : 1 + states]), args[1 + states], args[2 + states]


class ObservedCall:
    """A call of ``kernels.rnn``, ``gru`` or ``lstm`` by a layer.

    Args:
        recurrence: ``"rnn"``, ``"gru"`` or ``"lstm"``.
        args: what it was called with.
        order: where each sequence of a packed batch stands in the user's order, or ``None``.

    Attributes:
        nodes: d, all h_t and the last h, as places in the graph at which the loss is to be differentiated.
    """

    nodes: tuple[Tensor, Tensor, Tensor]

    def __init__(self, recurrence: str, args: tuple[Any, ...], order: Tensor | None) -> None:
        self._recurrence = recurrence
        self._args = args
        self._order = order

    def run(self, run: Callable[..., Any]) -> tuple[Tensor, ...]:
        """Run the recurrence and return its result."""
        inputs: GateInput = self._args[0]
        d = inputs.multiplied()
        # An alias: a rule's last state may have been computed from the same tensor, and is not to count.
        d = d.view_as(d) if d.requires_grad else d.detach().requires_grad_()
        output, h_n, *rest = run(GateInput(d, packed=inputs.packed), *self._args[1:])
        # In a plain loop the last h is a part of all h_t; as aliases they are told apart.
        output, h_n = output.view_as(output), h_n.view_as(h_n)
        self.nodes = (d, output, h_n)
        # Copies, for a model that writes into what a layer gave it.
        return output.clone(), h_n.clone(), *rest

    def gradients(self, slopes: Sequence[Tensor | None], backwards: bool) -> tuple[Tensor, Tensor]:
        """Return ∂L/∂h_t, (T, B, h), and which sequences run at which step, (T, B).

        Args:
            slopes: the loss's gradients at ``nodes``, ``None`` for zero.
            backwards: whether the sequences were reversed on their way here.
        """
        d, output, _ = self.nodes
        inputs, _, weight, bias = arguments(self._recurrence, self._args)
        packed = inputs.packed
        dtype = torch.promote_types(weight.dtype, torch.float32)
        grad_d, found, grad_h_n = (
            (torch.zeros_like(node) if slope is None else slope).to(dtype)
            for node, slope in zip(self.nodes, slopes, strict=True)
        )
        d, output, weight = d.to(dtype), output.to(dtype), weight.to(dtype)
        if packed is not None:
            # Behind a sequence's end every gradient is zero, and so is all that is computed from them.
            grad_d, found, d, output = (packed.pad(rows) for rows in (grad_d, found, d, output))
        steps, batch = found.shape[:2]
        sequence = torch.arange(batch, device=found.device)
        last = torch.full_like(sequence, steps - 1) if packed is None else packed.lengths - 1
        # Not in place: what autograd hands out may be the caller's own tensor.
        found = found.index_put((last, sequence), grad_h_n, accumulate=True)
        if self._recurrence == "gru":
            bias = None if bias is None else bias.to(dtype)
            found = _through_gru(found, grad_d, d, output, weight, bias)
        else:
            found[:-1] += grad_d[1:] @ weight
        running = torch.arange(steps, device=found.device).unsqueeze(1) <= last
        if backwards:
            found = found.flip(0) if packed is None else packed.pad(packed.reverse(packed.pack(found)))
        if self._order is not None:
            found, running = found.index_select(1, self._order), running.index_select(1, self._order)
        return found, running


def _through_gru(
    found: Tensor, grad_d: Tensor, d: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """Add to ∂L/∂y_t what comes back from the next step, that reads h_t as y_t."""
    rz = 2 * found.shape[-1]
    product = torch.nn.functional.linear(output[:-1], weight[:rz], None if bias is None else bias[:rz])
    r, z = torch.sigmoid(d[1:, :, :rz] + product).chunk(2, dim=-1)
    # ∂L/∂(U h + b): only the candidate's share passes the reset gate.
    slope = torch.cat([grad_d[1:, :, :rz], r * grad_d[1:, :, rz:]], dim=-1)
    found[:-1] += slope @ weight
    for t in range(found.shape[0] - 2, -1, -1):
        found[t].addcmul_(z[t], found[t + 1])
    return found
