"""The momentum rules in C++: by themselves against a loop, and in layers against ``backend("reference")``."""

import copy
import itertools
import random

import pytest
import torch
from torch.autograd import grad
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

import oracle
from cases import (
    CELLS,
    LINEAR_RULES,
    ORTHOGONAL_CELLS,
    RULE_CASES,
    RULES,
    VELOCITIES,
    flat,
    has_memory_cell,
    make_layer,
    make_rule,
    oracle_rule,
    random_memory,
    state_of,
)
from momentumrnn import LSTM, LSTMCell, backend, kernels, rules
from momentumrnn.errors import BackendError
from momentumrnn.kernels import adaptive_operator
from momentumrnn.kernels.extension import extension, forced_isa, missing
from momentumrnn.kernels.packed import PackedRows

KERNELS = extension()
pytestmark = pytest.mark.skipif(KERNELS is None, reason=str(missing()))
ISAS = KERNELS.isas() if KERNELS else []

ADAPTIVE_RULES = ["adam", "rmsprop"]
DTYPES = [torch.float32, torch.float64]
# Of the largest value; or of this, where all are about to vanish.
OUTPUTS = {torch.float32: 1e-5, torch.float64: 1e-12}
GRADIENTS = {torch.float32: 1e-4, torch.float64: 1e-11}
SMALLEST_SCALE = 0.1


@pytest.fixture(autouse=True)
def _threads_as_they_were():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def error(got, expected):
    assert got.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    scale = max(expected.abs().max().item(), SMALLEST_SCALE)
    return (got.double() - expected.double()).abs().max().item() / scale


def random_lengths(T, B):
    return sorted([T, *torch.randint(1, T + 1, (B - 1,)).tolist()], reverse=True)


def representable(*shape):
    """Random numbers in float64 that float32 holds too."""
    return torch.randn(*shape).double()


class Form:
    """A dense batch, or a packed one of given lengths, longest first."""

    def __init__(self, T, B, lengths=None):
        self.T, self.B, self.lengths = T, B, lengths
        self.sizes = self.packed = None
        if lengths is not None:
            self.sizes = torch.tensor([sum(n > t for n in lengths) for t in range(T)])
            self.packed = PackedRows(self.sizes, torch.device("cpu"))

    @property
    def rows(self):
        return (self.T, self.B) if self.lengths is None else (sum(self.lengths),)

    def pad(self, rows):
        if self.lengths is None:
            return rows
        return pad_packed_sequence(PackedSequence(rows, self.sizes))[0]

    def pack(self, padded):
        return padded if self.lengths is None else pack_padded_sequence(padded, self.lengths).data

    def last(self, padded):
        ends = [self.T] * self.B if self.lengths is None else self.lengths
        return padded[torch.tensor(ends) - 1, torch.arange(self.B)]


def forms(T, B):
    yield Form(T, B)
    yield Form(T, B, random_lengths(T, B))


def filter_loop(x, ones, decay, gain, form):
    """The linear rule over [x, 1], one step after the other."""
    x = form.pad(x)
    if ones:
        x = torch.cat([x, torch.ones(*x.shape[:2], 1, dtype=x.dtype)], dim=2)
    decay = torch.as_tensor(decay, dtype=torch.float64)
    decay = (decay if decay.dim() == 2 else decay.reshape(-1, 1)).expand(form.T, form.B)
    p, steps = torch.zeros_like(x[0]), []
    for t in range(form.T):
        p = decay[t][:, None] * p + gain * x[t]
        steps.append(p)
    return form.pack(torch.stack(steps)), form.last(torch.stack(steps))


def filter_and_gradient(function, x, ones, decay, gain, form):
    x = x.clone().requires_grad_()
    p, last = function(x, ones, decay, gain, form)
    torch.manual_seed(1)
    weights = [torch.randn(p.shape).to(p.dtype), torch.randn(last.shape).to(p.dtype)]
    results = [p.detach(), last.detach()]
    # With and without a gradient from the last step, and from nothing else.
    for chosen in ([0, 1], [0], [1]):
        loss = sum(((p, last)[k] * weights[k]).sum() for k in chosen)
        results += grad(loss, x, retain_graph=True)
    return results


