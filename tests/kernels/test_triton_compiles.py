"""The Triton kernels through Triton's compiler, which needs no GPU and takes less than its interpreter."""

import json
import os
import subprocess
import sys

import pytest

from momentumrnn.kernels.cuda import availability

pytest.importorskip("triton", reason=str(availability.missing()))

# In a process of its own: in this one the kernels may be interpreted.
PROGRAM = """
import importlib, json, sys
import triton.language as tl
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

for module, name, pointers, constants in json.load(sys.stdin):
    kernel = getattr(importlib.import_module("momentumrnn.kernels.cuda." + module), name)
    constants["TOTAL"] = getattr(tl, constants["TOTAL"])
    kinds = {arg: "constexpr" if arg in constants else pointers.get(arg, "i32") for arg in kernel.arg_names}
    places = {(kernel.arg_names.index(arg),): value for arg, value in constants.items()}
    built = compile(ASTSource(kernel, kinds, places, {}), target=GPUTarget("cuda", 90, 32))
    print(module, name, len(built.asm["cubin"]))
"""
SIZES = {"ROWS": 16, "UNITS": 32, "DEPTH": 32, "TILES": 2, "WIDEN": False}


def recurrence(name, cell, gates, low):
    states = ["c", "cells"] if name == "forward" else ["c_0", "cells", "carried_h", "carried_c"]
    own = (
        ["d", "weight_hh", "bias_hh", "modrelu_bias", "h_0", "output", "gates"]
        if name == "forward"
        else ["weight_hh", "h_0", "output", "gates", "grad_output", "grad_d", "grad_n"]
    )
    kinds = dict.fromkeys(own, f"*{low}") | dict.fromkeys(states, "*fp32") | {"starts": "*i64"}
    constants = SIZES | {"CELL": cell, "GATES": gates, "TOTAL": "float32"}
    constants["PRECISION"] = "tf32" if low == "fp32" else "ieee"
    if name == "forward":
        constants |= {"BIAS": True, "TRAIN": True}
    return [f"recurrence_{name}", name, kinds, constants]


def rule(name, low):
    low_ones = ["drive", "d"] if name == "forward" else ["drive", "grad_output", "grad_drive"]
    states = ["coefficients", "v_n", "m_n", "saved", "scratch", "grad_coefficients", "grad_v", "grad_m"]
    kinds = dict.fromkeys(low_ones, f"*{low}") | dict.fromkeys(states, "*fp32") | {"starts": "*i64"}
    constants = {"SQUARED_EPS": 1e-16, "INTERVAL": 32, "BLOCK": 128, "TOTAL": "float32"}
    if name == "forward":
        constants["TRAIN"] = True
    return ["adaptive_kernels", name, kinds, constants]


def test_every_kernel_compiles_for_a_gpu(tmp_path):
    kernels = [
        *(recurrence(name, "lstm", 4, "bf16") for name in ("forward", "backward")),
        recurrence("backward", "gru", 3, "bf16"),
        recurrence("forward", "rnn_modrelu", 1, "fp32"),
        *(rule(name, "fp32") for name in ("forward", "backward")),
    ]
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(kernels),
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(kernels)
