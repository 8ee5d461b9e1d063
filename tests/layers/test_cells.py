"""Single-step cells: a cell stepped over a sequence is the layer."""

import pytest
import torch
from torch.autograd import grad
from torch.testing import assert_close

import momentumrnn
from cases import CELLS, RULES, VELOCITIES, flat, has_memory_cell, make_layer, make_rule
from momentumrnn.errors import InputError

# RNNCell takes torch's nonlinearities and modrelu, LSTMCell the forget gate; no cell takes a projection.
STEPPED = [cell for cell in CELLS if cell != "lstm_projected"]


def make_cell(cell, rule, velocity="gate", learnable=False, **options):
    kind, arguments, _ = CELLS[cell]
    return getattr(momentumrnn, f"{kind}Cell")(
        3, 5, rule=make_rule(rule, velocity, learnable), **({"dtype": torch.float64} | options), **arguments
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
@pytest.mark.parametrize("learnable", [False, "channel"])
@pytest.mark.parametrize("velocity", VELOCITIES)
@pytest.mark.parametrize("rule", ["none", *RULES])
@pytest.mark.parametrize("name", STEPPED)
def test_steps_equal_the_layer(name, rule, velocity, learnable, batched):
    if rule == "none" and (velocity == "hidden" or learnable):
        return
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
    for field, part in state[-1]._asdict().items():
        assert part.shape == ((2,) if field == "step" else (2, cell.weight_ih.shape[0]))
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
