"""Adam and RMSProp in C++, together with the drive that they act on, as a torch operator."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from momentumrnn.kernels.operands import check_operand, check_sizes
from momentumrnn.kernels.operators import (
    LIBRARY,
    Make,
    address,
    compiled,
    empty,
    plain,
    plain_if_any,
    without_data,
)

__all__ = ["RuleInputs", "backward", "forward"]

# Steps from one kept state to the next: the states take 2 / 32 of the memory of what they belong to.
_INTERVAL = 32
# Of so few features the drive is made inside the scan: written and read as a whole it would take longer.
# For fewer channels than these it would not.
_FEW_FEATURES = 64
_FEW_CHANNELS = 64


class RuleInputs(NamedTuple):
    """A rule and all that it runs on: the operator's arguments, in its order.

    Attributes:
        x: (T, B, d), or the rows (N, d) of a packed batch.
        weight: (C, d).
        bias: (C,) or ``None``.
        coefficients: (4, C): the momentum, the step size, β and 1 - β of each channel.
        eps: what keeps the denominator from zero.
        v_0: (B, C), the velocity before the first step, or ``None`` for zero.
        m_0: (B, C), the second moment likewise.
        batch_sizes: int64 (T,) on the CPU for a packed batch.
    """

    x: Tensor
    weight: Tensor
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
        return *self.x.shape[:-1], self.weight.shape[0]

    @property
    def steps(self) -> int:
        """The number of steps, T."""
        return self.x.shape[0] if self.batch_sizes is None else self.batch_sizes.shape[0]

    @property
    def state_shape(self) -> tuple[int, int]:
        """(B, C)."""
        batch = self.x.shape[1] if self.batch_sizes is None else int(self.batch_sizes[0])
        return batch, self.weight.shape[0]


_INPUTS = (
    "Tensor x, Tensor weight, Tensor? bias, Tensor coefficients, float eps, Tensor? v_0, Tensor? m_0, "
    "Tensor? batch_sizes"
)
LIBRARY.define(f"adaptive_rule({_INPUTS}, bool train) -> (Tensor, Tensor, Tensor, Tensor)")
LIBRARY.define(
    f"adaptive_rule_backward({_INPUTS}, Tensor saved, Tensor grad_output, Tensor? grad_v_n, "
    "Tensor? grad_m_n, bool[] wanted) -> Tensor[]"
)


def _product(inputs: RuleInputs) -> Tensor:
    """Return x Wᵀ; the kernel adds the bias, for which torch would go through memory once more."""
    product = empty(inputs.output_shape, inputs.x)
    torch.mm(inputs.x.flatten(0, -2), inputs.weight.t(), out=product.view(-1, product.shape[-1]))
    return product


def _is_made_inside(inputs: RuleInputs) -> bool:
    channels, features = inputs.weight.shape
    # The sums for W's gradient, a row a feature for each sequence, want steps enough to be worth it.
    return 0 < features <= min(_FEW_FEATURES, inputs.steps // 2) and channels >= _FEW_CHANNELS


def _check(inputs: RuleInputs) -> None:
    like, channels = inputs.weight, inputs.weight.shape[0]
    check_sizes(inputs.batch_sizes, inputs.x.shape[0])
    for name, tensor, shape in (
        ("x", inputs.x, (*inputs.x.shape[:-1], like.shape[1])),
        ("bias", inputs.bias, (channels,)),
        ("coefficients", inputs.coefficients, (4, channels)),
        ("v_0", inputs.v_0, inputs.state_shape),
        ("m_0", inputs.m_0, inputs.state_shape),
    ):
        check_operand(name, tensor, shape, like)


def _run(kernel: str, inputs: RuleInputs, product: Tensor | None, arrays: dict[str, Tensor | None]) -> None:
    """Run the forward or the backward kernel.

    Args:
        kernel: its name.
        inputs: what both passes read.
        product: W x, or ``None`` for the kernel to make it where it needs it.
        arrays: what this pass reads or writes beside that.
    """
    batch, channels = inputs.state_shape
    _check(inputs)
    momentum, step_size, beta, rest = plain(inputs.coefficients).unbind()
    # Kept until the call is over: the C++ side has nothing but their addresses.
    arrays = {
        **arrays,
        "momentum": momentum,
        "step_size": step_size,
        "beta": beta,
        "rest": rest,
        "v_0": plain_if_any(inputs.v_0),
        "m_0": plain_if_any(inputs.m_0),
        "sizes": plain_if_any(inputs.batch_sizes),
        "bias": plain_if_any(inputs.bias),
    }
    if product is not None:
        arrays["product"] = product
    else:
        arrays |= {"x": plain(inputs.x), "weight": plain(inputs.weight)}
    problem = {
        "threads": torch.get_num_threads(),
        "steps": inputs.steps,
        "batch": batch,
        "channels": channels,
        "features": inputs.x.shape[-1],
        "interval": _INTERVAL,
        "eps": inputs.eps,
        **{name: address(tensor) for name, tensor in arrays.items()},
    }
    getattr(compiled(), kernel)(problem, inputs.x.dtype is torch.float64)


def _saved_shape(steps: int, state_shape: tuple[Any, ...], train: bool) -> tuple[int, ...]:
    return (2, -(-steps // _INTERVAL), *state_shape) if train else (0,)


@torch.library.impl(LIBRARY, "adaptive_rule", "CPU")
def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run a rule.

    Args:
        *arguments: those of ``RuleInputs``, and whether to keep what the backward pass needs.

    Returns:
        All d_t, the last velocity, the last second moment, and the states kept on the way.
    """
    inputs, train = RuleInputs(*arguments[:-1]), arguments[-1]
    x, state_shape = inputs.x, inputs.state_shape
    made_inside = _is_made_inside(inputs)
    d = empty(inputs.output_shape, x) if made_inside else _product(inputs)
    v_n, m_n = x.new_empty(state_shape), x.new_empty(state_shape)
    saved = empty(_saved_shape(inputs.steps, state_shape, train), x)
    if state_shape[0] == 0:
        return d, v_n, m_n, saved
    arrays: dict[str, Tensor | None] = {
        "output": d,
        "v_saved": saved[0] if train else None,
        "m_saved": saved[1] if train else None,
        "v_n": v_n,
        "m_n": m_n,
    }
    _run("adaptive_forward", inputs, None if made_inside else d, arrays)
    return d, v_n, m_n, saved


