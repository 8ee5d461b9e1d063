"""Adam and RMSProp in Triton, in its interpreter or on a GPU, against torch's operators in float64."""

import pytest
import torch
from torch.autograd import grad

from cases import NUMBERS, make_rule
from momentumrnn.kernels.adaptive import coefficients_of, scanned
from momentumrnn.kernels.cuda import adaptive_operator, availability
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


def inputs_of(form, stateful=True, batch=3, channels=5, dtype=torch.float64, features=2):
    """The rule's inputs but for ε and the sizes, in float64, holding what ``dtype`` can."""
    steps, sizes = FORMS[form]
    rows = (steps, batch) if sizes is None else (int(sizes.sum()),)
    wide = torch.promote_types(dtype, torch.float32)
    x, weight, bias = (
        torch.randn(*size).to(dtype) for size in ((*rows, features), (channels, features), (channels,))
    )
    coefficients = torch.rand(4, channels, dtype=wide)
    state = [torch.randn(batch, channels, dtype=wide), torch.rand(batch, channels, dtype=wide)]
    tensors = [x, weight, bias, coefficients, *(state if stateful else [None, None])]
    return [None if t is None else t.double().requires_grad_() for t in tensors]


def arguments_of(tensors, form, eps=0.05):
    x, weight, bias, coefficients, v_0, m_0 = tensors
    return x, weight, bias, coefficients, eps, v_0, m_0, FORMS[form][1]


def by_triton(inputs, form, dtype=torch.float64, output_dtype=None):
    wide = torch.promote_types(dtype, torch.float32)
    types = [dtype] * 3 + [wide] * 3
    moved = [None if t is None else t.to(DEVICE, kind) for t, kind in zip(inputs, types, strict=True)]
    d, v_n, m_n, *_ = OPERATOR(*arguments_of(moved, form), True, output_dtype)
    assert v_n.dtype is m_n.dtype is wide
    assert d.dtype is (output_dtype or dtype)
    return [t.cpu().double() for t in (d, v_n, m_n)]


def in_torch(inputs, form, eps=0.05):
    x, weight, bias, coefficients, v_0, m_0 = inputs
    drive = torch.nn.functional.linear(x, weight, bias)
    return scanned(drive, coefficients, eps, v_0, m_0, FORMS[form][1])


def with_gradients(outputs, inputs):
    generator = torch.Generator().manual_seed(1)
    total = sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outputs)
    return [*outputs, *grad(total, [t for t in inputs if t is not None and t.requires_grad])]


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


@pytest.mark.parametrize("features", [2, 5, 65])
def test_the_result_alone_is_in_a_lower_precision(features):
    inputs = inputs_of("dense", dtype=torch.float32, features=features)
    wide = with_gradients(by_triton(inputs, "dense", torch.float32), inputs)
    low = with_gradients(by_triton(inputs, "dense", torch.float32, torch.bfloat16), inputs)
    # The interpreter cuts off where a GPU rounds.
    torch.testing.assert_close(low[0], wide[0], rtol=2**-7, atol=0)
    assert all(torch.equal(one, other) for one, other in zip(low[1:3], wide[1:3], strict=True))
    # What comes back for d is rounded as well, and nothing else.
    assert_same(low[3:], wide[3:], torch.float16)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("form", "features", "bias"),
    [("dense", 1, True), ("long packed", 2, True), ("packed", 3, False), ("long", 4, True)],
)
def test_of_few_features_that_need_no_gradient_the_drive_is_never_made(
    form, features, bias, dtype, monkeypatch
):
    def never(inputs):
        raise AssertionError

    monkeypatch.setattr(adaptive_operator, "_drive", never)
    inputs = inputs_of(form, features=features, dtype=dtype)
    inputs[0] = inputs[0].detach()
    if not bias:
        inputs[2] = None
    got = with_gradients(by_triton(inputs, form, dtype), inputs)
    assert_same(got, with_gradients(in_torch(inputs, form), inputs), dtype)


def test_of_many_features_the_drive_is_kept_and_of_few_made_again():
    for features, kept in ((64, 0), (65, 4 * 3 * 5)):
        inputs = inputs_of("dense", features=features)
        got = with_gradients(by_triton(inputs, "dense"), inputs)
        assert_same(got, with_gradients(in_torch(inputs, "dense"), inputs))
        moved = [t.detach().to(DEVICE) for t in inputs]
        assert OPERATOR(*arguments_of(moved, "dense"), True, None)[4].numel() == kept


@pytest.mark.parametrize("features", [2, 5, 65])
def test_an_input_that_lies_batch_first_is_read_as_it_is(features):
    inputs = inputs_of("dense", features=features)
    inputs[0] = inputs[0].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    assert not inputs[0].is_contiguous()
    got = with_gradients(by_triton(inputs, "dense"), inputs)
    assert_same(got, with_gradients(in_torch(inputs, "dense"), inputs))


