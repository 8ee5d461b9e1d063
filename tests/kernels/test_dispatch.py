"""Who runs a recurrence: the ``backend`` block, the choice without one, and what ``explain`` says."""

import asyncio
import threading

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import momentumrnn
from cases import (
    CELLS,
    FUSED_CELLS,
    LEARNABLE_CASES,
    LINEAR_RULES,
    RULE_CASES,
    RULES,
    TORCH_CELLS,
    make_layer,
    make_rule,
)
from momentumrnn import backend, explain
from momentumrnn.errors import BackendError, InputError
from momentumrnn.kernels import cpu, reference
from momentumrnn.kernels.extension import extension, missing
from momentumrnn.kernels.problem import Problem

BACKENDS = ["cpu", "torch", "reference"]
BUILT = extension() is not None
FASTEST = "cpu" if BUILT else "torch"


def runs(layer=None):
    """Whether a layer that torch has no kernel for may run here: not inside ``backend("torch")``."""
    layer = layer or make_layer("rnn_modrelu", "heavy_ball")
    try:
        layer(torch.randn(2, 1, 3, dtype=torch.float64))
    except BackendError:
        return False
    return True


def chosen(layer, x):
    """The backends that ``explain`` names, one for each layer and direction."""
    return [
        name
        for line in explain(layer, x).splitlines()
        for name in BACKENDS
        if f": {name}" in line and "not" not in line.split(":")[0]
    ]


def test_a_block_holds_inside_and_ends():
    assert runs()
    with backend("torch"):
        assert not runs()
    assert runs()


def test_blocks_nest():
    with backend("torch"):
        with backend("reference"):
            assert runs()
            with backend("torch"):
                assert not runs()
            assert runs()
        assert not runs()
        with backend("auto"):
            assert runs()
        assert not runs()
    assert runs()


def test_a_block_ends_with_an_exception():
    with pytest.raises(ZeroDivisionError), backend("torch"):
        _ = 1 / 0
    assert runs()
    with backend("torch"):
        with pytest.raises(BackendError), backend("no such"):
            pass
        assert not runs()


def test_threads_do_not_see_each_other():
    inside, finish = threading.Event(), threading.Event()
    seen = {}

    def other():
        seen["start"] = runs()
        with backend("torch"):
            inside.set()
            finish.wait(10)
            seen["inside"] = runs()
        seen["after"] = runs()

    thread = threading.Thread(target=other)
    with backend("torch"):
        thread.start()
        assert inside.wait(10)
        with backend("reference"):
            assert runs()
            finish.set()
            thread.join()
    assert seen == {"start": True, "inside": False, "after": True}
    assert runs()


def test_asynchronous_tasks_do_not_see_each_other():
    async def task(name, expected):
        with backend(name):
            await asyncio.sleep(0)
            assert runs() == expected
            await asyncio.sleep(0)
        return runs()

    async def both():
        return await asyncio.gather(task("torch", False), task("reference", True))

    assert asyncio.run(both()) == [True, True]


def test_usable_as_a_decorator_or_once_more():
    block = backend("torch")
    with block:
        assert not runs()
    assert runs()


@pytest.mark.parametrize("name", ["", "cuda", "Torch", "refrence", None, 3])
def test_an_unknown_backend_names_the_known_ones(name):
    with pytest.raises(BackendError) as caught, backend(name):
        pass
    message = str(caught.value)
    assert repr(name) in message
    for known in ("auto", *BACKENDS):
        assert known in message


@pytest.mark.parametrize(("rule", "velocity", "learnable"), LEARNABLE_CASES)
@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in TORCH_CELLS])
def test_a_backend_that_cannot_run_says_why_and_never_falls_back(cell, rule, velocity, learnable):
    layer = make_layer(cell, rule, velocity, learnable)
    with backend("torch"), pytest.raises(BackendError, match="modrelu") as caught:
        layer(torch.randn(2, 1, 3, dtype=torch.float64))
    assert "torch" in str(caught.value)
    with backend("torch"), pytest.raises(BackendError, match="modrelu"):
        explain(layer, torch.randn(2, 1, 3, dtype=torch.float64))


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("rule", ["none", *LINEAR_RULES])
@pytest.mark.parametrize("cell", FUSED_CELLS)
def test_a_linear_rule_runs_on_the_fastest(cell, rule, learnable):
    layer = make_layer(cell, rule, learnable=learnable, num_layers=2, bidirectional=True)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    fastest = "torch" if cell == "lstm_projected" else FASTEST
    assert chosen(layer, x) == [fastest] * 4
    packed = pack_sequence([torch.randn(n, 3, dtype=torch.float64) for n in (4, 2)])
    assert chosen(layer, packed) == [fastest] * 4
    for name in ("torch", "reference"):
        with backend(name):
            assert chosen(layer, x) == [name] * 4


