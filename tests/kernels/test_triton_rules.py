"""Adam and RMSProp in Triton, in its interpreter or on a GPU, against torch's operators in float64."""

import pytest
import torch
from torch.autograd import grad

from cases import NUMBERS, make_rule
from momentumrnn.kernels.adaptive import coefficients_of, scanned
from momentumrnn.kernels.cuda import availability
from momentumrnn.kernels.cuda.adaptive import adaptive_rule

pytest.importorskip("triton", reason=str(availability.missing()))

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# One more than the steps from one kept state to the next.
LONG = 33
FORMS = {
    "dense": (4, None),
    "packed": (4, torch.tensor([3, 3, 1, 1])),
    "long": (LONG, None),
    "long packed": (LONG, torch.tensor([3] * 30 + [1] * 3)),
    "one step": (1, None),
}
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
OPERATOR = torch.ops.momentumrnn.triton_adaptive_rule


def inputs_of(form, stateful=True, batch=3, channels=5, dtype=torch.float64):
    """The drive, the coefficients and the state before, in float64, holding what ``dtype`` can."""
    steps, sizes = FORMS[form]
    rows = (steps, batch) if sizes is None else (int(sizes.sum()),)
    wide = torch.promote_types(dtype, torch.float32)
    drive = torch.randn(*rows, channels).to(dtype)
    coefficients = torch.rand(4, channels, dtype=wide)
    state = [torch.randn(batch, channels, dtype=wide), torch.rand(batch, channels, dtype=wide)]
    tensors = [drive, coefficients, *(state if stateful else [None, None])]
    return [None if t is None else t.double().requires_grad_() for t in tensors]


def by_triton(inputs, form, eps=0.05, dtype=torch.float64):
    wide = torch.promote_types(dtype, torch.float32)
    types = [dtype, wide, wide, wide]
    drive, coefficients, v_0, m_0 = (
        None if t is None else t.to(DEVICE, kind) for t, kind in zip(inputs, types, strict=True)
    )
    sizes = FORMS[form][1]
    batch = int(sizes[0]) if sizes is not None else drive.shape[1]
    d, v_n, m_n, _ = OPERATOR(drive, coefficients, eps, v_0, m_0, sizes, batch, True)
    assert v_n.dtype is m_n.dtype is wide
    return [t.cpu().double() for t in (d, v_n, m_n)]


def in_torch(inputs, form, eps=0.05):
    drive, coefficients, v_0, m_0 = inputs
    return scanned(drive, coefficients, eps, v_0, m_0, FORMS[form][1])


def with_gradients(outputs, inputs):
    generator = torch.Generator().manual_seed(1)
    total = sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outputs)
    return [*outputs, *grad(total, [t for t in inputs if t is not None])]


