"""Rules that run channel by channel in C++, and the drive that they act on, as torch operators."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from momentumrnn.errors import InputError
from momentumrnn.kernels.operands import (
    COMPUTED_IN_CPP,
    CPU,
    FLOATING,
    check_kind,
    check_operands,
    check_rows,
    wide_dtype,
)
from momentumrnn.kernels.operators import (
    LIBRARY,
    Make,
    addresses,
    compiled,
    empty,
    multiply,
    plain,
    plain_each,
    without_data,
)

__all__ = [
    "ADAPTIVE",
    "FILTERS",
    "INTERVAL",
    "RuleInputs",
    "backward",
    "check",
    "define",
    "forward",
    "gradients",
    "product_shape",
    "saved_shape",
]

# Steps from one kept state to the next: the states take 2 / 32 of the memory of what they belong to.
INTERVAL = 32
# Of so few features the drive is made inside the scan: written and read as a whole it would take longer.
# For fewer channels than these it would not.
_FEW_FEATURES = 64
_FEW_CHANNELS = 64

# The number of rows of coefficients names the rule: Adam and RMSProp; a filter whose coefficients are real,
# and one whose coefficients are complex.
ADAPTIVE = 4
FILTERS = (3, 5)
_RULES = {ADAPTIVE: 0, FILTERS[0]: 1, FILTERS[1]: 2}


class RuleInputs(NamedTuple):
    """A rule and all that it runs on: the operator's arguments, in its order.

    Attributes:
        x: (T, B, d), or the rows (N, d) of a packed batch.
        weight: (C, d), or ``None`` where x is the drive itself, d = C.
        bias: (C,) or ``None``.
        coefficients: of each channel. (4, C) of Adam: the momentum, the step size, β and 1 - β. (3, C) of a
            filter: μ, c and e. (5, C) of a complex one: Re μ, Im μ, Re c, Im c and e.
        eps: what keeps Adam's denominator from zero.
        v_0: (B, C), the velocity before the first step, or ``None`` for zero; a filter's u or Re u.
        m_0: (B, C), the second moment likewise; a complex filter's Im u.
        batch_sizes: int64 (T,) on the CPU for a packed batch.
    """

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    coefficients: Tensor
    eps: float
    v_0: Tensor | None
    m_0: Tensor | None
    batch_sizes: Tensor | None

    @property
    def differentiable(self) -> tuple[Tensor | None, ...]:
        """Those that may have a gradient."""
        return self.x, self.weight, self.bias, self.coefficients, self.v_0, self.m_0

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(T, B, C), or (N, C) of a packed batch."""
        return *self.x.shape[:-1], self.channels

    @property
    def channels(self) -> int:
        """C."""
        return self.x.shape[-1] if self.weight is None else self.weight.shape[0]

    @property
    def states(self) -> int:
        """How many states a channel has."""
        return 1 if self.coefficients.shape[0] == FILTERS[0] else 2

    @property
    def steps(self) -> int:
        """The number of steps, T."""
        return self.x.shape[0] if self.batch_sizes is None else self.batch_sizes.shape[0]


_INPUTS = (
    "Tensor x, Tensor? weight, Tensor? bias, Tensor coefficients, float eps, Tensor? v_0, Tensor? m_0, "
    "Tensor? batch_sizes"
)


def product_shape(inputs: RuleInputs, train: bool) -> tuple[int, ...]:
    """Return the shape of what is kept of x Wᵀ: of many features all, which take long to multiply again."""
    many = inputs.weight is not None and inputs.x.shape[-1] > _FEW_FEATURES
    return inputs.output_shape if train and many else (0,)


def _drive(inputs: RuleInputs, place: Tensor | None) -> Tensor | None:
    """Return the drive without its bias, a product in ``place``; ``None`` where the kernel makes it."""
    if inputs.weight is None:
        return plain(inputs.x)
    if _is_made_inside(inputs):
        return None
    assert place is not None
    # The kernel adds the bias, for which torch would go through memory once more.
    multiply(inputs.x.flatten(0, -2), inputs.weight.t(), out=place.view(-1, place.shape[-1]))
    return place


