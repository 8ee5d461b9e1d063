"""The orthogonal matrix as a module: starts, changes of base, and what must not undo them."""

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from momentumrnn.errors import InputError
from momentumrnn.parametrizations import Orthogonal, parameter_groups

MAPS = ["exp", "cayley"]
STARTS = ["cayley", "henaff", "haar", "identity"]
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-2),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    "adam, fused": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, fused=True),
    "adam, one by one": lambda parameters: torch.optim.Adam(parameters, lr=1e-2, foreach=False),
    "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, lr=0.1, max_iter=2),
}


def distance(matrix):
    one = torch.eye(matrix.shape[0], dtype=torch.float64)
    return float((matrix.detach().double().t() @ matrix.detach().double() - one).abs().max())


def loss_of(matrix):
    target = torch.linspace(-1, 1, matrix.size**2).view(matrix.size, matrix.size)
    return (matrix() - target.to(matrix.base)).square().sum()


def step(matrix, optimizer):
    def closure():
        optimizer.zero_grad()
        loss = loss_of(matrix)
        loss.backward()
        return loss

    optimizer.step(closure)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", MAPS)
def test_a_start_is_a_rotation(name, start, size):
    matrix = Orthogonal(size, map=name, start=start, dtype=torch.float64)
    assert distance(matrix()) < 1e-12
    assert torch.linalg.det(matrix()) > 0
    if start in ("haar", "identity"):
        assert not matrix.skew.any()
    if start != "haar":
        assert torch.equal(matrix.base, torch.eye(size, dtype=torch.float64))


@pytest.mark.parametrize(("start", "low", "high"), [("cayley", -1.0, 0.0), ("henaff", -math.pi, math.pi)])
def test_entries_at_the_start_stand_in_blocks_and_fill_their_range(start, low, high):
    matrix = Orthogonal(401, start=start)
    upper = torch.zeros(401 * 401).index_put((matrix.places,), matrix.skew.detach()).view(401, 401)
    entries = upper[torch.arange(0, 400, 2), torch.arange(1, 401, 2)]
    assert upper.count_nonzero() == 200 == entries.count_nonzero()
    span = high - low
    assert low <= entries.min() < low + 0.1 * span
    assert high - 0.1 * span < entries.max() <= high
    if start == "cayley":
        # tan(θ / 2) with θ uniform: half of them below tan(π / 8).
        assert abs((entries.abs() < math.tan(math.pi / 8)).float().mean() - 0.5) < 0.12


def test_haar_draws_have_haars_moments():
    draws = torch.stack([Orthogonal(3, start="haar")() for _ in range(3000)])
    # Of an entry, a row, and of the trace: 0, 1/3, 1.
    assert draws.mean(0).abs().max() < 0.05
    assert (draws.square().mean(0) - 1 / 3).abs().max() < 0.03
    traces = draws.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(traces.mean()) < 0.08
    assert abs(traces.square().mean() - 1) < 0.12


@pytest.mark.parametrize("every", [1, 3, 100, math.inf, None])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_base_changes_by_itself_and_on_time(optimizer, every):
    matrix = Orthogonal(5, rebase_every=every)
    optimizer = OPTIMIZERS[optimizer](matrix.parameters())
    due = {None: lambda k: False, math.inf: lambda k: k == 1}.get(every, lambda k: k % every == 0)
    changes = 0
    for k in range(1, 8):
        base = matrix.base.clone()
        step(matrix, optimizer)
        assert torch.equal(matrix.base, base) != due(k)
        assert bool(matrix.skew.any()) != due(k)
        changes += due(k)
        assert (int(matrix.steps), int(matrix.changes)) == ((k, changes) if every else (0, 0))


@pytest.mark.parametrize("name", MAPS)
def test_a_change_of_base_leaves_the_matrix(name):
    matrix = Orthogonal(20, map=name, start="henaff")
    nn.init.normal_(matrix.skew, std=0.3)
    before = matrix()
    matrix.rebase()
    assert_close(matrix(), before, rtol=0, atol=3e-7)
    assert not matrix.skew.any()
    assert torch.equal(matrix(), matrix.base)
    # And to rounding where the base is put back onto the group.
    matrix.base += 1e-5 * torch.randn(20, 20)
    before = matrix.base.clone()
    matrix.project()
    assert distance(matrix()) < 1e-6 < distance(before)
    assert_close(matrix.base, before, rtol=0, atol=1e-4)