def filter_in_cpp(x, ones, decay, gain, form):
    return kernels.linear_filter(x, ones, decay, gain, form.packed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ones", [True, False])
@pytest.mark.parametrize("decays", ["a number", "of one step", "each step", "each step and sequence"])
@pytest.mark.parametrize("isa", ISAS)
def test_a_linear_filter_is_a_loop_over_time(isa, decays, ones, dtype):
    sizes = [(1, 1, 1), (1, 4, 3), (7, 1, 1), (9, 3, 5), (5, 40, 17), (60, 13, 2), (31, 2, 33), (6, 5, 16)]
    for T, B, D in sizes:
        for form in forms(T, B):
            decay = {
                "a number": 0.9,
                "of one step": torch.rand(1),
                "each step": torch.rand(T),
                "each step and sequence": torch.rand(T, B),
            }[decays]
            decay = decay.double() if isinstance(decay, torch.Tensor) else decay
            x = representable(*form.rows, D)
            with forced_isa(isa):
                got = filter_and_gradient(filter_in_cpp, x.to(dtype), ones, decay, 0.7, form)
            expected = filter_and_gradient(filter_loop, x, ones, decay, 0.7, form)
            for a, b in zip(got, expected, strict=True):
                assert a.dtype == dtype
                assert error(a, b) < OUTPUTS[dtype]


@pytest.mark.parametrize("isa", ISAS)
def test_a_linear_filter_gives_the_same_bits_on_any_number_of_threads(isa):
    for form in forms(50, 40):
        x, decay = torch.randn(*form.rows, 33), torch.rand(50, 40, dtype=torch.float64)
        results = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            with forced_isa(isa):
                results.append(filter_and_gradient(filter_in_cpp, x, True, decay, 0.5, form))
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_a_linear_filter_forgets_nothing_in_float32():
    """10 000 equal steps with μ = 0.9999 end where their sum does, not where float32 stops counting."""
    x = torch.full((10_000, 1, 1), 0.1)
    p, last = kernels.linear_filter(x, True, 0.9999, 1.0, None)
    sum_of_powers = (1 - 0.9999**10_000) / (1 - 0.9999)
    assert_close(p[-1, 0].double(), torch.tensor([0.1, 1.0]).double() * sum_of_powers, rtol=2e-7, atol=0)
    assert torch.equal(last, p[-1])


@pytest.mark.parametrize("operation", ["linear", "adam"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_a_nan_stays_in_its_sequence(isa, dtype, operation):
    rule = make_rule("adam").bind(19)
    weight = torch.randn(19, 3, dtype=dtype)

    def run(x, form):
        x = x.clone().requires_grad_()
        if operation == "linear":
            d, _ = kernels.linear_filter(x, True, 0.5, 1.0, form.packed)
        else:
            d, _ = adaptive_rule(x, weight, None, rule, None, form.packed)
        (slope,) = grad(d.sum(), x)
        return form.pad(d.detach()), form.pad(slope)

    for form in forms(7, 15):
        x = torch.randn(*form.rows, 3, dtype=dtype)
        place = 3 if form.lengths is None or form.lengths[6] > 3 else 0
        ill = form.pad(x).clone()
        ill[place, 6] = torch.nan
        with forced_isa(isa):
            healthy, infected = run(x, form), run(form.pack(ill), form)
        end = 7 if form.lengths is None else form.lengths[6]
        assert infected[0][place:end, 6, :-1].isnan().all()
        for a, b in zip(infected, healthy, strict=True):
            others = [*range(6), *range(7, 15)]
            assert torch.equal(a[:, others], b[:, others])
            assert not a.isinf().any()
        assert torch.equal(infected[0][:place], healthy[0][:place])


def adaptive_loop(x, weight, bias, rule, state, form):
    """The rule over the drive of x as the oracle states it, and its state after each sequence's last step."""
    drive = form.pad(x) @ weight.T + (0.0 if bias is None else bias)
    zeros = torch.zeros(form.B, weight.shape[0], dtype=torch.float64)
    memory = oracle.Memory(zeros, zeros, torch.zeros(form.B, dtype=torch.int64))
    if state is not None:
        memory = memory._replace(m=state.second_moment)
        if isinstance(rule, rules.Adam):
            memory = memory._replace(v=state.velocity)
    name = "adam" if isinstance(rule, rules.Adam) else "rmsprop"
    outputs, memories = [], []
    for a in drive:
        d, memory = oracle.rule_step(oracle_rule(name, rule), a, memory)
        outputs.append(d)
        memories.append(memory)
    v, m = (form.last(torch.stack([getattr(each, part) for each in memories])) for part in "vm")
    state = rules.AdamState(v, m) if name == "adam" else rules.RMSPropState(m)
    return form.pack(torch.stack(outputs)), state


def adaptive_rule(*arguments):
    """d and the rule's new state."""
    inputs, state = kernels.adaptive_rule("cpu", *arguments)
    return inputs.features, state


def adaptive_in_cpp(x, weight, bias, rule, state, form):
    return adaptive_rule(x, weight, bias, rule, state, form.packed)


def drawn_rule(name, learnable, channels):
    """A rule with learned coefficients away from where they start, in float64 though float32 can hold it."""
    rule = make_rule(name, learnable=learnable).bind(channels)
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter.uniform_(-0.5, 0.5)
    return rule.double()


def drawn_state(name, form, channels):
    v, m = representable(form.B, channels), torch.rand(form.B, channels).double()
    return rules.AdamState(v, m) if name == "adam" else rules.RMSPropState(m)


def adaptive_and_gradients(function, dtype, x, weight, bias, rule, state, form):
    """What the rule gives and the gradient of all that goes in, each with its name."""
    rule = copy.deepcopy(rule).to(dtype)
    leaves = {"x": x, "weight": weight, "bias": bias}
    if state is not None:
        leaves |= state._asdict()
    leaves = {k: t.detach().to(dtype).requires_grad_() for k, t in leaves.items() if t is not None}
    given = None if state is None else type(state)(*(leaves[k] for k in state._fields))
    d, new = function(leaves["x"], leaves["weight"], leaves.get("bias"), rule, given, form)
    results = {"d": d, **{f"last {k}": part for k, part in new._asdict().items()}}
    torch.manual_seed(1)
    loss = sum((part * torch.randn(part.shape).to(dtype)).sum() for part in results.values())
    leaves |= dict(rule.named_parameters())
    gradients = dict(zip(leaves, grad(loss, list(leaves.values()), materialize_grads=True), strict=True))
    return {k: part.detach() for k, part in results.items()}, gradients


# T, B, D, C: around the 32 steps from one kept state to the next and around a vector's width.
ADAPTIVE_SIZES = [
    (1, 1, 1, 1),
    (1, 5, 5, 3),
    (2, 1, 16, 17),
    (3, 2, 17, 33),
    (5, 40, 40, 65),
    (31, 3, 1, 7),
    (32, 2, 5, 16),
    (33, 1, 16, 31),
    (64, 4, 17, 5),
    (65, 3, 1, 48),
    (97, 2, 40, 9),
    (12, 13, 5, 129),
    # Of so many features the product with W is kept.
    (9, 3, 65, 7),
    # So large that results are written past the cache: in rows of whole vectors, and in others.
    (33, 32, 1, 1024),
    (66, 16, 17, 1000),
    (40, 28, 70, 1000),
    (40, 27, 70, 1001),
]


def drawn_problem(name, sizes, learnable):
    T, B, D, C = sizes
    draw = random.Random(f"{name} {sizes} {learnable}")
    form = Form(T, B, random_lengths(T, B) if draw.random() < 0.5 else None)
    bias = representable(C) if draw.random() < 0.6 else None
    state = drawn_state(name, form, C) if draw.random() < 0.6 else None
    weight = (torch.randn(C, D) * D**-0.5).double()
    return form, representable(*form.rows, D), weight, bias, state


@pytest.mark.parametrize("learnable", [False, True, "channel"])
@pytest.mark.parametrize("sizes", ADAPTIVE_SIZES, ids=str)
@pytest.mark.parametrize("name", ADAPTIVE_RULES)
def test_an_adaptive_rule_is_the_oracle_with_all_gradients(name, sizes, learnable):
    form, x, weight, bias, state = drawn_problem(name, sizes, learnable)
    rule = drawn_rule(name, learnable, sizes[3])
    inputs = (x, weight, bias, rule, state, form)
    expected = adaptive_and_gradients(adaptive_loop, torch.float64, *inputs)
    for isa, dtype, threads in zip(ISAS * 2, DTYPES * len(ISAS), itertools.cycle([1, 2, 3]), strict=False):
        torch.set_num_threads(threads)
        with forced_isa(isa):
            got = adaptive_and_gradients(adaptive_in_cpp, dtype, *inputs)
        for tolerance, ours, theirs in zip((OUTPUTS, GRADIENTS), got, expected, strict=True):
            assert ours.keys() == theirs.keys()
            for key, value in ours.items():
                assert value.dtype == dtype
                assert error(value, theirs[key]) < tolerance[dtype], key


@pytest.mark.parametrize("features", [1, 5, 70])
@pytest.mark.parametrize("interval", [1, 5, 12, 50])
def test_how_often_states_are_kept_changes_no_result(interval, features, monkeypatch):
    """The kernel goes through a few steps at once, and backward from one kept state to the next."""
    monkeypatch.setattr(adaptive_operator, "INTERVAL", interval)
    form, x, weight, bias, state = drawn_problem("adam", (29, 3, features, 19), True)
    inputs = (x, weight, bias, drawn_rule("adam", True, 19), state, form)
    expected = adaptive_and_gradients(adaptive_loop, torch.float64, *inputs)
    got = adaptive_and_gradients(adaptive_in_cpp, torch.float64, *inputs)
    for tolerance, ours, theirs in zip((OUTPUTS, GRADIENTS), got, expected, strict=True):
        for key, value in ours.items():
            assert error(value, theirs[key]) < tolerance[torch.float64], key


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ADAPTIVE_RULES)
def test_an_adaptive_rule_without_gradients_gives_the_same(name, packed):
    for T, B, D, C in ((40, 3, 1, 17), (3, 4, 40, 9)):
        form = Form(T, B, random_lengths(T, B) if packed else None)
        rule, state = make_rule(name).bind(C), drawn_state(name, form, C)
        x, weight = torch.randn(*form.rows, D), torch.randn(C, D)
        state = type(state)(*(part.float() for part in state))
        with torch.no_grad():
            expected = adaptive_rule(x, weight, None, rule, state, form.packed)
        got = adaptive_rule(x, weight.requires_grad_(), None, rule, state, form.packed)
        for a, b in zip(flat(got), flat(expected), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ADAPTIVE_RULES)
def test_each_gradient_of_an_adaptive_rule_alone_is_the_one_that_comes_with_all(name):
    for D, lengths in itertools.product((1, 5, 17), (None, [40, 33, 32, 1])):
        form = Form(40, 4, lengths)
        x, weight, bias = torch.randn(*form.rows, D), torch.randn(19, D), torch.randn(19)
        state = drawn_state(name, form, 19)
        rule = drawn_rule(name, "channel", 19).float()
        leaves = [x, weight, bias, *(part.float() for part in state), *rule.parameters()]

        def gradients(wanted, leaves=leaves, form=form, state=state, rule=rule):
            for k, leaf in enumerate(leaves):
                leaf.requires_grad_(k in wanted)
            x, weight, bias, *parts = leaves[: 3 + len(state)]
            d, _ = adaptive_rule(x, weight, bias, rule, type(state)(*parts), form.packed)
            return grad((d * torch.linspace(-1, 1, 19)).sum(), [leaves[k] for k in wanted])

        together = gradients(range(len(leaves)))
        for k, expected in enumerate(together):
            assert torch.equal(gradients([k])[0], expected), k


@pytest.mark.parametrize("name", ADAPTIVE_RULES)
@pytest.mark.parametrize("isa", ISAS)
def test_an_adaptive_rule_gives_the_same_bits_on_any_number_of_threads(isa, name):
    """One feature, so that the sums over it have one term however they are cut."""
    for form in forms(60, 40):
        C = 33
        x, weight, state = torch.randn(*form.rows, 1), torch.randn(C, 1), drawn_state(name, form, C)
        rule = drawn_rule(name, "channel", C).float()
        state = type(state)(*(part.float().requires_grad_() for part in state))
        results = []
        for threads in (1, 2, 3, 1):
            torch.set_num_threads(threads)
            with forced_isa(isa):
                d, new = adaptive_rule(x, weight, None, rule, state, form.packed)
                loss = (d * torch.linspace(-1, 1, C)).sum() + sum(part.square().sum() for part in new)
                results.append([d, *new, *grad(loss, [*state, *rule.parameters()])])
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("D", [1, 5, 17])
@pytest.mark.parametrize("isa", ISAS)
def test_an_adaptive_rule_of_nothing_is_nothing(isa, D, dtype):
    """At a = 0 and m = 0 only ε is left in the denominator, and its default is small."""
    rule = rules.Adam(0.9, 1.0, 0.999).bind(9)
    x, weight = torch.zeros(40, 3, D, dtype=dtype), torch.randn(9, D, dtype=dtype, requires_grad=True)
    x.requires_grad_()
    with forced_isa(isa):
        d, state = adaptive_rule(x, weight, None, rule, None, None)
        slopes = grad(d.sum(), [x, weight])
    assert torch.equal(d, torch.zeros_like(d))
    assert all(torch.equal(part, torch.zeros_like(part)) for part in state)
    # dd_t/da_s = s μ^(t-s) / ε, summed over the t from s on.
    through = torch.tensor([(1 - 0.9 ** (40 - s)) / (1 - 0.9) for s in range(40)]).to(dtype) * 1e8
    expected = through[:, None, None] * weight.detach().sum(0)
    assert_close(slopes[0], expected.expand_as(x), rtol=1e-4, atol=1e2)
    assert torch.equal(slopes[1], torch.zeros_like(weight))


@pytest.mark.parametrize("D", [1, 17])
@pytest.mark.parametrize("isa", ISAS)
def test_large_and_small_drives_keep_their_digits(isa, D):
    """d does not depend on the drive's scale, from 1e-6 to 1e6, where ε is small beside it."""
    rule = rules.Adam(0.6, 0.5, 0.8, 1e-12).bind(17)
    x, weight = torch.randn(40, 3, D), torch.randn(17, D)
    with forced_isa(isa):
        expected = adaptive_rule(x.double(), weight.double(), None, rule, None, None)[0]
        for scale in (1e-6, 1.0, 1e6):
            d = adaptive_rule(x * scale, weight, None, rule, None, None)[0]
            assert error(d, expected) < 1e-5


@pytest.mark.parametrize("isa", ISAS)
def test_the_smallest_eps(isa):
    """Its square is the smallest float32 that is not flushed to zero, and a half of that would be."""
    rule = rules.Adam(0.9, 1.0, 0.0, 2.0**-63).bind(1)
    x, weight = torch.tensor([1e-10, 0.0, 0.0]).reshape(3, 1, 1), torch.ones(1, 1)
    with forced_isa(isa):
        d = adaptive_rule(x, weight, None, rule, None, None)[0]
    assert_close(d, rule(x)[0], rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("layout", ["transposed", "strided"])
@pytest.mark.parametrize("D", [1, 5, 17])
def test_how_the_tensors_lie_in_memory_does_not_matter(D, layout):
    def scattered(tensor):
        if layout == "strided":
            wide = torch.full((*tensor.shape, 2), torch.nan, dtype=tensor.dtype)
            wide[..., 0] = tensor
            return wide[..., 0]
        return tensor if tensor.dim() < 2 else tensor.transpose(0, 1).contiguous().transpose(0, 1)

    x, weight, bias = representable(5, 4, D), representable(9, D), representable(9)
    state, slope = drawn_state("adam", Form(5, 4), 9), representable(5, 4, 9)
    decay = torch.rand(5, 4, dtype=torch.float64)
    rule = make_rule("adam").bind(9)
    results = []
    for how in (lambda t: t, scattered):
        parts = [how(t).detach().requires_grad_() for t in (x, weight, bias, *state)]
        d, new = adaptive_rule(*parts[:3], rule, type(state)(*parts[3:]), None)
        p, last = kernels.linear_filter(parts[0], True, how(decay), 0.7, None)
        results.append([d, *new, *grad(d, parts, how(slope)), p, last])
        results[-1] += grad([p, last], parts[0], [how(torch.ones_like(p)), torch.ones(()).expand_as(last)])
    for a, b in zip(*results, strict=True):
        assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("D", [1, 5, 16, 17, 40])
def test_rules_of_an_empty_batch(D):
    x = torch.zeros(3, 0, D, requires_grad=True)
    p, last = kernels.linear_filter(x, True, 0.5, 1.0, None)
    assert p.shape == (3, 0, D + 1)
    assert last.shape == (0, D + 1)
    assert grad(p.sum() + last.sum(), x)[0].shape == x.shape
    for name in ADAPTIVE_RULES:
        weight, bias = torch.randn(7, D, requires_grad=True), torch.randn(7, requires_grad=True)
        rule = drawn_rule(name, True, 7).float()
        d, state = adaptive_rule(x, weight, bias, rule, None, None)
        assert d.shape == (3, 0, 7)
        assert all(part.shape == (0, 7) for part in state)
        leaves = [x, weight, bias, *rule.parameters()]
        for leaf, slope in zip(leaves, grad(d.sum(), leaves, materialize_grads=True), strict=True):
            assert torch.equal(slope, torch.zeros_like(leaf))


# What float32 is held to here is its rounding over a dozen steps and two layers.
LAYERS = {torch.float32: {"rtol": 1e-4, "atol": 2e-5}, torch.float64: {"rtol": 1e-9, "atol": 1e-10}}
# An orthogonal layer's recurrence is modrelu's, and its gradient a difference in which float32 loses digits.
RUN_IN_CPP = [cell for cell in CELLS if cell not in ("lstm_projected", *ORTHOGONAL_CELLS)]


def everything(layer, x, state=None):
    """All the layer returns and all its gradients, those of a given state too."""
    output, new = layer(x, state)
    results = [output.data if isinstance(output, tuple) else output, *flat(new)]
    floats = [part for part in results if part.is_floating_point()]
    weights = [torch.linspace(-1, 1, part.numel(), dtype=part.dtype).reshape(part.shape) for part in floats]
    loss = sum((part * w).sum() for part, w in zip(floats, weights, strict=True))
    leaves = [x.data if isinstance(x, tuple) else x, *layer.parameters()]
    leaves += [part for part in flat(state) if part.is_floating_point()]
    return [*results, *grad(loss, leaves, materialize_grads=True)]


def state_to_start_from(layer, cell, rule, B):
    """Random h and c, and a momentum as if every sequence had already run for a time of its own."""
    places, dtype = layer.num_layers * (2 if layer.bidirectional else 1), layer.weight_hh_l0.dtype
    parts = [torch.randn(places, B, layer.hidden_size, dtype=dtype).requires_grad_()]
    if has_memory_cell(cell):
        parts.append(torch.randn(places, B, layer.hidden_size, dtype=dtype).requires_grad_())
    if layer.carry_momentum:
        momentum = state_of(rule, random_memory(places, B, layer.channels(layer.rule)))
        momentum = [p.to(dtype).requires_grad_() if p.is_floating_point() else p for p in momentum]
        parts.append(layer.rule.state_type(*momentum))
    return tuple(parts) if len(parts) > 1 else parts[0]


def assert_same(got, expected, dtype):
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert_close(a, b, **(LAYERS[dtype] if a.is_floating_point() else {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
@pytest.mark.parametrize("cell", RUN_IN_CPP)
def test_layers_equal_the_reference(cell, rule, velocity, dtype):
    draw = random.Random(f"{cell} {rule} {velocity} {dtype}")
    for packed, started in itertools.product([False, True], [False, True]):
        options = {"bidirectional": draw.random() < 0.5, "bias": draw.random() < 0.7}
        options |= {"num_layers": draw.choice([1, 2]), "carry_momentum": rule != "none"}
        options |= {"learnable": draw.choice([False, False, True, "channel"]), "seed": draw.randrange(99)}
        options |= {"input_size": draw.choice([1, 3, 20]), "hidden_size": draw.choice([1, 5, 17])}
        T, B = draw.choice([(9, 3), (1, 1), (5, 7)])
        layer = make_layer(cell, rule, velocity, **options).to(dtype)
        x = torch.randn(T, B, layer.input_size).to(dtype)
        if packed:
            x = pack_padded_sequence(
                x, [T, *torch.randint(1, T + 1, (B - 1,)).tolist()], enforce_sorted=False
            )
        (x.data if packed else x).requires_grad_()
        state = state_to_start_from(layer, cell, rule, B) if started else None
        with backend("reference"):
            expected = everything(layer, x, state)
        with backend("cpu"):
            assert_same(everything(layer, x, state), expected, dtype)


@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("isa", ISAS)
def test_layers_on_each_instruction_set(isa, rule):
    for cell, dtype in itertools.product(["lstm", "gru"], DTYPES):
        layer = make_layer(cell, rule, input_size=1, hidden_size=33).to(dtype)
        x = torch.randn(40, 5, 1).to(dtype).requires_grad_()
        with backend("reference"):
            expected = everything(layer, x)
        with forced_isa(isa), backend("cpu"):
            got = everything(layer, x)
        # Sums over 200 rows.
        assert max(error(a, b) for a, b in zip(got, expected, strict=True)) < GRADIENTS[dtype] / 3


@pytest.mark.parametrize("velocity", VELOCITIES)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", RUN_IN_CPP)
def test_chunks_equal_the_whole_of_the_reference(cell, rule, velocity):
    for learnable in (False, "channel"):
        layer = make_layer(cell, rule, velocity, learnable, carry_momentum=True)
        x = torch.randn(11, 3, 3, dtype=torch.float64, requires_grad=True)
        start = state_to_start_from(layer, cell, rule, 3)
        leaves = [x, *layer.parameters(), *(part for part in flat(start) if part.is_floating_point())]
        with backend("reference"):
            whole, last = layer(x, start)
            w = torch.randn_like(whole)
            expected = grad((whole * w).sum() + flat(last)[-1].double().sum() + flat(last)[0].sum(), leaves)
        with backend("cpu"):
            outputs, state = [], start
            for chunk in x.split([1, 6, 4]):
                output, state = layer(chunk, state)
                outputs.append(output)
            got = torch.cat(outputs)
            slopes = grad((got * w).sum() + flat(state)[-1].double().sum() + flat(state)[0].sum(), leaves)
        assert_same([got, *flat(state), *slopes], [whole, *flat(last), *expected], torch.float64)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_packed_chunk_then_a_dense_one(cell, rule):
    """After the first each sequence is at a step of its own."""
    layer = make_layer(cell, rule, num_layers=2, carry_momentum=True)
    first = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    results = {}
    for name in ("reference", "cpu"):
        with backend(name):
            packed, state = layer(pack_padded_sequence(first, [2, 6, 1, 4], enforce_sorted=False))
            output, last = layer(second, state)
        loss = packed.data.square().sum() + output.square().sum() + flat(last)[0].sum()
        slopes = grad(loss, [first, second, *layer.parameters()])
        results[name] = [packed.data, *flat(state), output, *flat(last), *slopes]
    assert_same(results["cpu"], results["reference"], torch.float64)


@pytest.mark.parametrize("rule", ["none", *RULES])
def test_dropout_between_layers_and_batch_first(rule):
    layer = make_layer("lstm", rule, num_layers=3, bidirectional=True, batch_first=True, dropout=0.5)
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    results = []
    for name in ("reference", "cpu"):
        torch.manual_seed(3)
        with backend(name):
            results.append(everything(layer, x))
    assert_same(results[1], results[0], torch.float64)


@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("cell", RUN_IN_CPP)
def test_layers_without_a_batch_and_with_an_empty_one(cell, rule):
    layer = make_layer(cell, rule, num_layers=2, bidirectional=True)
    unbatched = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    with backend("reference"):
        expected = everything(layer, unbatched)
    with backend("cpu"):
        assert_same(everything(layer, unbatched), expected, torch.float64)
        nobody = torch.zeros(4, 0, 3, dtype=torch.float64, requires_grad=True)
        output, *rest = everything(layer, nobody)
    assert output.shape == (4, 0, 10)
    for slope in rest[-len(list(layer.parameters())) :]:
        assert torch.equal(slope, torch.zeros_like(slope))


@pytest.mark.parametrize("rule", [*LINEAR_RULES, *ADAPTIVE_RULES])
def test_a_rule_runs_in_cpp_exactly_where_its_layer_does(rule, monkeypatch):
    """Else a block that asks for another backend would not get all of it."""
    layer = make_layer("lstm", rule)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    calls = []
    for name in ("linear_filter", "adaptive_rule"):
        original = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *args, f=original, n=name: (calls.append(n), f(*args))[1])
    expected = "adaptive_rule" if rule in ADAPTIVE_RULES else "linear_filter"
    for name, count in (("cpu", 1), ("auto", 1), ("reference", 0), ("torch", 0)):
        calls.clear()
        with backend(name):
            layer(x)
        assert calls == [expected] * count, name


class Halved(rules.Adam):
    """A user's own rule, made from one of ours."""

    def run(self, drive, state, lengths):
        d, state = super().run(drive, state, lengths)
        return d / 2, state


class Delayed(rules.HeavyBall):
    """Linear, but not the recurrence that its coefficients say."""

    def run(self, drive, state, lengths):
        d, state = super().run(drive, state, lengths)
        return torch.cat([torch.zeros_like(d[:1]), d[:-1]]), state


@pytest.mark.parametrize("kind", [Halved, Delayed])
def test_a_rule_that_runs_in_its_own_way_is_left_to_do_so(kind):
    rule = kind(0.6, 0.9, 0.1) if kind is Halved else kind(0.6, 0.9)
    layer, x = LSTM(3, 5, rule=rule, dtype=torch.float64), torch.randn(4, 2, 3, dtype=torch.float64)
    d, _ = layer.rule(x @ layer.weight_ih_l0.t() + layer.bias_ih_l0)
    plain = LSTM(20, 5, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict() | {"weight_ih_l0": torch.eye(20), "bias_ih_l0": torch.zeros(20)})
    for name in ("auto", "reference"):
        with backend(name):
            assert_close(layer(x)[0], plain(d)[0])
            cell = LSTMCell(3, 5, rule=rule, dtype=torch.float64)
            cell.load_state_dict(
                {key.removesuffix("_l0"): value for key, value in layer.state_dict().items()}
            )
            assert_close(cell(x[0])[0], layer(x[:1])[0][0])


class Learning(rules.HeavyBall):
    """A user's own rule, with a parameter in the decay."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.raw = torch.nn.Parameter(torch.tensor(0.3))

    def decay(self, steps, state, device):
        return torch.sigmoid(self.raw).expand(steps)


class LearningOne(Learning):
    """The same as one number for all steps."""

    def decay(self, steps, state, device):
        return torch.sigmoid(self.raw)


class LearningAdam(rules.Adam):
    """A user's own rule, with a parameter for a coefficient."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.raw = torch.nn.Parameter(torch.tensor(0.3))

    def coefficient(self, name):
        return torch.sigmoid(self.raw) if name == "momentum" else super().coefficient(name)


@pytest.mark.parametrize("kind", [Learning, LearningOne, LearningAdam])
def test_a_parameter_of_a_rule_of_one_s_own_gets_its_gradient(kind):
    rule = kind(0.6, 0.9, 0.1) if kind is LearningAdam else kind(0.6, 0.9)
    layer, x = LSTM(3, 5, rule=rule, dtype=torch.float64), torch.randn(4, 2, 3, dtype=torch.float64)
    found = []
    for name in ("auto", "reference"):
        with backend(name):
            found.append(grad(layer(x)[0].square().sum(), list(layer.parameters())))
    for one, other in zip(*found, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("rule", ["none", *RULES])
def test_what_the_kernels_cannot_run_is_refused_whatever_the_rule(rule):
    layer = make_layer("lstm_projected", rule)
    with backend("cpu"), pytest.raises(BackendError, match="projection"):
        layer(torch.randn(4, 2, 3, dtype=torch.float64))
    layer = make_layer("lstm", rule).to(torch.bfloat16)
    with backend("cpu"), pytest.raises(BackendError, match="bfloat16"):
        layer(torch.randn(4, 2, 3, dtype=torch.bfloat16))
