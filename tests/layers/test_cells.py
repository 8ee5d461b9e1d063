"""Single-step cells: a cell stepped over a sequence is the layer."""

import pytest
import torch
from torch.autograd import grad
from torch.testing import assert_close

import momentumrnn
from cases import CELLS, LEARNABLE_CASES, RULE_CASES, RULES, flat, has_memory_cell, make_layer, make_rule
from momentumrnn.errors import BackendError, InputError

# RNNCell takes torch's nonlinearities and modrelu, LSTMCell the forget gate; no cell takes a projection.
STEPPED = [cell for cell in CELLS if cell != "lstm_projected"]


def make_cell(cell, rule, velocity="gate", learnable=False, **options):
    kind, arguments, _ = CELLS[cell]
    return getattr(momentumrnn, f"{kind}Cell")(
        3, 5, rule=make_rule(rule, velocity, learnable), **({"dtype": torch.float64} | arguments | options)
    )


def load(cell, layer):
    """Give the cell the layer's parameters: the same names without the place."""
    state = {name.replace("_l0", ""): value for name, value in layer.state_dict().items()}
    cell.load_state_dict(state)
    return cell


def step_through(cell, x, state=None):
    outputs = []
    for x_t in x:
        state = cell(x_t, state)
        outputs.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(outputs), state


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("rule", "velocity", "learnable"), LEARNABLE_CASES)
@pytest.mark.parametrize("name", STEPPED)
def test_steps_equal_the_layer(name, rule, velocity, learnable, batched):
    layer = make_layer(name, rule, velocity, learnable, carry_momentum=rule != "none")
    cell = load(make_cell(name, rule, velocity, learnable), layer)
    x = torch.randn(7, *((2,) if batched else ()), 3, dtype=torch.float64, requires_grad=True)
    expected, expected_state = layer(x)
    got, state = step_through(cell, x)
    assert_close(got, expected, rtol=1e-10, atol=1e-10)
    for a, b in zip(flat(state), flat(expected_state), strict=True):
        assert_close(a, b[0], rtol=1e-10, atol=1e-10)
    w = torch.randn_like(expected)
    same = dict(layer.named_parameters())
    of_cell = grad((got * w).sum(), [x, *cell.parameters()])
    of_layer = grad((expected * w).sum(), [x, *(same[place(n)] for n, _ in cell.named_parameters())])
    for a, b in zip(of_cell, of_layer, strict=True):
        assert_close(a, b, rtol=1e-9, atol=1e-9)


def place(name):
    """The layer's name for a cell's parameter."""
    head, _, rest = name.partition(".")
    return f"{head}_l0.{rest}" if rest else f"{head}_l0"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", STEPPED)
def test_the_form_of_the_state(name, rule):
    cell = make_cell(name, rule)
    state = cell(torch.randn(2, 3, dtype=torch.float64))
    assert len(state) == (3 if has_memory_cell(name) else 2)
    assert state[0].shape == (2, 5)
    channels = cell.weight_ih.shape[0]
    for field, part in state[-1]._asdict().items():
        assert part.shape == (2, *{"step": (), "velocities": (2, channels)}.get(field, (channels,)))
    restarted = cell(torch.randn(2, 3, dtype=torch.float64), (*state[:-1], None))
    assert type(restarted[-1]) is type(state[-1])


@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("name", STEPPED)
def test_fixed_rules_add_no_parameters_and_repr_shows_them(name, rule):
    cell = make_cell(name, rule)
    assert list(cell.state_dict()) == list(make_cell(name, "none").state_dict())
    if rule != "none":
        assert type(make_rule(rule)).__name__ in repr(cell)


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
@pytest.mark.parametrize("name", STEPPED)
def test_bad_input(name, rule):
    cell = make_cell(name, rule)
    with pytest.raises(InputError, match="4"):
        cell(torch.randn(2, 4, dtype=torch.float64))
    with pytest.raises(InputError, match="3D"):
        cell(torch.randn(2, 2, 3, dtype=torch.float64))
    with pytest.raises(InputError, match=r"float32"):
        cell(torch.randn(2, 3))
    x = torch.randn(2, 3, dtype=torch.float64)
    state = cell(x)
    wrong = torch.randn(3, 5, dtype=torch.float64)  # a batch of three
    with pytest.raises(InputError, match=r"3.*5"):
        cell(x, (wrong, *state[1:]) if isinstance(state, tuple) else wrong)


