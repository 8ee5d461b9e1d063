"""A measurement leaves no trace, and says what it cannot measure."""

import contextlib
import copy
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import momentumrnn
from cases import make_layer
from momentumrnn import kernels
from momentumrnn.analysis import hidden_gradient_norms
from momentumrnn.errors import DivergedError, InputError


class Model(nn.Module):
    """Everything that changes in a forward pass: dropout of three kinds, and running statistics."""

    def __init__(self):
        super().__init__()
        self.body = momentumrnn.LSTM(
            3, 8, 2, dropout=0.5, weight_dropout=0.3, rule=momentumrnn.rules.HeavyBall(0.6, 0.6)
        )
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return self.drop(self.norm(self.body(x)[0][-1]))


def everything(model):
    return [
        *model.parameters(),
        *model.buffers(),
        *(p.grad for p in model.parameters() if p.grad is not None),
    ]


def test_nothing_is_changed():
    model, x = Model(), torch.randn(6, 4, 3)
    model(x).square().sum().backward()
    before = copy.deepcopy(model), [t.clone() for t in everything(model)], torch.get_rng_state()
    tensors = everything(model)
    versions = [t._version for t in tensors]

    def loss():
        return model(x).square().sum()

    first = hidden_gradient_norms(model, loss, place="l0").per_sequence

    assert torch.equal(torch.get_rng_state(), before[2])
    assert all(now is then for now, then in zip(everything(model), tensors, strict=True))
    assert all(torch.equal(now, then) for now, then in zip(tensors, before[1], strict=True))
    assert [t._version for t in tensors] == versions
    assert model.training
    assert not model.body._forward_hooks
    assert not model.body._forward_pre_hooks
    assert all(p.grad_fn is None for p in model.parameters())
    # The same masks as before, and those that the next step draws.
    assert torch.equal(hidden_gradient_norms(model, loss, place="l0").per_sequence, first)
    now = model(x)
    torch.set_rng_state(before[2])
    assert torch.equal(now, before[0](x))