def test_the_hundredth_change_projects(monkeypatch):
    matrix = Orthogonal(4, rebase_every=1)
    projected = []
    monkeypatch.setattr(matrix, "project", lambda: projected.append(int(matrix.changes)))
    optimizer = torch.optim.SGD(matrix.parameters(), lr=1e-3)
    for _ in range(250):
        step(matrix, optimizer)
    assert projected == [100, 200]


@pytest.mark.parametrize("every", [1, 100, math.inf])
@pytest.mark.parametrize("optimizer", ["rmsprop", "adam"])
@pytest.mark.parametrize("name", MAPS)
def test_it_stays_orthogonal(name, optimizer, every):
    matrix = Orthogonal(12, map=name, rebase_every=every)
    optimizer = OPTIMIZERS[optimizer](matrix.parameters())
    for _ in range(300):
        step(matrix, optimizer)
    assert distance(matrix()) < 1e-5


def test_the_descent_is_the_one_on_the_group():
    """At A = 0 a step moves U to U exp(-lr (Uᵀ G - Gᵀ U)), G the gradient by U's entries."""
    found = []
    for rebased in (False, True):
        torch.manual_seed(0)
        matrix = Orthogonal(6, start="haar", rebase_every=1, dtype=torch.float64)
        if rebased:
            matrix.rebase()
        optimizer = torch.optim.SGD(matrix.parameters(), lr=0.1)
        before = matrix().detach()
        point = before.clone().requires_grad_()
        target = torch.linspace(-1, 1, 36, dtype=torch.float64).view(6, 6)
        (gradient,) = torch.autograd.grad((point - target).square().sum(), point)
        step(matrix, optimizer)
        direction = before.t() @ gradient
        assert_close(matrix().detach(), before @ torch.linalg.matrix_exp(-0.1 * (direction - direction.t())))
        found.append(matrix().detach())
    assert_close(*found)


def test_who_counts_as_a_step():
    matrix, other = Orthogonal(4, rebase_every=2), nn.Linear(2, 2)
    mine, theirs = torch.optim.SGD(matrix.parameters(), lr=0.1), torch.optim.SGD(other.parameters(), lr=0.1)
    theirs.step()
    mine.step()  # no gradient: passed over
    assert int(matrix.steps) == 0
    for _ in range(3):  # gradient accumulation
        loss_of(matrix).backward()
    assert int(matrix.steps) == 0
    mine.step()
    assert int(matrix.steps) == 1
    both = torch.optim.SGD([*matrix.parameters(), *other.parameters()], lr=0.1)
    both.step()
    assert (int(matrix.steps), int(matrix.changes)) == (2, 1)


