"""Norms of hidden gradients over the iterations of a training run."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from momentumrnn.analysis.hidden_gradients import HiddenGradientNorms, Reduction, hidden_gradient_norms
from momentumrnn.errors import CheckpointError

__all__ = ["GradientHistory"]

_FORMAT = "momentumrnn gradient history 1"


@dataclass
class GradientHistory:
    """‖∂L/∂h_t‖₂ for every step t, at every n-th iteration of a training run, Fig. 2.

    Attributes:
        every: n.
        reduction: how a batch becomes one number a step; see ``HiddenGradientNorms.reduce``.
        iterations: at which iterations something was recorded, ascending.
        norms: what was recorded there, one float64 tensor (T,) each.

    Raises:
        ValueError: n below 1, or another reduction.

    Example:
        >>> import torch
        >>> from momentumrnn import MomentumRNN
        >>> from momentumrnn.analysis import GradientHistory
        >>> model, history = MomentumRNN(1, 8), GradientHistory(every=2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> for iteration in range(5):
        ...     x = torch.randn(20, 4, 1)
        ...     loss = lambda: model(x)[0][-1].square().mean()
        ...     optimizer.zero_grad()
        ...     loss().backward()
        ...     _ = history.record(iteration, model, loss)
        ...     optimizer.step()
        >>> history.iterations, history.matrix().shape
        ([0, 2, 4], torch.Size([3, 20]))
    """

    every: int = 1
    reduction: Reduction = "batch"
    iterations: list[int] = field(default_factory=list)
    norms: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(
                f"GradientHistory: expected every to be an int of at least 1, got {self.every!r}"
            )
        if self.reduction not in ("batch", "sequence"):
            raise ValueError(
                f'GradientHistory: expected reduction "batch" or "sequence", got {self.reduction!r}'
            )

    def record(
        self,
        iteration: int,
        model: nn.Module,
        loss: Callable[[], Tensor],
        layer: str | nn.Module | None = None,
        place: str | None = None,
    ) -> HiddenGradientNorms | None:
        """Measure, if the iteration is a multiple of n, and keep the result.

        What was kept for this iteration or a later one is dropped first: a run that went on from an older
        checkpoint passes them again.

        Args:
            iteration: how many optimizer steps came before.
            model: as in ``hidden_gradient_norms``, like ``loss``, ``layer`` and ``place``.
            loss: runs the model on the batch of this iteration and returns L.
            layer: which layer.
            place: which of its recurrences.

        Returns:
            The measurement, or ``None`` where none was due.

        Raises:
            Exception: what ``hidden_gradient_norms`` raises.
        """
        if iteration % self.every:
            return None
        found = hidden_gradient_norms(model, loss, layer, place)
        kept = sum(before < iteration for before in self.iterations)
        del self.iterations[kept:], self.norms[kept:]
        self.iterations.append(iteration)
        self.norms.append(found.reduce(self.reduction))
        return found

    def matrix(self) -> Tensor:
        """Return all norms, (iterations, T), NaN where a batch was shorter than the longest."""
        if not self.norms:
            return torch.empty(0, 0, dtype=torch.float64)
        return torch.nn.utils.rnn.pad_sequence(self.norms, batch_first=True, padding_value=torch.nan)

    def save(self, path: str | Path) -> None:
        """Write everything to one safetensors file, replaced as a whole.

        Raises:
            ImportError: safetensors is not installed; it comes with the extra ``experiments``.
        """
        from safetensors.torch import save

        tensors = {
            "iterations": torch.tensor(self.iterations, dtype=torch.int64),
            "norms": self.matrix(),
            "steps": torch.tensor([len(norms) for norms in self.norms], dtype=torch.int64),
        }
        about = {
            "format": _FORMAT,
            "settings": json.dumps({"every": self.every, "reduction": self.reduction}),
        }
        path = Path(path)
        # Beside it first: a process killed in the middle leaves the old file whole.
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            beside.write_bytes(save(tensors, about))
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote, to plot it or to go on recording.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it holds something else.
            ImportError: safetensors is not installed.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: expected a gradient history, found no such file")
        try:
            with safe_open(path, framework="pt") as stream:
                about: dict[str, Any] = stream.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise ValueError(f"expected {_FORMAT!r}, got {about.get('format')!r}")
                settings = json.loads(about["settings"])
                iterations = stream.get_tensor("iterations").tolist()
                rows, steps = stream.get_tensor("norms"), stream.get_tensor("steps").tolist()
            norms = [row[:count].clone() for row, count in zip(rows, steps, strict=True)]
            if len(norms) != len(iterations):
                raise ValueError(f"{len(iterations)} iterations, but {len(norms)} rows of norms")
            return cls(**settings, iterations=iterations, norms=norms)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: cannot be read as a gradient history: {error}") from error
