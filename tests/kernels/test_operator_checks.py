"""What every registered operator refuses, called by itself: in processes of their own, which may crash."""

import os
import subprocess
import sys

import pytest
import torch

import momentumrnn  # noqa: F401 registers the operators
from momentumrnn.errors import InputError
from momentumrnn.kernels.cuda import availability
from momentumrnn.kernels.extension import missing

pytestmark = pytest.mark.skipif(missing() is not None, reason="the C++ kernels were not built")

OPS = torch.ops.momentumrnn
T, B, D, H = 5, 3, 2, 4
DTYPES = [torch.float16, torch.bfloat16, torch.int8, torch.int32, torch.bool, torch.complex64]
PATIENCE = 300  # seconds until a process counts as hanging
# What an operator may be called without.
OPTIONAL = {"weight_ih", "bias_ih", "bias_hh", "bias", "v_0", "m_0", "batch_sizes", "grad_last"}
OPTIONAL |= {"grad_h_n", "grad_c_n", "grad_v_n", "grad_m_n", "dtype", "batch"}
# Changes after which the arguments still fit together.
FREE = {
    "linear_filter": {"x of another size", "x in torch.float64"},
    "triton_adaptive_rule_backward": {
        f"grad_output in {dtype}" for dtype in (torch.float16, torch.bfloat16, torch.float64)
    },
}


def recurrence(cell="lstm"):
    gates = {"lstm": 4, "gru": 3}.get(cell, 1) * H
    return {
        "cell": cell,
        "features": torch.randn(T, B, D),
        "weight_ih": torch.randn(gates, D),
        "bias_ih": torch.randn(gates),
        "weight_hh": torch.randn(gates, H),
        "bias_hh": torch.randn(gates),
        "modrelu_bias": torch.randn(H) if cell == "rnn_modrelu" else None,
        "h_0": torch.randn(B, H),
        "c_0": torch.randn(B, H) if cell == "lstm" else None,
        "batch_sizes": None,
    }


def triton_recurrence(cell="lstm"):
    given = recurrence(cell)
    d = torch.randn(T, B, given["weight_hh"].shape[0])
    rest = {
        name: given[name] for name in ("weight_hh", "bias_hh", "modrelu_bias", "h_0", "c_0", "batch_sizes")
    }
    return {"cell": cell, "d": d, **rest}


def adaptive_rule():
    states = {"v_0": torch.rand(B, H), "m_0": torch.rand(B, H)}
    matrices = {"x": torch.randn(T, B, D), "weight": torch.randn(H, D), "bias": torch.randn(H)}
    return {**matrices, "coefficients": torch.rand(4, H), "eps": 1e-8, **states, "batch_sizes": None}


def linear_filter():
    decay = torch.rand(T, B, dtype=torch.float64)
    return {
        "x": torch.randn(T, B, D),
        "ones": True,
        "decay": decay,
        "gain": 1.0,
        "batch_sizes": None,
        "batch": None,
    }


def arguments_of(operator):
    """Arguments that the operator takes, by name and in its order."""
    forward = operator.removesuffix("_backward")
    given = {"adaptive": adaptive_rule, "linear_filter": linear_filter, "recurrence": recurrence}
    given |= {"triton_adaptive": adaptive_rule, "triton_recurrence": triton_recurrence}
    inputs = given[forward.removesuffix("_rule")]()
    last = {
        "recurrence": {"train": True},
        "linear_filter": {},
        "adaptive_rule": {"train": True, "dtype": None},
    }
    end = last[forward.removeprefix("triton_")]
    if forward == operator:
        return {**inputs, **end}
    results = getattr(OPS, forward)(*inputs.values(), *end.values())
    if forward == "linear_filter":
        del inputs["x"]
        return {
            "grad_output": torch.ones_like(results[0]),
            "grad_last": torch.ones_like(results[1]),
            **inputs,
        }
    kept = dict(zip(("saved", "product"), results[3:], strict=True))
    names = ("grad_output", "grad_v_n", "grad_m_n")
    if "recurrence" in forward:
        kept = {"output": results[0], "gates": results[3], "cells": results[4]}
        names = ("grad_output", "grad_h_n", "grad_c_n")
    incoming = {name: torch.ones_like(part) for name, part in zip(names, results, strict=False)}
    differentiable = sum(isinstance(part, torch.Tensor) or part is None for part in inputs.values()) - 1
    wanted = {} if operator == "triton_recurrence_backward" else {"wanted": [True] * differentiable}
    return {**inputs, **kept, **incoming, **wanted}


def same_kind(one, other):
    """Whether a change changed nothing."""
    return (
        other is not None
        and one.is_sparse == other.is_sparse
        and (one.shape, one.dtype, one.device)
        == (
            other.shape,
            other.dtype,
            other.device,
        )
    )


