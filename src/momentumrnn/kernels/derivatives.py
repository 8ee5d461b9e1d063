"""How a kernel is differentiated: once more, under ``torch.func``, and for many gradients at once."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from momentumrnn.errors import BackendError, InputError
from momentumrnn.kernels.problem import transforms
from momentumrnn.kernels.tracing import recorded, traced

__all__ = [
    "gradients_again",
    "holds_many",
    "in_graph",
    "may_be_asked_again",
    "one_by_one",
    "refuse_second_derivative",
    "wants_gradient",
    "without_operator",
]


_PLAIN = frozenset((Tensor, torch.nn.Parameter, type(None)))


def wants_gradient(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a call on these tensors will be differentiated, as far as it can be known."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    # Inside one no tensor tells of all that look at it from outside; a trace serves with gradients and
    # without.
    return bool(transforms()) or traced()


def in_graph(*tensors: Tensor | None) -> bool:
    """Whether a call has to go through the registered operator, for somebody who looks on.

    Where nobody does, the same code is called without the dispatcher, which would cost a small
    layer as much as its arithmetic.
    """
    return recorded() or not _PLAIN.issuperset(map(type, tensors))


def may_be_asked_again() -> bool:
    """Whether a backward pass, seen from inside, may be differentiated in turn."""
    return torch.is_grad_enabled() or bool(transforms())


def holds_many(*gradients: Tensor | None) -> bool:
    """Whether a gradient stands for many, as under ``is_grads_batched``, which no kernel can read."""
    many = torch._C._functorch.is_legacy_batchedtensor
    return any(grad is not None and many(grad) for grad in gradients)


def gradients_again(
    function: Callable[..., Sequence[Tensor | None]],
    tensors: Sequence[Tensor | None],
    incoming: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Differentiate ``function`` so that the result has derivatives itself.

    Args:
        function: computes some outputs from ``tensors`` with torch's operators.
        tensors: the place where to differentiate.
        incoming: the gradients of the outputs, ``None`` for zero.
        wanted: for each of ``tensors``, whether its gradient is wanted.
    """
    found: list[Tensor | None] = [None] * len(tensors)
    places = [k for k, want in enumerate(wanted) if want and tensors[k] is not None]
    if not places or all(grad is None for grad in incoming):
        return found
    differentiate = _inside_a_transform if transforms() else _in_the_graph
    for k, slope in zip(places, differentiate(function, list(tensors), incoming, places), strict=True):
        found[k] = slope
    return found


def _in_the_graph(
    function: Callable[..., Sequence[Tensor | None]],
    tensors: list[Tensor | None],
    incoming: Sequence[Tensor | None],
    places: list[int],
) -> Sequence[Tensor | None]:
    with torch.enable_grad():
        # Nodes of their own in the graph: a tensor may have been computed from another of them, or a gradient
        # from both, and only what leads through the function is to count.
        own = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        for k in places:
            alias = own[k]
            if alias is not None and not alias.requires_grad:
                # Wanted all the same: by a transform that is over.
                own[k] = alias.detach().requires_grad_()
        outputs = function(*own)
        pairs = [
            (out, grad)
            for out, grad in zip(outputs, incoming, strict=False)
            if out is not None and grad is not None and out.requires_grad
        ]
        if not pairs:
            return [None] * len(places)
        ends, grads = zip(*pairs, strict=True)
        asked = [alias for k in places if (alias := own[k]) is not None]
        return torch.autograd.grad(ends, asked, grads, create_graph=True, allow_unused=True)


def _inside_a_transform(
    function: Callable[..., Sequence[Tensor | None]],
    tensors: list[Tensor | None],
    incoming: Sequence[Tensor | None],
    places: list[int],
) -> Sequence[Tensor | None]:
    grads: tuple[Tensor, ...] = ()

    def run(*asked: Tensor) -> tuple[Tensor, ...]:
        nonlocal grads
        given = list(tensors)
        for k, tensor in zip(places, asked, strict=True):
            given[k] = tensor
        outputs = zip(function(*given), incoming, strict=False)
        pairs = [(out, grad) for out, grad in outputs if out is not None and grad is not None]
        grads = tuple(grad for _, grad in pairs)
        return tuple(out for out, _ in pairs)

    pull: Any = torch.func.vjp(run, *(tensors[k] for k in places))[1]
    slopes: tuple[Tensor, ...] = pull(grads)
    return slopes


def one_by_one(function: type[torch.autograd.Function]) -> None:
    """Let ``torch.func.vmap`` run an ``autograd.Function`` on one of many at a time."""

    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        if info.batch_size == 0:
            raise InputError("expected one or more to run torch.func.vmap over, got a batch of none")
        results = []
        for i in range(info.batch_size):
            one = [
                arg.select(dim, i) if isinstance(dim, int) else arg
                for arg, dim in zip(args, in_dims, strict=True)
            ]
            result = function.apply(*one)
            results.append(result if isinstance(result, tuple) else (result,))
        stacked = tuple(torch.stack(each) for each in zip(*results, strict=True))
        if not isinstance(result, tuple):
            return stacked[0], 0
        return stacked, (0,) * len(stacked)

    # Where autograd.Function looks for it; mypy takes it for a method put in another's place.
    function.vmap = staticmethod(vmap)  # type: ignore[method-assign]


def without_operator(
    name: str,
    forward: Callable[..., Any],
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
) -> Callable[..., Any]:
    """Give a function an operator's derivative, for calls that need no operator.

    Args:
        name: As the graph shows it.
        forward: What it computes.
        setup_context: As ``torch.library.register_autograd`` takes it.
        backward: Likewise.
    """

    def forward_and_setup(ctx: Any, *inputs: Any) -> Any:
        output = forward(*inputs)
        setup_context(ctx, inputs, output)
        return output

    def make(**members: Callable[..., Any]) -> Any:
        statics = {member: staticmethod(function) for member, function in members.items()}
        return types.new_class(name, (torch.autograd.Function,), exec_body=lambda body: body.update(statics))

    # torch.func wants the two apart; together they are called without a look at the signature, which takes as
    # long as a small layer's arithmetic.
    apart = make(forward=forward, setup_context=setup_context, backward=backward)
    together = make(forward=forward_and_setup, backward=backward)
    one_by_one(apart)

    def apply(*inputs: Any) -> Any:
        # What autograd.Function asks itself.
        return (apart if torch._C._are_functorch_transforms_active() else together).apply(*inputs)

    return apply


def refuse_second_derivative(ctx: Any, *grads: Any) -> Any:
    """Stand where a backward operator's own derivative would."""
    raise BackendError(
        "a kernel's backward pass has no derivative of its own inside a graph; run the layer inside "
        'momentumrnn.backend("reference"), which can be differentiated any number of times'
    )