# A fused optimizer is told to pass over the step, and passes over it itself.
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_gradient_scaler_skips_is_none(fused):
    matrix = Orthogonal(4, rebase_every=1)
    optimizer = torch.optim.SGD(matrix.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu")
    for factor, expected in ((1.0, 1), (math.inf, 1), (1.0, 2)):
        optimizer.zero_grad()
        scaler.scale(loss_of(matrix) * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        assert int(matrix.steps) == expected


def test_under_autocast_it_stays_float32():
    matrix = Orthogonal(8, rebase_every=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        now = matrix()
        loss_of(matrix).backward()
        torch.optim.SGD(matrix.parameters(), lr=0.1).step()
    assert now.dtype == torch.float32
    assert distance(now) < 1e-6
    assert int(matrix.changes) == 1
    assert distance(matrix()) < 1e-6


def run_on(matrix, optimizer, steps=5):
    for _ in range(steps):
        step(matrix, optimizer)
    return matrix().detach(), int(matrix.steps), int(matrix.changes)


def through_pickle(matrix):
    return pickle.loads(pickle.dumps(matrix))


def through_torch_save(matrix):
    buffer = io.BytesIO()
    torch.save(matrix.state_dict(), buffer)
    buffer.seek(0)
    other = Orthogonal(matrix.size, matrix.map, matrix.rebase_every, start="haar")
    other.load_state_dict(torch.load(buffer, weights_only=True))
    return other


@pytest.mark.parametrize("every", [1, 3, math.inf])
@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_torch_save])
def test_copies_go_on_as_the_original_does(copied, every):
    matrix = Orthogonal(5, rebase_every=every)
    optimizer = torch.optim.RMSprop(matrix.parameters(), lr=1e-2)
    for _ in range(4):
        step(matrix, optimizer)
    other = copied(matrix)
    assert torch.equal(other(), matrix())
    its = torch.optim.RMSprop(other.parameters(), lr=1e-2)
    its.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = matrix().detach()
    got = run_on(other, its)
    assert torch.equal(matrix(), before), "the copy's steps moved the original"
    expected = run_on(matrix, optimizer)
    assert torch.equal(got[0], expected[0])
    assert got[1:] == expected[1:]


def test_evaluation_changes_nothing():
    matrix = Orthogonal(5, rebase_every=2).eval()
    state = {name: value.clone() for name, value in matrix.state_dict().items()}
    with torch.no_grad():
        for _ in range(5):
            matrix()
    assert all(torch.equal(value, state[name]) for name, value in matrix.state_dict().items())


def test_the_optimizers_state_stays():
    matrix = Orthogonal(5, rebase_every=3)
    optimizer = torch.optim.Adam(matrix.parameters(), lr=1e-2)
    for _ in range(2):
        step(matrix, optimizer)
    moments = optimizer.state[matrix.skew]
    kept = {name: value.clone() for name, value in moments.items()}
    matrix.rebase()
    assert all(torch.equal(value, kept[name]) for name, value in moments.items())
    step(matrix, optimizer)
    assert int(moments["step"]) == 3
    assert moments["exp_avg"].any()


def test_a_compiled_model_sees_the_new_base():
    matrix = Orthogonal(5, rebase_every=1)
    compiled = torch.compile(matrix, backend="eager", fullgraph=True)
    optimizer = torch.optim.SGD(matrix.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (compiled() - torch.ones(5, 5)).square().tril().sum().backward()
        optimizer.step()
        assert_close(compiled(), matrix(), rtol=0, atol=1e-6)
    assert int(matrix.changes) == 3


def test_a_matrix_can_be_assigned():
    matrix, wanted = Orthogonal(5, rebase_every=1), torch.linalg.qr(torch.randn(5, 5)).Q
    matrix.assign(wanted)
    assert_close(matrix(), wanted)
    with pytest.raises(InputError, match="shape"):
        matrix.assign(torch.eye(4))
    for bad in (torch.ones(5, 5), torch.full((5, 5), math.nan)):
        with pytest.raises(InputError, match="polar"):
            matrix.assign(bad)
    assert_close(matrix(), wanted)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"map": "expm"}, ValueError, "cayley"),
        ({"start": "henaf"}, ValueError, "henaff"),
        ({"rebase_every": 0}, ValueError, "1 or more"),
        ({"rebase_every": 2.5}, ValueError, "whole"),
        ({"rebase_every": -math.inf}, ValueError, "whole"),
        ({"rebase_every": math.nan}, ValueError, "whole"),
        ({"rebase_every": True}, TypeError, "math.inf"),
        ({"rebase_every": "100"}, TypeError, "math.inf"),
    ],
)
def test_bad_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        Orthogonal(5, **arguments)


def test_groups():
    model = nn.Sequential(nn.Linear(2, 3), Orthogonal(4), Orthogonal(5))
    first, second = parameter_groups(model, 0.1, 0.02)
    assert [id(p) for p in second["params"]] == [id(model[1].skew), id(model[2].skew)]
    assert (first["lr"], second["lr"], len(first["params"])) == (0.1, 0.02, 2)
    assert len(parameter_groups(nn.Linear(2, 3), 0.1, 0.02)) == 1
