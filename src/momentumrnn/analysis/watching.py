"""Finding a recurrent layer inside a model, and being there when its recurrence runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from momentumrnn import kernels
from momentumrnn.layers import GRUCell, LSTMCell, OrthogonalRNNCell, RNNCell
from momentumrnn.layers.base import RecurrentLayer

__all__ = ["Handle", "find_layer", "find_place", "watched"]

# handle(run, "lstm", args, order): a kernels.dispatch.Observer, told the sequences' order in a packed batch.
Handle = Callable[[Callable[..., Any], str, tuple[Any, ...], Tensor | None], Any]

_WATCHABLE = (RecurrentLayer, RNNCell, LSTMCell, GRUCell, OrthogonalRNNCell)


def find_layer(owner: str, model: nn.Module, layer: str | nn.Module | None) -> nn.Module:
    """Return the layer that was asked for, or the model's only one.

    Args:
        owner: who asks, for the error message.
        model: where to look; it may be the layer itself.
        layer: its name among ``model.named_modules()``, or the module, or ``None``.

    Raises:
        ValueError: there is none, there are several and none was named, or the one named is not there.
        TypeError: ``model`` is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{owner}: expected a torch.nn.Module, got {type(model).__name__}")
    found = {name: module for name, module in model.named_modules() if isinstance(module, _WATCHABLE)}
    if not found:
        raise ValueError(
            f"{owner}: expected a model with an RNN, LSTM or GRU of momentumrnn in it, got "
            f"{type(model).__name__} without one; momentumrnn.LSTM(…) takes the place of torch.nn.LSTM(…)"
        )
    names = ", ".join(repr(name) for name in found)
    if layer is None:
        if len(found) > 1:
            raise ValueError(f"{owner}: the model has several recurrent layers, {names}; name one as layer=")
        return next(iter(found.values()))
    for name, module in found.items():
        if module is layer or name == layer:
            return module
    asked = repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__} that is not in the model"
    raise ValueError(f"{owner}: expected layer to be one of {names}, got {asked}")


def find_place(owner: str, layer: nn.Module, place: str | None) -> tuple[int, bool]:
    """Return which recurrence of a layer's call a place is, counted from 0, and whether it runs backwards.

    Args:
        owner: who asks, for the error message.
        layer: one of ``find_layer``'s.
        place: ``"l0"``, ``"l1_reverse"`` and so on, as the weights are named; ``None`` where there is one.

    Raises:
        ValueError: there is no such place, or there are several and none was named.
    """
    places = ["l0"]
    if isinstance(layer, RecurrentLayer):
        places = [suffix.removeprefix("_") for suffix, _ in layer.places()]
    if place is None and len(places) > 1:
        raise ValueError(f"{owner}: the layer is stacked or bidirectional; name one of {places} as place=")
    if place is not None and place not in places:
        raise ValueError(f"{owner}: expected place to be one of {places}, got {place!r}")
    k = 0 if place is None else places.index(place)
    return k, places[k].endswith("_reverse")


@contextmanager
def watched(layer: nn.Module, k: int, handle: Handle) -> Iterator[None]:
    """Have ``handle`` run the k-th recurrence of every call of the layer inside the ``with`` block."""
    inside: list[ExitStack] = []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs.get("input")
        order = x.unsorted_indices if isinstance(x, PackedSequence) else None
        count = -1

        def observer(run: Callable[..., Any], recurrence: str, given: tuple[Any, ...]) -> Any:
            nonlocal count
            count += 1
            return handle(run, recurrence, given, order) if count == k else run(*given)

        stack = ExitStack()
        stack.enter_context(kernels.observed(observer))
        inside.append(stack)

    def leave(*_: Any) -> None:
        if inside:
            inside.pop().close()

    # Only while the layer itself runs, so that no other layer's recurrence is taken for one of its own.
    before = layer.register_forward_pre_hook(enter, with_kwargs=True)
    after = layer.register_forward_hook(leave, prepend=True, always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()
        # An interrupt from the keyboard passes the hooks by.
        while inside:
            leave()