def test_a_backward_pass_can_be_run_again():
    inputs = [t.detach().to(DEVICE).requires_grad_() for t in inputs_of("dense", features=65)]
    d, *_ = OPERATOR(*arguments_of(inputs, "dense"), True, None)
    first, second = (grad(d.square().sum(), inputs, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_more_channels_than_a_program_takes():
    inputs = inputs_of("one step", batch=2, channels=70)
    got = with_gradients(by_triton(inputs, "one step"), inputs)
    assert_same(got, with_gradients(in_torch(inputs, "one step"), inputs))


def test_a_drive_of_zeros_has_a_finite_gradient_in_float32():
    """At m = 0 the scale is 1 / ε = 1e8, and its cube all but leaves float32."""
    x = torch.zeros(3, 2, 4, device=DEVICE, requires_grad=True)
    coefficients = torch.full((4, 4), 0.5, device=DEVICE)
    d, *_ = OPERATOR(x, torch.eye(4, device=DEVICE), None, coefficients, 1e-8, None, None, None, True, None)
    (slope,) = grad(d.sum(), x)
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
        d, new, *_ = run(x, weight, bias, rule, state, None)
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


@pytest.mark.parametrize("features", [2, 8, 65])
def test_a_backward_pass_inside_autocast_is_the_one_outside(features):
    rule = make_rule("adam").bind(5, DEVICE)
    x, weight = (torch.randn(*size, device=DEVICE) for size in ((4, 3, features), (5, features)))
    leaves = [x.requires_grad_(), weight.requires_grad_()]
    slopes = []
    for inside in (False, True):
        with torch.autocast(DEVICE.type, torch.bfloat16):
            d, *_ = adaptive_rule(x, weight, None, rule, None, None)
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=inside):
            slopes.append(grad(d.float().square().sum(), leaves))
    assert all(torch.equal(one, other) for one, other in zip(*slopes, strict=True))


def test_what_was_said_about_gradients_changes_nothing():
    arguments = arguments_of([t.detach().to(DEVICE) for t in inputs_of("dense")], "dense")
    results = [OPERATOR(*arguments, train, None) for train in (True, False)]
    assert all(torch.equal(one, other) for one, other in zip(*(r[:3] for r in results), strict=True))
    assert results[1][3].numel() == 0
    backward = torch.ops.momentumrnn.triton_adaptive_rule_backward
    first, second = (
        backward(*arguments, *r[3:], torch.ones_like(r[0]), None, None, [True] * 6) for r in results
    )
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_second_derivative_is_torch_s():
    rule = make_rule("adam").bind(2, DEVICE, torch.float64)
    leaves = [torch.randn(size, dtype=torch.float64, device=DEVICE) for size in ((4, 2, 3), (2, 3), (2,))]
    leaves = [t.requires_grad_() for t in leaves]
    slopes = []
    for run in (adaptive_rule, by_rule):
        d = run(*leaves, rule, None, None)[0]
        first = grad(d.square().sum(), leaves, create_graph=True)
        slopes.append(grad(sum(each.square().sum() for each in first), leaves))
    assert_same(*slopes)


@pytest.mark.parametrize("packed", [False, True])
def test_adaptive_rules_are_well_formed_operators(packed):
    form = "packed" if packed else "one step"
    tensors = [t.detach().to(DEVICE).requires_grad_() for t in inputs_of(form, channels=2)]
    arguments = arguments_of(tensors, form)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(OPERATOR.default, (*arguments, True, None), test_utils=tests)
    d, v_n, m_n, saved, product = (t.detach() for t in OPERATOR(*arguments, True, None))
    plain = tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in arguments)
    backward = torch.ops.momentumrnn.triton_adaptive_rule_backward.default
    wanted = [True, True, False, True, True, False]
    torch.library.opcheck(backward, (*plain, saved, product, d, v_n, m_n, wanted), test_utils=tests)


def test_nobody_s_sequences_are_scanned_to_nothing():
    x = torch.zeros(3, 0, 2, device=DEVICE, requires_grad=True)
    weight, coefficients = torch.rand(4, 2, device=DEVICE), torch.rand(4, 4, device=DEVICE)
    leaves = [x, weight.requires_grad_(), coefficients.requires_grad_()]
    d, v_n, m_n, *_ = OPERATOR(x, weight, None, coefficients, 0.05, None, None, None, True, None)
    assert d.shape == (3, 0, 4)
    assert v_n.shape == m_n.shape == (0, 4)
    slopes = grad(d.sum() + v_n.sum() + m_n.sum(), leaves)
    assert all(torch.equal(slope, torch.zeros_like(slope)) for slope in slopes)
