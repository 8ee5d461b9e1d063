"""The filter with coefficients for each channel, in C++ and in torch, against a loop in float64."""

import itertools

import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from momentumrnn import backend, kernels
from momentumrnn.kernels import adaptive_operator
from momentumrnn.kernels.channel_filter import channel_filter_in_torch
from momentumrnn.kernels.extension import extension, forced_isa, missing
from momentumrnn.kernels.packed import PackedRows

KERNELS = extension()
ISAS = KERNELS.isas() if KERNELS else []
built = pytest.mark.skipif(KERNELS is None, reason=str(missing()))
DTYPES = [torch.float32, torch.float64]
# Of the largest value, or of 1 where all are smaller.
OUTPUTS = {torch.float32: 2e-5, torch.float64: 1e-12}
GRADIENTS = {torch.float32: 2e-4, torch.float64: 1e-10}

# T, B, D (0: the drive is ready), C: around the 8 steps of a run, the 16 of a chunk and the 32 between kept
# states, around a vector's width, and so large that results are written past the cache.
SIZES = [
    (1, 1, 1, 1),
    (1, 4, 0, 3),
    (2, 3, 0, 17),
    (7, 1, 2, 5),
    (8, 2, 1, 16),
    (9, 3, 40, 33),
    (16, 1, 0, 1),
    (17, 2, 5, 65),
    (33, 3, 1, 65),
    (65, 2, 3, 70),
    (97, 1, 70, 9),
    (40, 5, 0, 129),
    (300, 2, 1, 7),
    (40, 28, 0, 1000),
    (40, 28, 1, 1024),
]


@pytest.fixture(autouse=True)
def _threads_as_they_were():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def loop(x, weight, bias, coefficients, initial, lengths):
    """The filter as its equations say it, sequence by sequence, step by step, in complex numbers."""
    drive = x if weight is None else x @ weight.T
    drive = drive if bias is None else drive + bias
    if coefficients.shape[0] == 5:
        mu, c, e = torch.complex(*coefficients[:2]), torch.complex(*coefficients[2:4]), coefficients[4]
    else:
        mu, c, e = coefficients
    outputs, last = [], []
    for b in range(x.shape[1]):
        u = torch.zeros_like(mu)
        if initial is not None:
            u = initial[0, b] if initial.shape[0] == 1 else torch.complex(initial[0, b], initial[1, b])
        steps = []
        for t in range(lengths[b]):
            u = mu * u + drive[t, b]
            d = c * u
            steps.append(e * drive[t, b] + (d.real if d.is_complex() else d))
        outputs.append(torch.stack(steps))
        last.append(torch.stack([u.real, u.imag]) if u.is_complex() else u.unsqueeze(0))
    return outputs, torch.stack(last, dim=1)


class Case:
    """What a filter runs on, in float64 though float32 can hold it."""

    def __init__(self, sizes, kind, packed, started, bias=True):
        T, B, D, C = sizes
        self.lengths = [T] * B
        if packed:
            self.lengths = sorted([T, *torch.randint(1, T + 1, (B - 1,)).tolist()], reverse=True)
        self.sizes = torch.tensor([sum(n > t for n in self.lengths) for t in range(T)])
        self.packed = PackedRows(self.sizes, torch.device("cpu")) if packed else None
        self.x = torch.randn(T, B, D or C).double()
        self.weight = (torch.randn(C, D) * D**-0.5).double() if D else None
        self.bias = torch.randn(C).double() if D and bias else None
        turn, radius = torch.rand(C) * torch.pi, torch.rand(C) * 0.98
        momentum = [radius * turn.cos(), radius * turn.sin()] if kind == "complex" else [radius]
        rest = torch.randn(len(momentum) + 1, C)
        self.coefficients = torch.cat([torch.stack(momentum), rest]).float().double()
        self.initial = torch.randn(len(momentum), B, C).double() if started else None

    @property
    def tensors(self):
        return [self.x, self.weight, self.bias, self.coefficients, self.initial]

    def rows(self, padded):
        """What the filter takes: (T, B, n), or the rows of a packed batch."""
        if self.packed is None:
            return padded
        return torch.cat([padded[t, :size] for t, size in enumerate(self.sizes)])

    def results(self, function, dtype):
        """d, the last u, and the gradient of all that goes in."""
        leaves = [None if part is None else part.to(dtype).requires_grad_() for part in self.tensors]
        if function is loop:
            outputs, last = loop(*leaves, self.lengths)
            d = self.rows(torch.nn.utils.rnn.pad_sequence(outputs))
        else:
            d, last, *_ = function(self.rows(leaves[0]), *leaves[1:], self.packed)
        torch.manual_seed(3)
        loss = sum((part * torch.randn(part.shape).to(dtype)).sum() for part in (d, last))
        given = [leaf for leaf in leaves if leaf is not None]
        gradients = grad(loss, given, materialize_grads=True)
        return [d.detach(), last.detach()], gradients


