"""Who runs a recurrence, and why.

A backend is a module of this folder with a ``name``; the recurrences ``rnn``, ``gru`` and ``lstm``
with the signatures of ``momentumrnn.kernels.reference``; ``refuses``, which says why it cannot
run a problem; ``loses``, which says why another that can should be preferred; and ``traceable``, which says
whether torch.compile may look inside. A new backend is a module added to ``BACKENDS``, before the ones it is
faster than.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from momentumrnn.errors import BackendError
from momentumrnn.kernels import adaptive, cpu, fused, reference
from momentumrnn.kernels.cuda import adaptive as adaptive_on_cuda
from momentumrnn.kernels.cuda import backend as triton
from momentumrnn.kernels.gate_input import GateInput
from momentumrnn.kernels.packed import PackedRows
from momentumrnn.kernels.problem import Cell, Problem
from momentumrnn.kernels.tracing import constant
from momentumrnn.nearest import did_you_mean
from momentumrnn.rules import Adam, RMSProp, RuleState

__all__ = [
    "BACKENDS",
    "Observer",
    "adaptive_rule",
    "backend",
    "choose",
    "gru",
    "lstm",
    "observed",
    "reasons",
    "rnn",
    "rule_backend",
    "runs_rules",
]

BACKENDS: tuple[Any, ...] = (cpu, triton, fused, reference)

# Called in place of a recurrence: observer(run, "lstm", args) returns what run(*args) would.
Observer = Callable[[Callable[..., Any], str, tuple[Any, ...]], Any]

_wanted: ContextVar[str] = ContextVar("momentumrnn_backend", default="auto")


class _Entered(threading.local):
    """The blocks this thread is in: what ``torch.compile``, blind to the other, guards its graphs by."""

    def __init__(self) -> None:
        # Every name, not the last one alone: asynchronous tasks leave their blocks in any order. An attribute
        # of each thread's own from the start: a guard on one of the class would not see the other appear.
        self.names: tuple[str, ...] = ()
        self.observer: Observer | None = None


_entered = _Entered()


@constant
def _asked_for(entered: tuple[str, ...]) -> str:
    return _wanted.get()


def backend(name: str) -> AbstractContextManager[None]:
    """Run every layer inside the ``with`` block on one backend.

    Args:
        name: ``"reference"``, a plain loop for any dtype and device, differentiable any number of
            times; ``"cpu"``, the C++ kernels; ``"triton"``, the Triton kernels; ``"torch"``, torch's fused
            recurrences; or ``"auto"``, the fastest that can run, which is what happens outside any block.

    The choice holds for the current thread (or asynchronous task) and is undone at the block's end.

    Raises:
        BackendError: there is no such backend; or, when a layer is called, the named one cannot
            run it.

    Example:
        >>> import torch
        >>> import momentumrnn
        >>> layer = momentumrnn.MomentumLSTM(3, 5)
        >>> x = torch.randn(7, 2, 3)
        >>> with momentumrnn.backend("reference"):
        ...     expected, _ = layer(x)
        >>> torch.testing.assert_close(layer(x)[0], expected)
    """
    # Here and not in the block, which a caller may forget to enter.
    names = ["auto", *(candidate.name for candidate in BACKENDS)]
    if name not in names:
        hint = did_you_mean(str(name), names, before="; ")
        raise BackendError(f"expected a backend among {', '.join(names)}, got {name!r}{hint}")
    return _inside(name)


@contextmanager
def _inside(name: str) -> Iterator[None]:
    token = _wanted.set(name)
    _entered.names = (*_entered.names, name)
    try:
        yield
    finally:
        _wanted.reset(token)
        entered = _entered.names
        last = len(entered) - 1 - entered[::-1].index(name)
        _entered.names = entered[:last] + entered[last + 1 :]


@contextmanager
def observed(observer: Observer) -> Iterator[None]:
    """Hand every recurrence that this thread runs inside the ``with`` block to an observer."""
    before, _entered.observer = _entered.observer, observer
    try:
        yield
    finally:
        _entered.observer = before


def choose(problem: Problem) -> Any:
    """Return the backend that runs the problem.

    Raises:
        BackendError: the backend asked for with ``backend`` cannot run it.
    """
    wanted = _asked_for(_entered.names)
    if wanted == "auto":
        for candidate in BACKENDS:
            if candidate.loses(problem) is None and candidate.refuses(problem) is None:
                return candidate
        # No one wins: the last, which can run anything.
        return BACKENDS[-1]
    named = next(candidate for candidate in BACKENDS if candidate.name == wanted)
    if reason := named.refuses(problem):
        raise BackendError(
            f'backend "{wanted}" cannot run this layer: {reason}; use backend("auto") or backend("reference")'
        )
    return named


def reasons(problem: Problem) -> list[tuple[str, str]]:
    """Return each backend that would not run the problem, with the reason, fastest first."""
    chosen = choose(problem)
    wanted = _asked_for(_entered.names)
    asked = f"{chosen.name} is faster" if wanted == "auto" else f'backend("{wanted}") was asked for'
    return [
        (candidate.name, candidate.refuses(problem) or candidate.loses(problem) or asked)
        for candidate in BACKENDS
        if candidate is not chosen
    ]


def runs_rules(weight: Tensor) -> bool:
    """Whether a rule runs in C++ too: as a layer does on the backends ``"auto"`` and ``"cpu"``."""
    if _asked_for(_entered.names) not in ("auto", cpu.name):
        return False
    return cpu.refuses(Problem.of("rnn_tanh", False, weight)) is None


def rule_backend(weight: Tensor) -> str | None:
    """Return who runs Adam and RMSProp on a drive made by ``weight``, ``None`` if the rule does itself."""
    if runs_rules(weight):
        return cpu.name
    wanted = _asked_for(_entered.names)
    if wanted not in ("auto", triton.name):
        return None
    problem = Problem.of("rnn_tanh", False, weight)
    return triton.name if triton.runs_rules(problem, asked_for=wanted == triton.name) else None


def adaptive_rule(
    runner: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rule: Adam | RMSProp,
    state: RuleState,
    packed: PackedRows | None,
) -> tuple[GateInput, RuleState]:
    """Apply the rule by ``runner``, whom ``rule_backend`` named; else as ``kernels.adaptive.AdaptiveRule``.

    Returns:
        d as gate inputs, and the rule's new state.
    """
    apply = adaptive_on_cuda.adaptive_rule if runner == triton.name else adaptive.adaptive_rule
    d, state, made_of = apply(x, weight, bias, rule, state, packed)
    return GateInput(d, packed=packed, made_of=made_of), state


def _run(problem: Problem, recurrence: str, *args: Any) -> Any:
    """Call a recurrence of the backend chosen; ``torch.compile`` breaks its graph around some backends."""
    chosen = choose(problem)
    run: Callable[..., Any] = getattr(chosen, recurrence)
    if _entered.observer is not None:
        # Who looks on may look at the gate inputs afterwards; made again, they could be overwritten.
        watched = args[0]._replace(made_of=None)
        return _entered.observer(run, recurrence, (watched, *args[1:]))
    # What torch.compiler.disable applies; but that imports the whole compiler, and so would a call of
    # this where nothing is being compiled.
    if torch.compiler.is_dynamo_compiling() and not chosen.traceable(problem):
        return _disable_dynamo(run)(*args)
    return run(*args)


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
    factored = inputs.weight is not None
    problem = Problem.of(
        cells[nonlinearity], factored, weight_hh, one_step=inputs.one_step, batch=h_0.shape[0]
    )
    result: tuple[Tensor, Tensor] = _run(
        problem, "rnn", inputs, h_0, weight_hh, bias_hh, nonlinearity, modrelu_bias
    )
    return result


def gru(inputs: GateInput, h_0: Tensor, weight_hh: Tensor, bias_hh: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the GRU on the chosen backend; see ``momentumrnn.kernels.reference.gru``."""
    problem = Problem.of(
        "gru", inputs.weight is not None, weight_hh, one_step=inputs.one_step, batch=h_0.shape[0]
    )
    result: tuple[Tensor, Tensor] = _run(problem, "gru", inputs, h_0, weight_hh, bias_hh)
    return result


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
    problem = Problem.of(
        cell,
        inputs.weight is not None,
        weight_hh,
        weight_hr is not None,
        one_step=inputs.one_step,
        batch=h_0.shape[0],
    )
    result: tuple[Tensor, Tensor, Tensor] = _run(
        problem, "lstm", inputs, h_0, c_0, weight_hh, bias_hh, weight_hr, forget_gate
    )
    return result
