"""Learned coefficients in graphs: one graph serves every length."""

import pytest
import torch
from torch.export import Dim
from torch.testing import assert_close

import momentumrnn
from cases import LINEAR_RULES, make_layer
from momentumrnn.rules.scan import cumulative_decay, linear_scan, linear_scan_loop

# On both sides of every boundary between chunks, and of chunks of chunks.
LENGTHS = [2, 3, 15, 16, 17, 24, 25, 100, 255, 256, 257, 700]
CASES = [
    *((rule, learnable) for rule in LINEAR_RULES for learnable in (True, "channel")),
    ("qhm", True),
    ("aggmo", "channel"),
    ("complex", True),
    ("complex", "channel"),
]


@pytest.mark.parametrize(("example", "carried"), [(10, False), (50, True)])
@pytest.mark.parametrize(("rule", "learnable"), CASES)
def test_one_export_serves_every_length(rule, learnable, example, carried):
    layer = make_layer("lstm", rule, "gate", learnable, carry_momentum=carried).float()
    x = torch.randn(example, 3, 3)
    state = layer(x)[1] if carried else None
    dynamic = ({0: Dim.DYNAMIC}, torch.utils._pytree.tree_map(lambda tensor: None, state))
    exported = torch.export.export(layer, (x, state), dynamic_shapes=dynamic).module()
    for T in LENGTHS:
        x = torch.randn(T, 3, 3)
        assert_close(exported(x, state)[0], layer(x, state)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rule", "learnable"), CASES)
def test_one_compilation_serves_every_length(rule, learnable):
    torch.compiler.reset()
    compiled = 0

    def backend(graph, example):
        nonlocal compiled
        compiled += 1
        return graph.forward

    layer = make_layer("lstm", rule, "gate", learnable).float()
    run = torch.compile(layer, dynamic=True, fullgraph=True, backend=backend)
    for T in LENGTHS:
        x = torch.randn(T, 3, 3)
        assert_close(run(x)[0], layer(x)[0], rtol=1e-5, atol=1e-5)
    assert compiled == 1


def test_inductor_compiles_a_learned_layer_once():
    torch.compiler.reset()
    layer = momentumrnn.MomentumLSTM(3, 4, learnable=True)
    run = torch.compile(layer, dynamic=True, fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for T in (10, 23, 26, 300):
            x = torch.randn(T, 2, 3)
            slopes = [
                torch.autograd.grad(each(x)[0].square().sum(), layer.parameters()) for each in (run, layer)
            ]
            assert_close(*slopes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["scalar", "per_step", "per_channel"])
def test_the_graph_of_a_scan_has_no_cumulative_product(kind):
    shape = {"scalar": (), "per_step": (50,), "per_channel": (1, 1, 2)}[kind]

    class Scan(torch.nn.Module):
        def forward(self, decay, x, initial):
            return linear_scan(decay, x, initial), cumulative_decay(decay, x.shape[0], x)

    arguments = (torch.rand(shape), torch.randn(50, 3, 2), torch.randn(3, 2))
    exported = torch.export.export(Scan(), arguments)
    assert "cumprod" not in exported.run_decompositions().graph_module.code
    y, left = exported.module()(*arguments)
    assert_close(y, linear_scan_loop(*arguments))
    assert_close(
        left * torch.ones(3, 2), linear_scan_loop(arguments[0], torch.zeros(50, 3, 2), torch.ones(3, 2))
    )