def drawn_cases():
    options = itertools.cycle(itertools.product((False, True), (False, True), (True, False)))
    return [
        pytest.param(sizes, kind, *next(options), id=f"{sizes} {kind}")
        for sizes, kind in itertools.product(SIZES, ("real", "complex"))
    ]


def assert_same(got, expected, dtype):
    for tolerance, ours, theirs in zip((OUTPUTS, GRADIENTS), got, expected, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape
            assert a.dtype == dtype
            scale = max(1.0, b.abs().max().item())
            assert (a.double() - b).abs().max().item() / scale < tolerance[dtype]


@built
@pytest.mark.parametrize(("sizes", "kind", "packed", "started", "bias"), drawn_cases())
def test_the_filter_is_the_loop_with_all_gradients(sizes, kind, packed, started, bias):
    case = Case(sizes, kind, packed, started, bias)
    expected = case.results(loop, torch.float64)
    for isa, dtype, threads in zip(ISAS * 2, DTYPES * len(ISAS), itertools.cycle([1, 2, 3]), strict=False):
        torch.set_num_threads(threads)
        with forced_isa(isa):
            assert_same(case.results(kernels.channel_filter, dtype), expected, dtype)


@pytest.mark.parametrize(("sizes", "kind", "packed", "started", "bias"), drawn_cases())
def test_torch_s_operators_give_the_same(sizes, kind, packed, started, bias):
    case = Case(sizes, kind, packed, started, bias)
    expected = case.results(loop, torch.float64)
    for dtype in DTYPES:
        assert_same(case.results(channel_filter_in_torch, dtype), expected, dtype)


def test_the_reference_runs_in_torch_s_operators():
    case = Case((5, 2, 3, 4), "real", False, True)
    with backend("reference"):
        d, last, made_of = kernels.channel_filter(*case.tensors, None)
    assert made_of is None
    expected = channel_filter_in_torch(*case.tensors, None)
    assert torch.equal(d, expected[0])
    assert torch.equal(last, expected[1])


@built
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("D", [0, 1, 5, 70])
def test_each_gradient_alone_is_the_one_that_comes_with_all(D, kind):
    """Without that of the coefficients the kernel goes back without the states."""
    for packed in (False, True):
        case = Case((40, 3, D, 70), kind, packed, True)
        leaves = [None if part is None else part.clone() for part in case.tensors]
        leaves[0] = case.rows(leaves[0])

        def gradients(wanted, leaves=leaves, case=case):
            for k, leaf in enumerate(leaves):
                if leaf is not None:
                    leaf.requires_grad_(k in wanted)
            d, last, _ = kernels.channel_filter(*leaves, case.packed)
            loss = (d * torch.linspace(-1, 1, 70)).sum() + last.square().sum()
            return grad(loss, [leaves[k] for k in wanted])

        there = [k for k, leaf in enumerate(leaves) if leaf is not None]
        together = dict(zip(there, gradients(there), strict=True))
        for k, expected in together.items():
            assert_close(gradients([k])[0], expected, rtol=1e-12, atol=1e-12)
        with torch.no_grad():
            without = kernels.channel_filter(*leaves, case.packed)
        for a, b in zip(without[:2], kernels.channel_filter(*leaves, case.packed)[:2], strict=True):
            assert torch.equal(a, b)


@built
@pytest.mark.parametrize("D", [0, 1, 5])
@pytest.mark.parametrize("interval", [1, 5, 12, 50])
def test_how_often_states_are_kept_changes_no_result(interval, D, monkeypatch):
    monkeypatch.setattr(adaptive_operator, "INTERVAL", interval)
    for kind in ("real", "complex"):
        case = Case((29, 3, D, 70), kind, True, True)
        expected = case.results(loop, torch.float64)
        assert_same(case.results(kernels.channel_filter, torch.float64), expected, torch.float64)


@built
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("isa", ISAS)
def test_the_same_bits_on_any_number_of_threads(isa, kind):
    for packed, D in itertools.product((False, True), (0, 1)):
        case = Case((60, 40, D, 70), kind, packed, True)
        results = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            with forced_isa(isa):
                results.append(list(itertools.chain(*case.results(kernels.channel_filter, torch.float32))))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


# C++ on each instruction set, and torch's operators.
RUNS = [*(pytest.param(isa, marks=built, id=isa) for isa in ISAS), pytest.param(None, id="torch")]


@pytest.mark.parametrize("ill", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("isa", RUNS)
def test_what_is_not_finite_reaches_no_earlier_step(isa, kind, ill):
    for packed, D in itertools.product((False, True), (0, 1, 5)):
        case = Case((60, 5, D, 70), kind, packed, True)
        for place in (0, 3, 16, 37):
            spoilt = case.x.clone()
            spoilt[place, 0] = ill
            d = []
            for x in (case.x, spoilt):
                given = (case.rows(x), *case.tensors[1:], case.packed)
                if isa is None:
                    rows = channel_filter_in_torch(*given)[0]
                else:
                    with forced_isa(isa):
                        rows = kernels.channel_filter(*given)[0]
                d.append(rows if case.packed is None else case.packed.pad(rows))
            assert torch.equal(d[0][:place], d[1][:place])
            assert torch.equal(d[0][:, 1:], d[1][:, 1:])
            assert not d[1][place, 0].isfinite().any()


def test_zero_momentum_and_slow_decay():
    """d is the drive where μ = 0; 10 000 equal steps with μ = 0.999 end where their sum does."""
    x = torch.full((10_000, 1, 2), 0.1)
    coefficients = torch.tensor([[0.0, 0.999], [1.0, 1.0], [0.0, 0.0]])
    for function in (kernels.channel_filter, channel_filter_in_torch):
        d = function(x, None, None, coefficients, None, None)[0]
        expected = torch.tensor([0.1, 0.1 * (1 - 0.999**10_000) / (1 - 0.999)])
        assert_close(d[-1, 0], expected, rtol=1e-4, atol=0.0)


@built
@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("D", [0, 2])
def test_derivatives_of_derivatives(D, packed, kind):
    case = Case((5, 2, D, 3), kind, packed, True)
    given = [
        part.clone().requires_grad_() for part in (case.rows(case.x), *case.tensors[1:]) if part is not None
    ]

    def function(*parts):
        parts = parts if D else (parts[0], None, None, *parts[1:])
        return kernels.channel_filter(*parts, case.packed)[:2]

    gradcheck(function, given)
    gradgradcheck(function, given)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("D", [0, 2])
def test_transforms_of_functions(D, kind):
    case = Case((5, 2, D, 3), kind, False, True)
    x, weight, bias, coefficients, initial = case.tensors

    def loss(x, coefficients, initial):
        d, last, _ = kernels.channel_filter(x, weight, bias, coefficients, initial, None)
        return d.square().sum() + last.sum()

    leaves = [part.clone().requires_grad_() for part in (x, coefficients, initial)]
    expected = grad(loss(*leaves), leaves)
    for a, b in zip(torch.func.grad(loss, (0, 1, 2))(x, coefficients, initial), expected, strict=True):
        assert_close(a, b)
    tangents = [torch.randn_like(part) for part in leaves]
    slope = torch.func.jvp(loss, (x, coefficients, initial), tuple(tangents))[1]
    assert_close(slope, sum((a * b).sum() for a, b in zip(expected, tangents, strict=True)))
    many = torch.stack([coefficients, coefficients * 0.5])
    each = torch.func.vmap(torch.func.grad(loss, 1), in_dims=(None, 0, None))(x, many, initial)
    for got, one in zip(each, many, strict=True):
        assert_close(got, torch.func.grad(loss, 1)(x, one, initial))
    hessian = torch.func.hessian(loss, 1)(x, coefficients, initial)
    assert hessian.isfinite().all()
