"""Who runs a recurrence, and why.

A backend is a module of this folder with a ``name``; the recurrences ``rnn``, ``gru`` and ``lstm``
with the signatures of ``momentumrnn.kernels.reference``; ``refuses``, which says why it cannot
run a problem; and ``loses``, which says why another that can should be preferred. A new backend is
a module added to ``BACKENDS``, before the ones it is faster than.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from momentumrnn.errors import BackendError
from momentumrnn.kernels import fused, reference
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.problem import Cell, Problem

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["BACKENDS", "backend", "choose", "gru", "lstm", "reasons", "rnn"]

BACKENDS: tuple[Any, ...] = (fused, reference)

_wanted: ContextVar[str] = ContextVar("momentumrnn_backend", default="auto")


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Run every layer inside the ``with`` block on one backend.

    Args:
        name: ``"reference"``, a plain loop for any dtype and device, differentiable any number of
            times; ``"torch"``, torch's fused recurrences; or ``"auto"``, the fastest that can run,
            which is what happens outside any block.

    The choice holds for the current thread (or asynchronous task) and is undone at the block's end.

    Raises:
        BackendError: there is no such backend; or, when a layer is called, the named one cannot
            run it.

    Example:
        >>> import torch
        >>> import torch
        >>> import momentumrnn
        >>> layer = momentumrnn.MomentumLSTM(3, 5)
        >>> x = torch.randn(7, 2, 3)
        >>> with momentumrnn.backend("reference"):
        ...     expected, _ = layer(x)
        >>> torch.testing.assert_close(layer(x)[0], expected)
    """
    names = ["auto", *(candidate.name for candidate in BACKENDS)]
    if name not in names:
        near = get_close_matches(str(name), names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BackendError(f"expected a backend among {', '.join(names)}, got {name!r}{hint}")
    token = _wanted.set(name)
    try:
        yield
    finally:
        _wanted.reset(token)


def choose(problem: Problem) -> Any:
    """Return the backend that runs the problem.

    Raises:
        BackendError: the backend asked for with ``backend`` cannot run it.
    """
    wanted = _wanted.get()
    if wanted == "auto":
        able = [candidate for candidate in BACKENDS if candidate.refuses(problem) is None]
        return next((candidate for candidate in able if candidate.loses(problem) is None), able[-1])
    named = next(candidate for candidate in BACKENDS if candidate.name == wanted)
    if reason := named.refuses(problem):
        raise BackendError(
            f'backend "{wanted}" cannot run this layer: {reason}; use backend("auto") or backend("reference")'
        )
    return named


def reasons(problem: Problem) -> list[tuple[str, str]]:
    """Return each backend that would not run the problem, with the reason, fastest first."""
    chosen = choose(problem)
    asked = f'backend("{_wanted.get()}") was asked for'
    return [
        (candidate.name, candidate.refuses(problem) or candidate.loses(problem) or asked)
        for candidate in BACKENDS
        if candidate is not chosen
    ]


def _outside_of_graphs(run: Callable[P, R]) -> Callable[P, R]:
    """Have torch.compile break its graph around ``run``, as it does around ``torch.nn.LSTM``.

    It cannot trace torch's recurrent operators, and would unroll a loop over time.
    """
    # What torch.compiler.disable applies; but that imports the whole compiler, and so would a call of
    # this where nothing is being compiled.
    disabled: Callable[P, R] = _disable_dynamo(run)

    @wraps(run)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (disabled if torch.compiler.is_dynamo_compiling() else run)(*args, **kwargs)

    return call


@_outside_of_graphs
def rnn(
    inputs: GateInput,
    h_0: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    nonlinearity: str = "tanh",
    modrelu_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the RNN on the chosen backend; see ``momentumrnn.kernels.reference.rnn``."""
    cells: dict[str, Cell] = {"tanh": "rnn_tanh", "relu": "rnn_relu", "modrelu": "rnn_modrelu"}
    chosen = choose(Problem.of(cells[nonlinearity], inputs.weight is not None, weight_hh))
    result: tuple[Tensor, Tensor] = chosen.rnn(inputs, h_0, weight_hh, bias_hh, nonlinearity, modrelu_bias)
    return result


@_outside_of_graphs
def gru(inputs: GateInput, h_0: Tensor, weight_hh: Tensor, bias_hh: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the GRU on the chosen backend; see ``momentumrnn.kernels.reference.gru``."""
    chosen = choose(Problem.of("gru", inputs.weight is not None, weight_hh))
    result: tuple[Tensor, Tensor] = chosen.gru(inputs, h_0, weight_hh, bias_hh)
    return result


@_outside_of_graphs
def lstm(
    inputs: GateInput,
    h_0: Tensor,
    c_0: Tensor,
    weight_hh: Tensor,
    bias_hh: Tensor | None,
    weight_hr: Tensor | None = None,
    forget_gate: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the LSTM on the chosen backend; see ``momentumrnn.kernels.reference.lstm``."""
    cell: Cell = "lstm" if forget_gate else "lstm_without_forget_gate"
    chosen = choose(Problem.of(cell, inputs.weight is not None, weight_hh))
    result: tuple[Tensor, Tensor, Tensor] = chosen.lstm(
        inputs, h_0, c_0, weight_hh, bias_hh, weight_hr, forget_gate
    )
    return result
