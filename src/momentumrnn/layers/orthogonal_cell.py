"""One step of the orthogonal layer, with its matrix kept from step to step."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from momentumrnn import kernels
from momentumrnn.kernels import GateInput
from momentumrnn.layers.cells import _RecurrentCell
from momentumrnn.layers.orthogonal import OrthogonalWeights
from momentumrnn.parametrizations import Orthogonal
from momentumrnn.parametrizations.initialisation import Start
from momentumrnn.parametrizations.maps import Map
from momentumrnn.rules import Rule

__all__ = ["OrthogonalRNNCell"]


class _Kept(NamedTuple):
    """A matrix with what it was made of.

    By its numbers, since nothing else tells of all changes: ``.data`` has no version, and another tensor may
    come to lie at the same address.
    """

    parameter: Tensor
    skew: Tensor
    base: Tensor
    modes: tuple[bool, bool]
    matrix: Tensor

    def is_of(self, skew: Tensor, base: Tensor, modes: tuple[bool, bool]) -> bool:
        """Whether it is the matrix of these."""
        return (
            self.parameter is skew
            and self.modes == modes
            and (self.skew.dtype, self.skew.device) == (skew.dtype, skew.device)
            and torch.equal(self.skew, skew)
            and torch.equal(self.base, base)
        )


def _recomputed() -> bool:
    # torch has no public question for hooks on what is saved for the backward pass.
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return top is not None and top(False) is not None


class OrthogonalRNNCell(OrthogonalWeights, _RecurrentCell):
    r"""One step of ``momentumrnn.OrthogonalRNN``: h' = modrelu(U h + bias_hh + d), d = rule(W x + bias_ih).

    U is computed at the first step and kept for those that follow, until an optimizer changes it or a
    backward pass has gone through it: a loop over a sequence computes it once. Where the graphs of two
    sequences are gone through one after the other, call ``reset`` between the sequences.

    Args:
        input_size: d.
        hidden_size: h.
        bias: whether there are ``bias_ih`` and ``bias_hh``; the paper has none.
        device: where the parameters are made.
        dtype: what they are made of.
        map: ``"exp"`` or ``"cayley"``.
        rebase_every: ``None``, K or ``math.inf``, as in ``momentumrnn.OrthogonalRNN``.
        init: ``"cayley"``, ``"henaff"``, ``"haar"`` or ``"identity"``.
        rule: one of ``momentumrnn.rules``, or ``None``.

    Inputs, outputs and errors are those of ``momentumrnn.RNNCell``.

    Example:
        >>> import torch
        >>> from momentumrnn import OrthogonalRNNCell, rules
        >>> cell, state = OrthogonalRNNCell(10, 20, rule=rules.HeavyBall(0.3, 0.3)), None
        >>> for x_t in torch.randn(6, 3, 10):
        ...     h, m = state = cell(x_t, state)
        >>> h.shape
        torch.Size([3, 20])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        map: Map = "exp",
        rebase_every: float | None = None,
        init: Start = "cayley",
        rule: Rule | None = None,
    ) -> None:
        super().__init__(1, input_size, hidden_size, bias, device, dtype, rule)
        del self._parameters["weight_hh"]
        self.modrelu_bias = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.orthogonal = Orthogonal(hidden_size, map, rebase_every, init, device, dtype)
        self._kept: _Kept | None = None
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Run one step; see the class for shapes."""
        hx = (hx,) if self.rule is None and hx is not None else hx
        (h,), momentum = self._run(input, hx)
        return h if self.rule is None else (h, momentum)

    def reset(self) -> None:
        """Forget the matrix that is kept; the next step computes it anew."""
        self._kept = None

    def reset_parameters(self) -> None:
        """Draw every weight anew, and put the rule to its start."""
        nn.init.kaiming_normal_(self.weight_ih, nonlinearity="relu")
        nn.init.uniform_(self.modrelu_bias, -0.01, 0.01)
        for bias in (self.bias_ih, self.bias_hh):
            if bias is not None:
                nn.init.zeros_(bias)
        self.orthogonal.reset_parameters()
        if self.rule is not None:
            self.rule.reset_parameters()

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + (", bias=True" if self.bias else "")

    def matrix_for(self, name: str) -> Tensor:
        """Return U, as it was kept if nothing has changed since."""
        if torch.compiler.is_compiling() or kernels.transforms():
            now: Tensor = self.orthogonal()
            return now
        skew, base = self.orthogonal.skew, self.orthogonal.base
        wanted = torch.is_grad_enabled() and skew.requires_grad
        modes = torch.is_inference_mode_enabled(), wanted
        if self._kept is not None and self._kept.is_of(skew, base, modes):
            return self._kept.matrix
        matrix: Tensor = self.orthogonal()
        if wanted and _recomputed():
            # Activation checkpointing counts on every step being the same when it is run again.
            self.reset()
            return matrix
        with torch.no_grad():
            self._kept = _Kept(skew, skew.detach().clone(), base.clone(), modes, matrix)
        if wanted:
            cell = weakref.ref(self)
            # Its graph is gone with the backward pass.
            matrix.register_hook(lambda _: None if (own := cell()) is None else own.reset())
        return matrix

    def _recur(self, inputs: GateInput, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h_0,) = states
        return kernels.rnn(inputs, h_0, self.weight_hh, self.bias_hh, "modrelu", self.modrelu_bias)

    def __getstate__(self) -> dict[str, Any]:
        # What is kept may hang on a graph, which can be neither copied nor pickled.
        return self.__dict__ | {"_kept": None}
