"""The Triton kernels through Triton's compiler, which needs no GPU and takes less than its interpreter."""

import json
import os
import subprocess
import sys

import pytest

from momentumrnn.kernels.cuda import availability
from momentumrnn.kernels.cuda.tiling import Device, Tiling, tiling
from momentumrnn.kernels.problem import GATES

pytest.importorskip("triton", reason=str(availability.missing()))

# In a process of its own: in this one the kernels may be interpreted.
PROGRAM = """
import importlib, json, sys
import triton.language as tl
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

for module, name, pointers, constants, options in json.load(sys.stdin):
    kernel = getattr(importlib.import_module("momentumrnn.kernels.cuda." + module), name)
    constants["TOTAL"] = getattr(tl, constants["TOTAL"])
    kinds = {arg: "constexpr" if arg in constants else pointers.get(arg, "i32") for arg in kernel.arg_names}
    places = {(kernel.arg_names.index(arg),): value for arg, value in constants.items()}
    built = compile(ASTSource(kernel, kinds, places, {}), target=GPUTarget("cuda", ARCH, 32), options=options)
    assert built.asm["cubin"]
    lines = built.asm["ttgir"].splitlines()
    wait = max((at for at, line in enumerate(lines) if "scf.while" in line), default=0)
    # Of the first loop, which is the one over time, in a kernel that waits; nothing is said of another.
    step = min((at for at, line in enumerate(lines[:wait]) if "scf.for" in line), default=None)
    print(json.dumps([
        built.metadata.shared,
        sum("async" in line for line in lines),
        None if step is None else sum("convert_layout" in line for line in lines[step:wait]),
    ]))
"""
H100, A100 = Device(132, 227 << 10), Device(108, 163 << 10)


def recurrence(name, cell, gates, low, way):
    states = ["c", "cells"] if name == "forward" else ["c_0", "cells", "carried_h", "carried_c"]
    own = (
        ["d", "weight_hh", "bias_hh", "modrelu_bias", "h_0", "output", "gates"]
        if name == "forward"
        else ["weight_hh", "h_0", "output", "gates", "grad_output", "grad_d", "grad_n"]
    )
    kinds = (
        dict.fromkeys(own, f"*{low}")
        | dict.fromkeys(states, "*fp32")
        | {"starts": "*i64", "arrivals": "*i32"}
    )
    constants = {"ROWS": way.rows, "UNITS": way.units, "PARTS": way.parts, "DEPTH": way.depth}
    constants |= {"RESIDENT": way.resident, "WAIT": way.resident, "WIDEN": False}
    constants |= {"CELL": cell, "GATES": gates, "TOTAL": "float32"}
    constants["PRECISION"] = "tf32x3" if cell == "rnn_modrelu" else "tf32" if low == "fp32" else "ieee"
    if name == "forward":
        constants |= {"BIAS": True, "TRAIN": True}
    options = {"num_warps": way.warps, "launch_cooperative_grid": way.resident}
    return [f"recurrence_{name}", name, kinds, constants, options | {"num_stages": 1 if way.resident else 3}]


def rule(name, low, features, bias=True, output=None):
    low_ones = ["drive"] if name == "forward" else ["drive", "grad_drive"]
    states = ["coefficients", "v_n", "m_n", "saved", "scratch", "grad_coefficients", "grad_v", "grad_m"]
    kinds = dict.fromkeys(low_ones, f"*{low}") | dict.fromkeys(states, "*fp32") | {"starts": "*i64"}
    kinds |= {"d" if name == "forward" else "grad_output": f"*{output or low}"}
    constants = {"SQUARED_EPS": 1e-16, "INTERVAL": 32, "BLOCK": 128, "TOTAL": "float32"}
    constants |= {"FEATURES": features}
    made_here = {"weight": low, "bias": low, "grad_weight": "fp32", "grad_bias": "fp32"}
    kinds |= {key: f"*{kind}" for key, kind in made_here.items()} if features else {}
    if not features:
        constants |= dict.fromkeys(["weight", "bias"] if name == "forward" else made_here)
    elif not bias:
        constants["bias"] = None
    if name == "forward":
        constants["TRAIN"] = True
    return ["adaptive_kernels", name, kinds, constants, {"num_stages": 1}]


def compiled(kernels, arch, folder):
    """Return for each kernel its bytes of shared memory, its loads ahead of their turn, and
    the tensors that it puts into another layout before it waits.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("ARCH", str(arch))],
        input=json.dumps(kernels),
        env=environment | {"TRITON_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_compiles_for_a_gpu(tmp_path):
    step = Tiling(False)
    kernels = [
        *(recurrence(name, "lstm", 4, "bf16", step) for name in ("forward", "backward")),
        recurrence("backward", "gru", 3, "bf16", step),
        recurrence("forward", "rnn_modrelu", 1, "fp32", step),
        *(rule(name, "bf16", 0) for name in ("forward", "backward")),
        *(rule(name, "fp32", 0, output="bf16") for name in ("forward", "backward")),
        *(rule(name, "fp32", 2, output="bf16") for name in ("forward", "backward")),
        *(rule(name, "fp32", 1, bias=False) for name in ("forward", "backward")),
    ]
    assert len(compiled(kernels, 90, tmp_path)) == len(kernels)


@pytest.mark.parametrize(
    ("device", "arch", "cell", "low", "hidden"),
    [
        (H100, 90, "lstm", "fp32", 256),
        (A100, 80, "gru", "bf16", 128),
        (H100, 90, "rnn_modrelu", "fp32", 512),
        # One program has all units, and waits for none.
        (H100, 90, "rnn_tanh", "fp32", 128),
    ],
)
def test_kernels_that_keep_u_fit_and_load_nothing_ahead_of_the_others(
    device, arch, cell, low, hidden, tmp_path
):
    """A load that is made before the others have been waited for reads what is not there yet.

    What can be loaded before is to be under way while the program waits: a change of layout waits for it.
    """
    itemsize = 4 if low == "fp32" else 2
    split = cell == "rnn_modrelu"
    way = tiling(hidden, GATES[cell], itemsize, 128, device, split)
    assert way.resident
    kernels = [recurrence(name, cell, GATES[cell], low, way) for name in ("forward", "backward")]
    for shared, early, changed in compiled(kernels, arch, tmp_path):
        assert shared <= way.shared_memory(GATES[cell], itemsize, split) <= device.shared_memory
        assert early == changed == 0