def everything(cell, x, state):
    """All that a step returns, and its gradients in the input, the state and the parameters."""
    results = flat(cell(x, state))
    floats = [part for part in results if part.is_floating_point()]
    loss = sum((part * torch.linspace(-1, 1, part.shape[-1]).to(part)).sum() for part in floats)
    leaves = [x, *(part for part in flat(state) if part.is_floating_point()), *cell.parameters()]
    return [*results, *grad(loss, leaves)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("rule", "velocity"), RULE_CASES)
@pytest.mark.parametrize("name", STEPPED)
def test_every_backend_takes_the_same_step(name, rule, velocity, batch, bias):
    cell = make_cell(name, rule, velocity, True, bias=bias)
    state = cell(torch.randn(batch, 3, dtype=torch.float64))
    state = torch.utils._pytree.tree_map(
        lambda part: part.detach().requires_grad_(part.is_floating_point()), state
    )
    x = torch.randn(batch, 3, dtype=torch.float64, requires_grad=True)
    with momentumrnn.backend("reference"):
        expected = everything(cell, x, state)
    for backend in ("auto", "torch", "cpu"):
        with momentumrnn.backend(backend):
            try:
                got = everything(cell, x, state)
            except BackendError:
                assert backend != "auto"
                continue
        for a, b in zip(got, expected, strict=True):
            assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rule", ["none", "nesterov", "adam"])
@pytest.mark.parametrize("name", STEPPED)
def test_a_step_can_be_differentiated_twice(name, rule):
    cell = make_cell(name, rule)
    for batch in (1, 2):
        state = torch.utils._pytree.tree_map(torch.detach, cell(torch.randn(batch, 3, dtype=torch.float64)))
        x = torch.randn(batch, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradgradcheck(lambda x, cell=cell, state=state: flat(cell(x, state))[0], (x,))


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
@pytest.mark.parametrize("name", STEPPED)
def test_under_autocast_a_cell_answers_as_the_layer_does(name, rule):
    layer = make_layer(name, rule, carry_momentum=rule != "none").float()
    cell = load(make_cell(name, rule), layer).float()
    x = torch.randn(4, 2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        expected, expected_state = layer(x)
        got, state = step_through(cell, x)
    assert got.dtype == expected.dtype
    assert_close(got, expected, rtol=3e-2, atol=3e-2)
    for a, b in zip(flat(state), flat(expected_state), strict=True):
        assert a.dtype == b.dtype


class Doubled(momentumrnn.rules.Rule):
    """A rule of a user's own, who wrote what must be written: d = 2 a, and how many steps there were."""

    state_type = momentumrnn.rules.RMSPropState
    ranges = {}  # noqa: RUF012

    def __init__(self, velocity="gate", learnable=False):
        super().__init__({}, velocity=velocity, learnable=learnable)

    def arguments(self):
        return {}

    def run(self, drive, state, lengths):
        before = 0.0 if state is None else state.second_moment
        return 2 * drive, self.state_type(before + torch.ones_like(drive[-1]))


def test_a_rule_of_ones_own_needs_no_single_step():
    cell = momentumrnn.LSTMCell(3, 5, rule=Doubled())
    layer = momentumrnn.LSTM(3, 5, rule=Doubled())
    layer.load_state_dict({f"{name}_l0": value for name, value in cell.state_dict().items()})
    x = torch.randn(4, 2, 3)
    got, state = step_through(cell, x)
    assert_close(got, layer(x)[0])
    assert torch.equal(state[-1].second_moment, torch.full((2, 20), 4.0))


@pytest.mark.parametrize("rule", ["none", "heavy_ball", "adam"])
@pytest.mark.parametrize("kind", ["LSTMCell", "LSTM"])
def test_float16_runs_on_a_cpu_whose_fused_lstm_has_none(kind, rule):
    module = getattr(momentumrnn, kind)(3, 5, rule=make_rule(rule))
    x = torch.randn(2, 3) if kind == "LSTMCell" else torch.randn(4, 2, 3)
    expected = module(x)[0]
    with torch.autocast("cpu", torch.float16):
        assert_close(module(x)[0].float(), expected, rtol=0, atol=5e-3)
    assert_close(module.half()(x.half())[0].float(), expected, rtol=0, atol=5e-3)