@torch.library.impl(LIBRARY, "adaptive_rule_backward", "CPU")
def backward(*arguments: Any) -> list[Tensor]:
    """Run the backward pass of a rule.

    Args:
        *arguments: those of ``RuleInputs``; the states that the forward pass kept; the gradients of all d_t,
            of the last velocity and of the last second moment; and for each differentiable input whether its
            own is wanted.

    Returns:
        The gradient of each differentiable input, empty where there is none.
    """
    inputs = RuleInputs(*arguments[:8])
    saved, grad_output, grad_v_n, grad_m_n, wanted = arguments[8:]
    x = inputs.x
    if x.numel() == 0:
        return [grad.zero_() for grad in _gradients(inputs, wanted, empty)]
    if saved.numel() == 0:
        # The forward pass was told that nobody would ask.
        saved = forward(*inputs, True)[3]
    grads = _gradients(inputs, wanted, empty)
    grad_x, grad_weight, grad_bias, grad_coefficients, grad_v_0, grad_m_0 = grads
    learned = grad_coefficients.unbind() if grad_coefficients.numel() else [None] * 4
    made_inside = _is_made_inside(inputs)
    # The product, in whose place the drive's gradient comes.
    drive: Tensor | None = None
    if not made_inside:
        # Not kept from the forward pass, which wrote its result there: it is as large as all gates.
        drive = _product(inputs)
    elif grad_x.numel():
        drive = empty(inputs.output_shape, x)
    arrays: dict[str, Tensor | None] = {
        "grad_weight": grad_weight if made_inside else None,
        "grad_bias": grad_bias,
        "v_saved": saved[0],
        "m_saved": saved[1],
        "grad_output": plain(grad_output),
        "grad_v_n": plain_if_any(grad_v_n),
        "grad_m_n": plain_if_any(grad_m_n),
        "grad_drive": drive,
        "grad_v_0": grad_v_0,
        "grad_m_0": grad_m_0,
        "grad_momentum": learned[0],
        "grad_step_size": learned[1],
        "grad_beta": learned[2],
        "grad_rest": learned[3],
    }
    _run("adaptive_backward", inputs, None if made_inside else drive, arrays)
    if drive is None:
        return grads
    # By now the drive's own gradient.
    flat, rows = drive.view(-1, drive.shape[-1]), x.flatten(0, -2)
    if grad_weight.numel() and not made_inside:
        torch.mm(flat.t(), rows, out=grad_weight)
    if grad_x.numel():
        torch.mm(flat, inputs.weight, out=grad_x.view(-1, x.shape[-1]))
    return grads


def _gradients(inputs: RuleInputs, wanted: list[bool], make: Make) -> list[Tensor]:
    """Make a tensor for the gradient of each input tensor, an empty one for those that nobody wants."""
    return [
        make(tuple(tensor.shape) if want and tensor is not None else (0,), inputs.x)
        for tensor, want in zip(inputs.differentiable, wanted, strict=True)
    ]


def _fake_forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs, train = RuleInputs(*arguments[:-1]), arguments[-1]
    x, channels = inputs.x, inputs.weight.shape[0]
    # The number of sequences is data in a packed batch.
    batch = x.shape[1] if inputs.batch_sizes is None else torch.library.get_ctx().new_dynamic_size()
    last = (batch, channels)
    return (
        x.new_empty(inputs.output_shape),
        x.new_empty(last),
        x.new_empty(last),
        x.new_empty(_saved_shape(inputs.steps, last, train)),
    )


def _fake_backward(*arguments: Any) -> list[Tensor]:
    return _gradients(RuleInputs(*arguments[:8]), arguments[-1], without_data)


torch.library.register_fake("momentumrnn::adaptive_rule", _fake_forward, lib=LIBRARY)
torch.library.register_fake("momentumrnn::adaptive_rule_backward", _fake_backward, lib=LIBRARY)