def spoilt(operator):
    """Arguments with one fault each, and what the fault is."""
    arguments = arguments_of(operator)

    def all_in(dtype):
        return {
            name: value.to(dtype) if isinstance(value, torch.Tensor) and name != "decay" else value
            for name, value in arguments.items()
        }

    known = [torch.float16, torch.bfloat16] if operator.startswith("triton") else []
    for dtype in DTYPES:
        if dtype not in known:
            yield f"all in {dtype}", all_in(dtype)
    for name, value in arguments.items():
        if not isinstance(value, torch.Tensor):
            continue
        changes = {
            "of one dimension": value.flatten() if value.dim() > 1 else value.unsqueeze(0),
            "of four dimensions": value.reshape((1,) * (4 - value.dim()) + tuple(value.shape)),
            "of another size": torch.cat([value, value[..., :1]], -1),
            "on meta": value.to("meta"),
            "sparse": value.to_sparse(),
            **{f"in {dtype}": value.to(dtype) for dtype in (*DTYPES, torch.float64)},
        }
        if name not in OPTIONAL:
            changes["None"] = None
        for what, new in changes.items():
            if f"{name} {what}" not in FREE.get(operator, ()) and not same_kind(value, new):
                yield f"{name} {what}", {**arguments, name: new}
    first = next(name for name in ("features", "d", "x", "grad_output") if name in arguments)
    rows = {**arguments, first: arguments[first].flatten(0, 1)}
    yield "packed rows without sizes", rows
    for sizes in ([3, 3, 3, 3, 4], [4, 4, 4, 4, -1], [5, 4, 3, 3, 0], [3, 3, 3, 3], [3, 3, 3, 3, 2], []):
        yield f"sizes {sizes}", {**rows, "batch_sizes": torch.tensor(sizes, dtype=torch.int64)}
    if "cell" in arguments:
        yield "another cell", {**arguments, "cell": "lstn"}


def report(operator):
    """Print what each fault is answered with, before the next is tried."""
    for fault, arguments in spoilt(operator):
        print(fault, end=": ", flush=True)
        try:
            getattr(OPS, operator)(*arguments.values())
        except (InputError, NotImplementedError) as error:
            print(type(error).__name__, str(error).splitlines()[0], flush=True)
        except Exception as error:
            print("WRONG", type(error).__name__, str(error).splitlines()[0], flush=True)
        else:
            print("TAKEN", flush=True)


def run(program, **variables):
    """Run a program of one line, in which ``tests`` is this module, and return what it printed."""
    here = os.path.dirname(__file__)  # noqa: PTH120
    start = "import sys; sys.path.insert(0, sys.argv[1]); import test_operator_checks as tests; "
    child = subprocess.run(
        [sys.executable, "-c", start + program, here],
        env={**os.environ, **variables, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert child.returncode == 0, (child.returncode, child.stdout[-300:], child.stderr[-2000:])
    return child.stdout


@pytest.mark.parametrize("direction", ["", "_backward"])
@pytest.mark.parametrize(
    "operator", ["recurrence", "adaptive_rule", "linear_filter", "triton_recurrence", "triton_adaptive_rule"]
)
def test_what_an_operator_cannot_run_on(operator, direction):
    if operator.startswith("triton"):
        pytest.importorskip("triton", reason=str(availability.missing()))
    printed = run(f"tests.report('{operator}{direction}')", TRITON_INTERPRET="1").splitlines()
    assert len(printed) > 30
    for line in printed:
        # torch itself has no kernel of ours to call for a sparse tensor.
        expected = "InputError" if "sparse" not in line else ("InputError", "NotImplementedError")
        assert line.partition(": ")[2].startswith(expected), line


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn_tanh", "rnn_modrelu"])
def test_the_arguments_without_a_fault_are_taken(cell):
    for operator in ("adaptive_rule", "linear_filter"):
        for each in (operator, f"{operator}_backward"):
            getattr(OPS, each)(*arguments_of(each).values())
    assert OPS.recurrence(*recurrence(cell).values(), True)[0].shape == (T, B, H)


def test_meta_tensors_have_shapes():
    for operator in ("recurrence", "adaptive_rule", "linear_filter"):
        given = [
            value.to("meta") if isinstance(value, torch.Tensor) else value
            for value in arguments_of(operator).values()
        ]
        assert getattr(OPS, operator)(*given)[0].is_meta


TRACED = """
import torch, momentumrnn
layer = getattr(momentumrnn, name)(4, 64).eval().requires_grad_(False)
x, h = torch.randn(30, 8, 4), torch.zeros(1, 8, 64)
state = (h, h) if 'LSTM' in name else h
traced = torch.jit.trace(layer, (x, state), check_trace=False).half()
state = (h.half(), h.half()) if 'LSTM' in name else h.half()
for _ in range(5):
    try:
        traced(x.half(), state)
    except RuntimeError as error:
        print(' '.join(str(error).split()))
"""


@pytest.mark.parametrize("name", ["GRU", "LSTM", "MomentumGRU", "AdamLSTM"])
def test_a_traced_layer_in_half_precision(name):
    printed = run(f"exec(tests.TRACED, {{'name': '{name}'}})").splitlines()
    assert len(printed) == 5
    assert all("torch.float16" in line and "before it is traced" in line for line in printed)