def _is_made_inside(inputs: RuleInputs) -> bool:
    if inputs.weight is None:
        return False
    channels, features = inputs.weight.shape
    # The sums for W's gradient, a row a feature for each sequence, want steps enough to be worth it.
    return 0 < features <= min(_FEW_FEATURES, inputs.steps // 2) and channels >= _FEW_CHANNELS


def check(
    inputs: RuleInputs,
    dtypes: tuple[torch.dtype, ...] = COMPUTED_IN_CPP,
    device: torch.device | None = CPU,
    fake: bool = False,
    rules: tuple[int, ...] = tuple(_RULES),
) -> tuple[int, tuple[int, int]]:
    """Check what the kernels trust.

    Args:
        inputs: the operands.
        dtypes: as in ``momentumrnn.kernels.operands.check_rows``.
        device: as there.
        fake: as there.
        rules: the rules that the kernels run, by their rows of coefficients.

    Returns:
        T and (B, C).

    Raises:
        InputError: a tensor has another shape, dtype or device than the others imply, or there is no step.
    """
    x, weight, bias, coefficients, _, v_0, m_0, sizes = inputs
    steps, batch = check_rows("the input of a rule", x, sizes, dtypes, device, fake)
    rows = coefficients.shape[0] if coefficients is not None and coefficients.dim() == 2 else rules[0]
    ready = weight is None and bias is None and rows in FILTERS
    if not ready and (weight is None or weight.dim() != 2):
        check_kind("weight", weight, (2,), dtypes, device)
    channels = inputs.channels
    state, dtype, wide = (batch, channels), x.dtype, wide_dtype(x.dtype)
    check_operands(
        x.device,
        ("weight", weight, (channels, x.shape[-1]), dtype, False),
        ("bias", bias, (channels,), dtype, False),
        ("coefficients", coefficients, (rows, channels), wide, True),
        ("v_0", v_0, state, wide, False),
        ("m_0", m_0, state, wide, False),
        fake=fake,
    )
    if rows not in rules:
        known = " or ".join(f"({each}, {channels})" for each in rules)
        raise InputError(f"expected coefficients of shape {known}, got {tuple(coefficients.shape)}")
    if m_0 is not None and inputs.states == 1:
        raise InputError("expected no m_0 for a filter with real coefficients, which has one state, got one")
    return steps, state


def check_kept(
    inputs: RuleInputs,
    sizes: tuple[int, tuple[int, int]],
    kept: tuple[Tensor, Tensor],
    incoming: tuple[Tensor, Tensor | None, Tensor | None],
    dtypes: tuple[torch.dtype, ...] = (),
    fake: bool = False,
) -> None:
    """Check what the forward pass kept, which hooks may have changed, and the gradients of its three results.

    Args:
        inputs: the operands of the forward pass.
        sizes: T and (B, C).
        kept: the states and x Wᵀ, as far as they were kept.
        incoming: the gradients.
        dtypes: the dtypes other than x's in which the gradient of d may come.
        fake: as in ``momentumrnn.kernels.operands.check_operands``.

    Raises:
        InputError: one has another shape, dtype or device than the forward pass gave.
    """
    (steps, state_shape), (saved, product), (grad_output, grad_v_n, grad_m_n) = sizes, kept, incoming
    x, wide, of_output = inputs.x, wide_dtype(inputs.x.dtype), inputs.x.dtype
    if dtypes and grad_output is not None and grad_output.dtype in dtypes:
        of_output = grad_output.dtype
    # One dimension means that the forward pass was not asked to keep anything.
    train = saved is None or saved.dim() > 1
    check_operands(
        x.device,
        ("saved", saved, saved_shape(steps, state_shape, train, inputs.states), wide, True),
        ("product", product, product_shape(inputs, train), x.dtype, True),
        ("grad_output", grad_output, inputs.output_shape, of_output, True),
        ("grad_v_n", grad_v_n, state_shape, wide, False),
        ("grad_m_n", grad_m_n, state_shape if inputs.states > 1 else (0,), wide, False),
        fake=fake,
    )


def _run(
    kernel: str,
    inputs: RuleInputs,
    sizes: tuple[int, tuple[int, int]],
    product: Tensor | None,
    **arrays: Tensor | None,
) -> None:
    """Run the forward or the backward kernel.

    Args:
        kernel: its name.
        inputs: what both passes read.
        sizes: T and (B, C).
        product: W x, or ``None`` for the kernel to make it where it needs it.
        **arrays: what this pass reads or writes beside that.
    """
    x, weight, bias, coefficients, eps, v_0, m_0, batch_sizes = inputs
    steps, (batch, channels) = sizes
    # Kept until the call is over: the C++ side has nothing but their addresses.
    kept = plain_each((coefficients, bias, v_0, m_0, batch_sizes, *((x, weight) if product is None else ())))
    names = ("coefficients", "bias", "v_0", "m_0", "sizes", "x", "weight")
    problem: dict[str, Any] = {
        "rule": _RULES[coefficients.shape[0]],
        "threads": torch.get_num_threads(),
        "steps": steps,
        "batch": batch,
        "channels": channels,
        "features": x.shape[-1],
        "interval": INTERVAL,
        "eps": eps,
        **addresses(dict(zip(names, kept, strict=False))),
        **addresses(arrays),
    }
    if product is not None:
        problem["product"] = product.data_ptr()
    getattr(compiled(), kernel)(problem, x.dtype is torch.float64)


def saved_shape(steps: int, state_shape: tuple[Any, ...], train: bool, states: int = 2) -> tuple[int, ...]:
    """Return the shape of the states that are kept, all of them before every so many steps."""
    return (states, -(-steps // INTERVAL), *state_shape) if train else (0,)


def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run a rule.

    Args:
        *arguments: those of ``RuleInputs``; whether to keep what the backward pass needs; and d's dtype,
            x's or ``None``, which is the same: the C++ kernels know no other.

    Returns:
        All d_t, the last velocity, the last second moment (empty for a rule of one state); and the states and
        x Wᵀ, as far as they are kept.
    """
    inputs, train, dtype = RuleInputs(*arguments[:8]), *arguments[8:]
    steps, state_shape = sizes = check(inputs)
    x = inputs.x
    if dtype not in (None, x.dtype):
        raise InputError(f"expected d to be wanted in {x.dtype}, that of x, got {dtype}")
    d, product = empty(inputs.output_shape, x), empty(product_shape(inputs, train), x)
    v_n, m_n = x.new_empty(state_shape), x.new_empty(state_shape if inputs.states > 1 else (0,))
    saved = empty(saved_shape(steps, state_shape, train, inputs.states), x)
    if d.numel() == 0:
        return d, v_n, m_n, saved, product
    source = _drive(inputs, product if product.numel() else d)
    arrays = {"output": d, "saved": saved if train else None, "v_n": v_n, "m_n": m_n}
    _run("rule_forward", inputs, sizes, source, **arrays)
    return d, v_n, m_n, saved, product


def backward(*arguments: Any) -> list[Tensor]:
    """Run the backward pass of a rule.

    Args:
        *arguments: those of ``RuleInputs``; what the forward pass kept of the states and of x Wᵀ; the
            gradients of all d_t, of the last velocity and of the last second moment; and for each
            differentiable input whether its own is wanted.

    Returns:
        The gradient of each differentiable input, empty where there is none.
    """
    inputs = RuleInputs(*arguments[:8])
    saved, product, grad_output, grad_v_n, grad_m_n, wanted = arguments[8:]
    x, weight = inputs.x, inputs.weight
    sizes = check(inputs)
    check_kept(inputs, sizes, (saved, product), (grad_output, grad_v_n, grad_m_n))
    if grad_output.numel() == 0:
        return [grad.zero_() for grad in gradients(inputs, wanted, empty)]
    if saved.numel() == 0:
        # The forward pass was told that nobody would ask.
        *_, saved, product = forward(*inputs, True, None)
    saved, product = plain(saved), plain(product)
    grad_output, grad_v_n, grad_m_n = plain_each((grad_output, grad_v_n, grad_m_n))
    grads = gradients(inputs, wanted, empty)
    grad_x, grad_weight, grad_bias, grad_coefficients, grad_v_0, grad_m_0 = grads
    made_inside = _is_made_inside(inputs)
    drive: Tensor | None = None
    if weight is None:
        drive = grad_x if grad_x.numel() else None
    elif not made_inside or grad_x.numel():
        drive = empty(inputs.output_shape, x)
    # A product's gradient comes in its place.
    source = product if product.numel() else _drive(inputs, drive)
    _run(
        "rule_backward",
        inputs,
        sizes,
        source,
        grad_weight=grad_weight if made_inside else None,
        grad_bias=grad_bias,
        saved=saved,
        grad_output=grad_output,
        grad_v_n=grad_v_n,
        grad_m_n=grad_m_n if inputs.states > 1 else None,
        grad_drive=drive,
        grad_v_0=grad_v_0,
        grad_m_0=grad_m_0,
        grad_coefficients=grad_coefficients,
    )
    if drive is None or weight is None:
        return grads
    # By now the drive's own gradient.
    flat, rows = drive.view(-1, drive.shape[-1]), x.flatten(0, -2)
    if grad_weight.numel() and not made_inside:
        multiply(flat.t(), rows, out=grad_weight)
    if grad_x.numel():
        multiply(flat, weight, out=grad_x.view(-1, x.shape[-1]))
    return grads


def gradients(inputs: RuleInputs, wanted: list[bool], make: Make) -> list[Tensor]:
    """Make a tensor for the gradient of each input tensor, an empty one for those that nobody wants."""
    return [
        make((0,), inputs.x) if tensor is None or not want else make(tuple(tensor.shape), tensor)
        for tensor, want in zip(inputs.differentiable, wanted, strict=True)
    ]


def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    inputs, train, dtype = RuleInputs(*arguments[:8]), *arguments[8:]
    steps, _ = check(inputs, FLOATING, None, fake=True)
    x, channels, wide = inputs.x, inputs.channels, inputs.coefficients.dtype
    # The number of sequences is data in a packed batch.
    batch = x.shape[1] if inputs.batch_sizes is None else torch.library.get_ctx().new_dynamic_size()
    last = (batch, channels)
    return (
        x.new_empty(inputs.output_shape, dtype=dtype),
        x.new_empty(last, dtype=wide),
        x.new_empty(last if inputs.states > 1 else (0,), dtype=wide),
        x.new_empty(saved_shape(steps, last, train, inputs.states), dtype=wide),
        x.new_empty(product_shape(inputs, train)),
    )


def _fake_backward(*arguments: Any) -> list[Tensor]:
    inputs = RuleInputs(*arguments[:8])
    sizes = check(inputs, FLOATING, None, fake=True)
    check_kept(inputs, sizes, arguments[8:10], arguments[10:13], FLOATING, fake=True)
    return gradients(inputs, arguments[-1], without_data)


def define(operator: str) -> None:
    """Tell torch of an operator and of its backward pass, and of the shapes of what they return."""
    LIBRARY.define(
        f"{operator}({_INPUTS}, bool train, ScalarType? dtype) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    )
    LIBRARY.define(
        f"{operator}_backward({_INPUTS}, Tensor saved, Tensor product, Tensor grad_output, Tensor? grad_v_n, "
        "Tensor? grad_m_n, bool[] wanted) -> Tensor[]"
    )
    name = f"{LIBRARY.ns}::{operator}"
    torch.library.register_fake(name, _fake_forward, lib=LIBRARY)
    torch.library.register_fake(f"{name}_backward", _fake_backward, lib=LIBRARY)


for _operator in ("adaptive_rule", "channel_filter"):
    define(_operator)
    torch.library.impl(LIBRARY, _operator, "CPU")(forward)
    torch.library.impl(LIBRARY, f"{_operator}_backward", "CPU")(backward)