def test_between_a_forward_and_its_backward_pass():
    model, x = Model(), torch.randn(6, 4, 3)
    twin = copy.deepcopy(model)
    grads = []
    for one, measured in ((model, True), (twin, False)):
        torch.manual_seed(1)
        value = one(x).square().sum()
        if measured:
            hidden_gradient_norms(one, lambda: model(x).square().sum(), place="l1")
        value.backward()
        grads.append([p.grad for p in one.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_frozen_parameters_and_no_grad_outside():
    layer, x = make_layer("gru", "adam"), torch.randn(6, 2, 3, dtype=torch.float64)
    expected = hidden_gradient_norms(layer, lambda: layer(x)[0].sum()).per_sequence
    layer.requires_grad_(False)
    with torch.no_grad():
        found = hidden_gradient_norms(layer, lambda: layer(x)[0].sum()).per_sequence
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_after_an_error_the_layer_is_as_before():
    layer = make_layer("rnn_tanh", "none")
    with pytest.raises(InputError):
        hidden_gradient_norms(layer, lambda: layer(torch.randn(3, 2, 9, dtype=torch.float64))[0].sum())
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks
    assert kernels.dispatch._entered.observer is None


def test_after_an_interrupt_nothing_is_observed():
    layer = make_layer("rnn_tanh", "none")

    def interrupt(*_):
        raise KeyboardInterrupt

    layer._recur = interrupt
    with pytest.raises(KeyboardInterrupt):
        hidden_gradient_norms(layer, lambda: layer(torch.randn(3, 2, 3, dtype=torch.float64))[0].sum())
    assert kernels.dispatch._entered.observer is None


def test_a_layer_that_failed_and_was_caught_is_observed_no_longer():
    layer, x = make_layer("rnn_tanh", "none"), torch.randn(3, 2, 3, dtype=torch.float64)
    other = make_layer("rnn_tanh", "none", hidden_size=2)
    expected = hidden_gradient_norms(layer, lambda: layer(x)[0].sum()).per_sequence

    def loss():
        with contextlib.suppress(InputError):
            layer(x[..., :1])
        return other(x)[0].sum() + layer(x)[0].sum()

    assert torch.equal(hidden_gradient_norms(nn.ModuleList([layer, other]), loss, "0").per_sequence, expected)


def test_another_thread_is_not_observed():
    seen = []
    layer = make_layer("rnn_tanh", "none")

    def elsewhere():
        kernels.rnn(kernels.GateInput(torch.zeros(1, 1, 2)), torch.zeros(1, 2), torch.eye(2), None)

    def observer(run, recurrence, args):
        seen.append(recurrence)
        return run(*args)

    with kernels.observed(observer):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        layer(torch.randn(2, 1, 3, dtype=torch.float64))
    elsewhere()
    assert seen == ["rnn"]


def test_a_checkpointed_layer():
    layer, x = make_layer("lstm", "rmsprop"), torch.randn(6, 2, 3, dtype=torch.float64)
    expected = hidden_gradient_norms(layer, lambda: layer(x)[0].sum()).per_sequence
    found = hidden_gradient_norms(
        layer, lambda: checkpoint(layer, x, use_reentrant=False)[0].sum()
    ).per_sequence
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)


def test_a_compiled_model():
    torch._dynamo.reset()
    layer, x = make_layer("lstm", "heavy_ball"), torch.randn(6, 2, 3, dtype=torch.float64)
    expected = hidden_gradient_norms(layer, lambda: layer(x)[0].sum()).per_sequence
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(layer, backend=backend)
    before, count = compiled(x)[0], len(graphs)
    assert count > 0
    found = hidden_gradient_norms(compiled, lambda: compiled(x)[0].sum()).per_sequence
    assert torch.equal(found, expected)
    assert len(graphs) == count
    with torch.compiler.set_stance("fail_on_recompile"):
        assert torch.equal(compiled(x)[0], before)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = momentumrnn.RNN(3, 4), momentumrnn.GRU(4, 5)

    def forward(self, x):
        return self.second(self.first(x)[0])[0]


def test_one_of_several_layers():
    model, x = Two(), torch.randn(4, 2, 3)

    def loss():
        return model(x).sum()

    with pytest.raises(ValueError, match=r"several recurrent layers, 'first', 'second'"):
        hidden_gradient_norms(model, loss)
    with pytest.raises(ValueError, match=r"one of 'first', 'second', got 'third'"):
        hidden_gradient_norms(model, loss, "third")
    with pytest.raises(ValueError, match="not in the model"):
        hidden_gradient_norms(model, loss, momentumrnn.GRU(4, 5))
    named, given = (hidden_gradient_norms(model, loss, which) for which in ("first", model.first))
    assert torch.equal(named.per_sequence, given.per_sequence)
    assert not torch.equal(named.per_sequence, hidden_gradient_norms(model, loss, "second").per_sequence)


def test_what_cannot_be_measured():
    layer, x = momentumrnn.LSTM(3, 4, 2, bidirectional=True), torch.randn(4, 2, 3)
    with pytest.raises(ValueError, match=r"name one of \['l0', 'l0_reverse', 'l1', 'l1_reverse'\]"):
        hidden_gradient_norms(layer, lambda: layer(x)[0].sum())
    with pytest.raises(ValueError, match="got 'l2'"):
        hidden_gradient_norms(layer, lambda: layer(x)[0].sum(), place="l2")

    layer = momentumrnn.LSTM(3, 4)
    with pytest.raises(InputError, match=r"single number, got a tensor of shape \(4, 2, 4\)"):
        hidden_gradient_norms(layer, lambda: layer(x)[0])
    with pytest.raises(TypeError, match="return a tensor, got float"):
        hidden_gradient_norms(layer, lambda: layer(x)[0].sum().item())
    with pytest.raises(DivergedError, match="the loss is nan"):
        hidden_gradient_norms(layer, lambda: layer(x)[0].sum() * torch.nan)
    # 0 · √ at 0 is finite, its slope is not.
    with pytest.raises(DivergedError, match="not finite at step 3 of 4"):
        hidden_gradient_norms(layer, lambda: (layer(x)[0] * 0).sqrt().sum())
    with pytest.raises(ValueError, match="never ran"):
        hidden_gradient_norms(layer, lambda: torch.ones(()))
    with pytest.raises(ValueError, match="does not depend"):
        hidden_gradient_norms(layer, lambda: layer(x)[0].sum().detach())
    with pytest.raises(InputError, match=r"batches of \[1, 2\]"):
        hidden_gradient_norms(layer, lambda: layer(x)[0].sum() + layer(x[:, :1])[0].sum())
    with pytest.raises(ValueError, match="with an RNN, LSTM or GRU of momentumrnn"):
        hidden_gradient_norms(nn.LSTM(3, 4), lambda: x.sum())
    with pytest.raises(TypeError, match=r"torch.nn.Module, got function"):
        hidden_gradient_norms(lambda: x, lambda: x.sum())
    with pytest.raises(ValueError, match="reduction"):
        hidden_gradient_norms(layer, lambda: layer(x)[0].sum()).reduce("mean")