def assert_same(got, expected, dtype=torch.float64):
    for one, other in zip(got, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= TOLERANCES[dtype] * max(1.0, other.abs().max().item())


@pytest.mark.parametrize(
    ("form", "stateful"), [*((form, True) for form in FORMS), ("dense", False), ("packed", False)]
)
def test_the_scan_is_torch_s_with_all_gradients(form, stateful):
    inputs = inputs_of(form, stateful)
    got = with_gradients(by_triton(inputs, form), inputs)
    assert_same(got, with_gradients(in_torch(inputs, form), inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_other_numbers_are_scanned_in_float32(dtype):
    inputs = inputs_of("dense", dtype=dtype)
    got = with_gradients(by_triton(inputs, "dense", dtype=dtype), inputs)
    assert_same(got, with_gradients(in_torch(inputs, "dense"), inputs), dtype)


def test_more_channels_than_a_program_takes():
    inputs = inputs_of("one step", batch=2, channels=70)
    got = with_gradients(by_triton(inputs, "one step"), inputs)
    assert_same(got, with_gradients(in_torch(inputs, "one step"), inputs))


def test_a_drive_of_zeros_has_a_finite_gradient_in_float32():
    """At m = 0 the scale is 1 / ε = 1e8, and its cube all but leaves float32."""
    drive = torch.zeros(3, 2, 4, device=DEVICE, requires_grad=True)
    coefficients = torch.full((4, 4), 0.5, device=DEVICE)
    d, *_ = OPERATOR(drive, coefficients, 1e-8, None, None, None, 2, True)
    (slope,) = grad(d.sum(), drive)
    assert torch.equal(d, torch.zeros_like(d))
    assert torch.isfinite(slope).all()
    assert (slope > 0).all()


@pytest.mark.parametrize("learnable", [False, True, "channel"])
@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_a_rule_over_its_drive_is_the_rule(name, learnable):
    rule = make_rule(name, learnable=learnable).bind(5, DEVICE, torch.float64)
    x = torch.randn(4, 2, 3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    weight = torch.randn(5, 3, dtype=torch.float64, device=DEVICE, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, device=DEVICE, requires_grad=True)
    _, state = rule(torch.randn(4, 2, 5, dtype=torch.float64, device=DEVICE))
    state = type(state)(*(t.detach() for t in state))
    leaves = [x, weight, bias, *rule.parameters()]
    results = []
    for run in (adaptive_rule, by_rule):
        d, new = run(x, weight, bias, rule, state, None)
        assert type(new) is type(state)
        total = d.square().sum() + sum(t.square().sum() for t in new)
        results.append([d, *new, *grad(total, leaves)])
    assert_same(*results)


def by_rule(x, weight, bias, rule, state, packed):
    return rule(torch.nn.functional.linear(x, weight, bias), state)


def test_coefficients_stand_in_the_kernel_s_order():
    rows = coefficients_of(make_rule("adam"), 1, torch.float64, torch.device("cpu")).flatten().tolist()
    numbers = NUMBERS["adam"]
    expected = [numbers["momentum"], numbers["step_size"], numbers["beta"], 1 - numbers["beta"]]
    assert rows == pytest.approx(expected)


def test_what_was_said_about_gradients_changes_nothing():
    drive, coefficients, *state = (t.detach().to(DEVICE) for t in inputs_of("dense"))
    results = [OPERATOR(drive, coefficients, 0.05, *state, None, 3, train) for train in (True, False)]
    assert all(torch.equal(one, other) for one, other in zip(*(r[:3] for r in results), strict=True))
    assert results[1][3].numel() == 0
    backward = torch.ops.momentumrnn.triton_adaptive_rule_backward
    first, second = (
        backward(drive, coefficients, 0.05, *state, None, 3, r[3], torch.ones_like(drive), None, None)
        for r in results
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_second_derivative_is_torch_s():
    inputs = inputs_of("dense", batch=2, channels=2)
    slopes = []
    for d, *_ in (by_triton(inputs, "dense"), in_torch(inputs, "dense")):
        first = grad(d.square().sum(), inputs, create_graph=True)
        slopes.append(grad(sum(each.square().sum() for each in first), inputs))
    assert_same(*slopes)


@pytest.mark.parametrize("packed", [False, True])
def test_adaptive_rules_are_well_formed_operators(packed):
    form = "packed" if packed else "one step"
    tensors = [t.detach().to(DEVICE).requires_grad_() for t in inputs_of(form, channels=2)]
    drive, coefficients, v_0, m_0 = tensors
    arguments = (drive, coefficients, 0.05, v_0, m_0, FORMS[form][1], 3)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(OPERATOR.default, (*arguments, True), test_utils=tests)
    d, v_n, m_n, saved = (t.detach() for t in OPERATOR(*arguments, True))
    plain = tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in arguments)
    backward = torch.ops.momentumrnn.triton_adaptive_rule_backward.default
    torch.library.opcheck(backward, (*plain, saved, d, v_n, m_n), test_utils=tests)


def test_nobody_s_sequences_are_scanned_to_nothing():
    drive = torch.zeros(3, 0, 4, device=DEVICE, requires_grad=True)
    coefficients = torch.rand(4, 4, device=DEVICE, requires_grad=True)
    d, v_n, m_n, _ = OPERATOR(drive, coefficients, 0.05, None, None, None, 0, True)
    assert d.shape == (3, 0, 4)
    assert v_n.shape == m_n.shape == (0, 4)
    slopes = grad(d.sum() + v_n.sum() + m_n.sum(), (drive, coefficients))
    assert all(torch.equal(slope, torch.zeros_like(slope)) for slope in slopes)
