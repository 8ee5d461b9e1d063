"""The recurrence of a layer as it stands: what it is called with, and the matrix U in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from momentumrnn.analysis.observed_call import arguments
from momentumrnn.analysis.untouched import untouched
from momentumrnn.analysis.watching import find_layer, find_place, watched
from momentumrnn.errors import InputError
from momentumrnn.layers.base import RecurrentLayer

__all__ = ["call_of", "recurrence_spectrum"]


def call_of(owner: str, layer: nn.Module, x: Tensor, place: str | None) -> tuple[str, tuple[Any, ...]]:
    """Return the name of a layer's recurrence, and what it is called with on ``x``, without dropout."""
    k, _ = find_place(owner, layer, place)
    seen: list[tuple[str, tuple[Any, ...]]] = []

    def handle(run: Callable[..., Any], recurrence: str, args: tuple[Any, ...], order: Tensor | None) -> Any:
        seen.append((recurrence, args))
        return run(*args)

    training = layer.training
    with untouched(layer), torch.no_grad(), watched(layer, k, handle):
        # The flag of the layer alone: a parametrization of a weight may have a mode of its own.
        layer.training = False
        try:
            layer(x)
        finally:
            layer.training = training
    return seen[0]


def recurrence_spectrum(
    model: nn.Module, layer: str | nn.Module | None = None, place: str | None = None
) -> Tensor:
    r"""Return the eigenvalues of U, by which a linear recurrence would grow or vanish.

    Of several gates each has its own square block of U: (h, h) for an RNN, three of them for a GRU (r, z,
    n), four for an LSTM (i, f, g, o). U is taken from the call of the recurrence itself, so it is the matrix
    that the layer multiplies with, however it is parametrized; without ``weight_dropout``.

    Args:
        model: a model with one of this package's layers or cells, or the layer itself.
        layer: which layer, where there are several: its name in ``model.named_modules()``, or the module.
        place: which recurrence of a stacked or bidirectional layer: ``"l0"``, ``"l1_reverse"``.

    Returns:
        (G, h), complex128 on the CPU, the largest modulus first in each row.

    Raises:
        ValueError: there is no such layer, or several and none was named.
        InputError: U is not square: a layer with ``proj_size``.
        TypeError: ``model`` is no module.

    Example:
        >>> from momentumrnn import MomentumRNN
        >>> from momentumrnn.analysis import recurrence_spectrum
        >>> recurrence_spectrum(MomentumRNN(3, 8)).shape
        torch.Size([1, 8])
    """
    owner = "recurrence_spectrum"
    chosen = find_layer(owner, model, layer)
    like = next(chosen.parameters())
    shape = (1, 1, chosen.input_size) if isinstance(chosen, RecurrentLayer) else (1, chosen.input_size)
    x = torch.zeros(*shape, dtype=like.dtype, device=like.device)
    recurrence, args = call_of(owner, chosen, x, place)
    weight = arguments(recurrence, args)[2].detach().to("cpu", torch.float64)
    hidden = weight.shape[1]
    if isinstance(chosen, RecurrentLayer) and chosen.proj_size:
        raise InputError(
            f"{owner}: expected square blocks of U, got {chosen.hidden_size} × {hidden}, "
            "those of a layer with proj_size"
        )
    values: Tensor = torch.linalg.eigvals(weight.reshape(-1, hidden, hidden))
    return values.gather(1, values.abs().argsort(dim=1, descending=True))
