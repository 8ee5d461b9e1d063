"""The gradient of a loss with respect to every hidden state, Fig. 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from momentumrnn.analysis.observed_call import ObservedCall
from momentumrnn.analysis.untouched import untouched
from momentumrnn.analysis.watching import find_layer, find_place, watched
from momentumrnn.errors import DivergedError, InputError

__all__ = ["HiddenGradientNorms", "Reduction", "hidden_gradient_norms", "hidden_gradients"]

Reduction = Literal["batch", "sequence"]


@dataclass(frozen=True)
class HiddenGradientNorms:
    """‖∂L/∂h_t‖₂ for every step and sequence.

    Attributes:
        per_sequence: (T, B), float64 on the CPU. NaN behind the end of a sequence of a packed batch.
        loss: L.
    """

    per_sequence: Tensor
    loss: float

    def reduce(self, reduction: Reduction = "batch") -> Tensor:
        """Return one number a step, (T,).

        Args:
            reduction: ``"batch"``: the norm over the whole (B, h) matrix ∂L/∂h_t, which is that of the
                gradient with respect to all that the batch's state holds, and the one of Fig. 2;
                ``"sequence"``: the mean of the sequences' own norms, over those that run at step t.

        Raises:
            ValueError: another reduction.
        """
        if reduction == "batch":
            # Each is finite, or would have been refused.
            together: Tensor = torch.linalg.vector_norm(self.per_sequence.nan_to_num(0.0), dim=1)
            return together
        if reduction == "sequence":
            return self.per_sequence.nanmean(dim=1)
        raise ValueError(f'expected reduction "batch" or "sequence", got {reduction!r}')


def hidden_gradient_norms(
    model: nn.Module,
    loss: Callable[[], Tensor],
    layer: str | nn.Module | None = None,
    place: str | None = None,
) -> HiddenGradientNorms:
    r"""Return ‖∂L/∂h_t‖₂ for every step t of a recurrent layer inside a model, Fig. 2.

    The derivative is the total one, through all later steps. It needs no loop over time: the ready gate
    inputs d_t are observed on their way into the recurrence, the output y_t = h_t on its way out, and
    where ∂L/∂y_t stands for what leads from y_t to the loss outside the recurrence,

        ∂L/∂h_t = ∂L/∂y_t + Uᵀ ∂L/∂d_{t+1}                                              RNN, LSTM
        ∂L/∂h_t = ∂L/∂y_t + z_{t+1} ⊙ ∂L/∂h_{t+1} + U_rzᵀ ∂L/∂d_{rz,t+1}
                  + U_nᵀ (r_{t+1} ⊙ ∂L/∂d_{n,t+1})                                      GRU

    so it runs on whatever backend the layer runs on. Momentum is part of d_t, which does not depend on the
    hidden state. An LSTM's c_t is held fixed as h_t varies, as automatic differentiation does.

    Parameters, their ``.grad``, buffers, the mode of the model and torch's random state are left as they
    were: the next step of training draws the dropout masks that were drawn here.

    Args:
        model: a model with one of this package's layers or cells, or the layer itself.
        loss: runs the model on a batch and returns L.
        layer: which layer, where there are several: its name in ``model.named_modules()``, or the module.
        place: which of a stacked or bidirectional layer's recurrences: ``"l0"``, ``"l1_reverse"``, as its
            weights are named.

    Returns:
        The norms, (T, B). T counts positions in the input, in both directions; B is 1 where the input was
        unbatched. A layer called several times by one loss (chunks of a sequence, a cell in a loop) counts
        the steps of all calls, in their order.

    Raises:
        ValueError: there is no such layer, several and none was named, or ``loss`` never reaches it.
        InputError: L is not a single number.
        TypeError: ``model`` is no module or L no tensor.
        DivergedError: L or a gradient is not finite.

    Example:
        >>> import torch
        >>> from momentumrnn import MomentumLSTM
        >>> from momentumrnn.analysis import hidden_gradient_norms
        >>> layer, x = MomentumLSTM(3, 8), torch.randn(20, 4, 3)
        >>> found = hidden_gradient_norms(layer, lambda: layer(x)[0][-1].square().mean())
        >>> found.per_sequence.shape, found.reduce("batch").shape
        (torch.Size([20, 4]), torch.Size([20]))
    """
    gradients, value, sequences = hidden_gradients(model, loss, layer, place)
    # In float32 the square of 1e-20 is zero, and vanishing gradients are what this is about.
    norms = torch.linalg.vector_norm(gradients, dim=-1, dtype=torch.float64).cpu()
    broken = (~norms.isfinite()).any(dim=1).nonzero()
    if len(broken):
        raise DivergedError(
            f"hidden_gradient_norms: the gradient is not finite at step {int(broken[-1])} of {len(norms)}; "
            "has the training diverged?"
        )
    return HiddenGradientNorms(norms.masked_fill(~sequences.cpu(), torch.nan), value)


def hidden_gradients(
    model: nn.Module,
    loss: Callable[[], Tensor],
    layer: str | nn.Module | None = None,
    place: str | None = None,
) -> tuple[Tensor, float, Tensor]:
    """Return ∂L/∂h_t itself, (T, B, h), L, and which sequences run at which step, (T, B).

    Arguments and errors as in ``hidden_gradient_norms``, but for gradients that are not finite.
    """
    owner = "hidden_gradient_norms"
    chosen = find_layer(owner, model, layer)
    k, backwards = find_place(owner, chosen, place)
    calls: list[ObservedCall] = []

    def handle(
        run: Callable[..., Any], recurrence: str, args: tuple[Any, ...], order: Tensor | None
    ) -> tuple[Tensor, ...]:
        call = ObservedCall(recurrence, args, order)
        calls.append(call)
        return call.run(run)

    with untouched(model), torch.enable_grad(), watched(chosen, k, handle):
        value = _checked(owner, loss())
        # A copy: what is checkpointed runs again in the backward pass, before this very observer.
        seen = list(calls)
        if not seen:
            raise ValueError(f"{owner}: the loss never ran the {type(chosen).__name__} it is to be about")
        slopes = _slopes(value, [node for call in seen for node in call.nodes])
    if all(slope is None for slope in slopes):
        raise ValueError(
            f"{owner}: the loss does not depend on what the {type(chosen).__name__} returned; was it "
            "computed under torch.no_grad() or from a detached tensor?"
        )
    with torch.no_grad():
        parts = [call.gradients(slopes[3 * i : 3 * i + 3], backwards) for i, call in enumerate(seen)]
        batches = sorted({part.shape[1] for part, _ in parts})
        if len(batches) > 1:
            raise InputError(
                f"{owner}: expected all calls of the {type(chosen).__name__} on batches of one "
                f"size, one chunk after the other; got batches of {batches}"
            )
        found, running = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return found, value.item(), running


def _slopes(value: Tensor, nodes: list[Tensor]) -> list[Tensor | None]:
    """Differentiate at the nodes, ``None`` where nothing leads from one to the value."""
    found: list[Tensor | None] = [None] * len(nodes)
    # Those that the model made under torch.no_grad() are not in the graph at all.
    places = [i for i, node in enumerate(nodes) if node.requires_grad]
    if value.requires_grad and places:
        slopes = torch.autograd.grad(value, [nodes[i] for i in places], allow_unused=True)
        for i, slope in zip(places, slopes, strict=True):
            found[i] = slope
    return found


def _checked(owner: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"{owner}: expected loss() to return a tensor, got {type(value).__name__}")
    if value.numel() != 1:
        raise InputError(
            f"{owner}: expected loss() to return a single number, got a tensor of shape "
            f"{tuple(value.shape)}; take its mean or sum"
        )
    if not value.isfinite().item():
        raise DivergedError(f"{owner}: the loss is {value.item()}; has the training diverged?")
    return value