@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
@pytest.mark.parametrize("cell", CELLS)
def test_explain_names_a_backend_for_each_place_and_reasons_against_the_rest(cell, rule, velocity):
    layer = make_layer(cell, rule, velocity, num_layers=2, bidirectional=True)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    text = explain(layer, x)
    assert isinstance(text, str)
    assert len(chosen(layer, x)) == 4
    assert type(layer).__name__ in text
    for place in ("l0", "l0_reverse", "l1", "l1_reverse"):
        assert place in text
    for name in BACKENDS:
        assert name in text
    if rule != "none":
        assert type(layer.rule).__name__ in text


def calls(layer, x, monkeypatch):
    """How often each backend's recurrences are called while the layer runs."""
    counts = dict.fromkeys(BACKENDS, 0)

    def count(owner, function, name):
        original = getattr(owner, function)

        def counted(*args):
            counts[name] += 1
            return original(*args)

        monkeypatch.setattr(owner, function, counted)

    for function in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        count(torch, function, "torch")
        count(torch, f"{function}_cell", "torch")
    count(cpu, "recurrence", "cpu")
    count(reference, "_run", "reference")
    layer(x)
    monkeypatch.undo()
    return counts


@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
@pytest.mark.parametrize("cell", CELLS)
def test_explain_tells_the_truth(cell, rule, velocity, monkeypatch):
    layer = make_layer(cell, rule, velocity, num_layers=2)
    for steps in (4, 1):
        x = torch.randn(steps, 2, 3, dtype=torch.float64)
        for asked in ("auto", "reference"):
            with backend(asked):
                names = chosen(layer, x)
                assert calls(layer, x, monkeypatch) == {name: names.count(name) for name in BACKENDS}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("cpu", marks=pytest.mark.skipif(not BUILT, reason=str(missing()))),
        "torch",
        "reference",
    ],
)
@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_cell_runs_on_the_backend_asked_for(kind, rule, name, monkeypatch):
    cell = getattr(momentumrnn, f"{kind}Cell")(3, 5, rule=make_rule(rule))
    for batch in (1, 2):
        with backend(name):
            counts = calls(cell, torch.randn(batch, 3), monkeypatch)
        assert counts == {other: int(other == name) for other in BACKENDS}


@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_step_goes_to_an_operator_of_torch_made_for_one(kind, rule, monkeypatch):
    """And a batch of gate inputs that a rule left, which has no weight, to the reference."""
    cell = getattr(momentumrnn, f"{kind}Cell")(3, 5, rule=make_rule(rule))
    for function in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
        monkeypatch.delattr(torch, function)
    cell(torch.randn(1, 3))
    with backend("torch"):
        cell(torch.randn(2, 3))
    monkeypatch.undo()
    assert calls(cell, torch.randn(1, 3), monkeypatch) == {"cpu": 0, "torch": 1, "reference": 0}
    other = "torch" if rule == "none" else "reference"
    assert calls(cell, torch.randn(2, 3), monkeypatch)[other] == 1


def test_the_reasons_against_the_others_know_of_a_single_step():
    layer = make_layer("lstm", "none", batch_first=True)
    assert "single step" in explain(layer, torch.randn(4, 1, 3, dtype=torch.float64)) or not BUILT
    assert "single step" not in explain(layer, torch.randn(1, 4, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"device": torch.device("cuda")}, "CPU"),
        ({"dtype": torch.bfloat16}, "bfloat16"),
        ({"autocast": True}, "autocast"),
        ({"projected": True}, "projection"),
        ({"forward_mode": True}, "forward-mode"),
    ],
)
def test_the_kernels_refuse_what_they_cannot(change, reason):
    able = Problem("lstm", True, torch.device("cpu"), torch.float32)
    assert (cpu.refuses(able) is None) == BUILT
    assert reason in cpu.refuses(able._replace(**change))


def test_explain_computes_nothing_and_changes_nothing():
    layer = make_layer("lstm", "adam", num_layers=2, dropout=0.5)
    before = torch.get_rng_state()
    text = explain(layer, torch.randn(4, 2, 3, dtype=torch.float64).mul(0))
    torch.set_rng_state(before)
    assert explain(layer, torch.zeros(4, 2, 3, dtype=torch.float64)) == text
    assert torch.equal(torch.get_rng_state(), before)


def test_explain_checks_what_it_is_given():
    with pytest.raises(InputError, match="3"):
        explain(make_layer("lstm", "adam"), torch.randn(4, 2, 7, dtype=torch.float64))
    with pytest.raises(TypeError, match="LSTM"):
        explain(torch.nn.LSTM(3, 5), torch.randn(4, 2, 3))


@pytest.mark.parametrize("rule", ["none", *RULES])
def test_vmap_gives_what_a_loop_gives(rule):
    layer = make_layer("lstm", rule)
    x = torch.randn(3, 4, 2, 3, dtype=torch.float64)
    together = torch.func.vmap(lambda each: layer(each)[0])(x)
    for n in range(3):
        torch.testing.assert_close(together[n], layer(x[n])[0])


def test_backend_and_explain_are_public():
    assert momentumrnn.backend is backend
    assert momentumrnn.explain is explain
