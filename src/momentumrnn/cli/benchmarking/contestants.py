"""Who is measured beside whom."""

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

import momentumrnn
from momentumrnn.cli.benchmarking.errors import BenchmarkError
from momentumrnn.cli.benchmarking.other_packages import FlashLSTM, peephole_lstm
from momentumrnn.layers.base import RecurrentLayer
from momentumrnn.nearest import did_you_mean


@dataclass(frozen=True)
class Contestant:
    """A layer that is measured.

    Attributes:
        name: As it is asked for and shown.
        baseline: The name of the layer of ``torch.nn`` that it is divided by.
        build: From d and h to a layer of one level and one direction.
        loop: Whether it is a Python loop over time, many times slower than the others.
        backend: The backend of ``momentumrnn.backend`` that it runs on.
        package: What must be installed for it.
        cuda: Whether it is for CUDA alone.
        note: What a reader should know of it.
    """

    name: str
    baseline: str
    build: Callable[[int, int], nn.Module]
    loop: bool = False
    backend: str = "auto"
    package: str | None = None
    cuda: bool = False
    note: str = ""

    @property
    def installed(self) -> bool:
        """Whether it can be built here."""
        return self.package is None or importlib.util.find_spec(self.package) is not None


def _ours(name: str, baseline: str) -> Contestant:
    build: Callable[[int, int], nn.Module] = getattr(momentumrnn, name)
    return Contestant(name, baseline, build)


def _momentum_dtriv(features: int, hidden: int) -> nn.Module:
    return momentumrnn.MomentumDTRIV(features, hidden, momentum=0.3, step_size=0.3)


BASELINES = {
    name: Contestant(name, name, build)
    for name, build in (("nn.LSTM", nn.LSTM), ("nn.GRU", nn.GRU), ("nn.RNN", nn.RNN))
}
CONTESTANTS = {
    contestant.name: contestant
    for contestant in (
        *(
            _ours(name, "nn.LSTM")
            for name in ("LSTM", "MomentumLSTM", "AdamLSTM", "RMSPropLSTM", "NAGLSTM", "SRLSTM")
        ),
        Contestant(
            "reference-loop",
            "nn.LSTM",
            momentumrnn.MomentumLSTM,
            loop=True,
            backend="reference",
            note='MomentumLSTM on backend("reference"), a Python loop over time.',
        ),
        Contestant(
            "torchrecurrent",
            "nn.LSTM",
            peephole_lstm,
            loop=True,
            package="torchrecurrent",
            note="its PeepholeLSTM, a Python loop over time; of that package's cells it is the nearest to an "
            "LSTM, with three peepholes more.",
        ),
        Contestant(
            "flashrnn",
            "nn.LSTM",
            FlashLSTM,
            package="flashrnn",
            cuda=True,
            note="an LSTM by its backend cuda_fused, which it compiles at the first call; the product with "
            "the input is torch's.",
        ),
        *(_ours(name, "nn.GRU") for name in ("GRU", "MomentumGRU")),
        *(_ours(name, "nn.RNN") for name in ("RNN", "MomentumRNN")),
        Contestant("MomentumDTRIV", "nn.RNN", _momentum_dtriv),
    )
}
DEFAULT = (
    "LSTM",
    "MomentumLSTM",
    "AdamLSTM",
    "reference-loop",
    "torchrecurrent",
    "GRU",
    "MomentumGRU",
    "MomentumRNN",
)
DEFAULT_ON_CUDA = (*DEFAULT, "flashrnn", "MomentumDTRIV")
DEFAULT_IN_SWEEPS = ("LSTM", "MomentumLSTM", "AdamLSTM")


def find_contestants(names: Sequence[str]) -> list[Contestant]:
    """Contestants by their names, each once, in the order in which they are shown.

    Args:
        names: Keys of ``CONTESTANTS``.

    Raises:
        BenchmarkError: There is none of that name.
    """
    for name in names:
        if name not in CONTESTANTS:
            hint = did_you_mean(name, CONTESTANTS, before="; ", show=str)
            raise BenchmarkError(f"--models: expected some of {', '.join(CONTESTANTS)}, got {name!r}{hint}")
    return [contestant for contestant in CONTESTANTS.values() if contestant.name in names]


def find_contestant(name: str) -> Contestant:
    """A contestant or baseline by its name.

    Args:
        name: A key of ``BASELINES`` or ``CONTESTANTS``.
    """
    return BASELINES[name] if name in BASELINES else CONTESTANTS[name]


def backend_in_use(contestant: Contestant, layer: nn.Module, x: torch.Tensor) -> str:
    """Which backend runs a contestant.

    Args:
        contestant: Whose layer it is.
        layer: The layer.
        x: Its input.

    Returns:
        A backend's name, or the package that the layer is from.
    """
    if not isinstance(layer, RecurrentLayer):
        return contestant.package or "torch.nn"
    with momentumrnn.backend(contestant.backend):
        told = momentumrnn.explain(layer, x)
    found = re.search(r"^\s*l0: ([\w-]+)", told, re.M)
    return found.group(1) if found else "unknown"
