"""Every rule and every cell, once as the package builds it and once as the oracle computes it."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

import momentumrnn
import oracle
from momentumrnn import rules

# The rules by name, with numbers that show every term: ε is large enough for its place to matter, and
# the restart period is shorter than the sequences.
NUMBERS: dict[str, dict[str, Any]] = {
    "heavy_ball": {"momentum": 0.7, "step_size": 0.6},
    "nesterov": {"step_size": 0.8},
    "restart": {"restart": 3, "step_size": 0.9},
    "adam": {"momentum": 0.6, "step_size": 0.5, "beta": 0.8, "eps": 0.05},
    "rmsprop": {"step_size": 0.4, "beta": 0.9, "eps": 0.05},
    "qhm": {"momentum": 0.8, "nu": 0.6, "step_size": 0.7},
    "aggmo": {"momenta": (0.5, 0.9), "step_size": 0.7},
    "complex": {"momentum": 0.9, "angle": 0.8, "step_size": 0.6, "phase": 0.4},
}
RULES = list(NUMBERS)
# Those beyond the paper: each is a filter with constant poles, and meets the cells below alone.
FILTER_RULES = ["qhm", "aggmo", "complex"]
LINEAR_RULES = ["heavy_ball", "nesterov", "restart"]
CLASSES = {
    "heavy_ball": rules.HeavyBall,
    "nesterov": rules.Nesterov,
    "restart": rules.ScheduledRestart,
    "adam": rules.Adam,
    "rmsprop": rules.RMSProp,
    "qhm": rules.QHM,
    "aggmo": rules.AggMo,
    "complex": rules.ComplexMomentum,
}
# What each learns, by the names that its rule has for the coefficients.
LEARNED = {
    "heavy_ball": ["momentum", "step_size"],
    "nesterov": ["step_size"],
    "restart": ["step_size"],
    "adam": ["momentum", "step_size", "beta"],
    "rmsprop": ["step_size", "beta"],
    "qhm": ["momentum", "nu", "step_size"],
    "aggmo": ["momentum_1", "momentum_2", "step_size"],
    "complex": ["momentum", "angle", "step_size", "phase"],
}
# The numbers by those same names.
COEFFICIENTS = {
    name: {
        coefficient: number
        for given, value in numbers.items()
        for coefficient, number in (
            [(f"momentum_{i}", momentum) for i, momentum in enumerate(value, 1)]
            if given == "momenta"
            else [(given, value)]
        )
    }
    for name, numbers in NUMBERS.items()
}
VELOCITIES = ["gate", "hidden"]
LEARNABLE = [False, True, "channel"]
# Rule and velocity, without and with what is learned. The plain layer has no velocity and learns none.
RULE_CASES = [("none", "gate"), *itertools.product(RULES, VELOCITIES)]
LEARNABLE_CASES = [("none", "gate", False), *itertools.product(RULES, VELOCITIES, LEARNABLE)]

# The cells by name: the layer's class, its own arguments, and the oracle's name for it.
CELLS: dict[str, tuple[str, dict[str, Any], oracle.Cell]] = {
    "rnn_tanh": ("RNN", {}, oracle.Cell("rnn")),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}, oracle.Cell("rnn", "relu")),
    "rnn_modrelu": ("RNN", {"nonlinearity": "modrelu"}, oracle.Cell("rnn", "modrelu")),
    "lstm": ("LSTM", {}, oracle.Cell("lstm")),
    "lstm_projected": ("LSTM", {"proj_size": 2}, oracle.Cell("lstm")),
    "lstm_original": ("LSTM", {"forget_gate": False}, oracle.Cell("lstm", forget_gate=False)),
    "gru": ("GRU", {}, oracle.Cell("gru")),
    "orthogonal": ("OrthogonalRNN", {}, oracle.Cell("rnn", "modrelu")),
    "orthogonal_cayley": (
        "OrthogonalRNN",
        {"map": "cayley", "init": "henaff", "rebase_every": 2, "bias": True},
        oracle.Cell("rnn", "modrelu"),
    ),
}
# One cell of each kind. What a filter gives to the others is what it gives to these.
FEW_CELLS = ["rnn_tanh", "lstm", "gru", "orthogonal"]
ORTHOGONAL_CELLS = ["orthogonal", "orthogonal_cayley"]
# What the backend "torch" accepts with any rule: torch has no modrelu.
TORCH_CELLS = [name for name, (_, _, cell) in CELLS.items() if cell.nonlinearity != "modrelu"]
BACKEND_CASES = [*((cell, "reference") for cell in CELLS), *((cell, "torch") for cell in TORCH_CELLS)]
# What torch's fused recurrences can compute, over the input filtered by a linear rule.
FUSED_CELLS = ["rnn_tanh", "rnn_relu", "lstm", "lstm_projected", "gru"]


def has_memory_cell(cell: str) -> bool:
    """Whether the state holds a c beside h."""
    return cell.startswith("lstm")


def make_rule(name: str, velocity: str = "gate", learnable: Any = False) -> Any:
    """The package's rule, or None for the plain layer."""
    if name == "none":
        return None
    return CLASSES[name](**NUMBERS[name], velocity=velocity, learnable=learnable)


def make_with(name: str, coefficients: dict[str, Any], **options: Any) -> Any:
    """The package's rule with numbers by the names that ``COEFFICIENTS`` has for them."""
    numbers = dict(coefficients)
    if name == "aggmo":
        numbers["momenta"] = tuple(numbers.pop(key) for key in list(numbers) if key != "step_size")
    return CLASSES[name](**numbers, **options)


def oracle_rule(name: str, rule: Any = None, velocity: str = "gate") -> oracle.Rule:
    """The oracle's rule, with the coefficients ``rule`` has learned as tensors, so that gradients arrive."""
    numbers = NUMBERS.get(name, {})

    def value(coefficient: str, otherwise: float) -> Any:
        fixed = numbers.get(coefficient, otherwise)
        now = getattr(rule, coefficient, fixed)
        return now if isinstance(now, Tensor) else fixed

    first, second = getattr(rule, "momenta", numbers.get("momenta", (value("momentum", 0.0), 0.0)))
    return oracle.Rule(
        name,
        mu=first,
        mu_2=second,
        nu=value("nu", 0.0),
        phi=value("angle", 0.0),
        theta=value("phase", 0.0),
        s=value("step_size", 1.0),
        beta=value("beta", 0.0),
        eps=numbers.get("eps", 1e-8),
        period=numbers.get("restart", 1),
        velocity=velocity,
    )


def make_layer(
    cell: str,
    rule: str,
    velocity: str = "gate",
    learnable: Any = False,
    input_size: int = 3,
    hidden_size: int = 5,
    seed: int = 0,
    **options: Any,
) -> Any:
    """A float64 layer with a rule, its parameters drawn from a fixed seed."""
    kind, arguments, _ = CELLS[cell]
    torch.manual_seed(seed)
    layer = getattr(momentumrnn, kind)(
        input_size,
        hidden_size,
        **({"dtype": torch.float64} | arguments | options),
        rule=make_rule(rule, velocity, learnable),
    )
    for name, parameter in layer.named_parameters():
        if "modrelu" in name:  # drawn from ±0.01, where it hardly shows
            nn.init.uniform_(parameter, -0.3, 0.3)
    return layer


def places(layer: Any) -> list[list[str]]:
    """The suffixes of parameter names, one list for each stacked layer: l0, l0_reverse, …"""
    directions = ["", "_reverse"] if layer.bidirectional else [""]
    return [[f"l{k}{d}" for d in directions] for k in range(layer.num_layers)]


def oracle_weights(layer: Any, place: str) -> oracle.Weights:
    """The parameters of one place, the very tensors, so that gradients arrive."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "modrelu_bias")
    return oracle.Weights(*(getattr(layer, f"{name}_{place}", None) for name in names))


def oracle_layer(
    layer: Any,
    cell: str,
    rule: str,
    velocity: str,
    x: Tensor,
    h: Tensor | None = None,
    c: Tensor | None = None,
    memory: oracle.Memory | None = None,
) -> tuple[Tensor, Tensor, Tensor, oracle.Memory]:
    """What the equations make of the layer's parameters: output (T, B, ·), h_n, c_n and the rules' memory."""
    stack, count = [], itertools.count()
    for row in places(layer):
        stack.append([])
        for place in row:
            n = next(count)
            own = getattr(layer, f"rule_{place}", None)
            stack[-1].append(
                oracle.Direction(
                    oracle_rule(rule, own, velocity),
                    oracle_weights(layer, place),
                    None if h is None else h[n],
                    None if c is None else c[n],
                    None if memory is None else oracle.Memory(*(part[n] for part in memory)),
                )
            )
    return oracle.run_stack(CELLS[cell][2], stack, x)


def state_of(rule: str, memory: oracle.Memory) -> Any:
    """The package's state that holds what the oracle remembers."""
    v, m, k = memory
    return {
        "heavy_ball": lambda: rules.HeavyBallState(v),
        "nesterov": lambda: rules.NesterovState(v, k),
        "restart": lambda: rules.NesterovState(v, k),
        "adam": lambda: rules.AdamState(v, m),
        "rmsprop": lambda: rules.RMSPropState(m),
        "qhm": lambda: rules.QHMState(v),
        "aggmo": lambda: rules.AggMoState(torch.stack([v, m], dim=-2)),
        "complex": lambda: rules.ComplexMomentumState(v, m),
    }[rule]()


def random_memory(*shape: int) -> oracle.Memory:
    """A memory (…, C) as if each sequence had already run for a time of its own."""
    v, m = torch.randn(*shape, dtype=torch.float64), torch.rand(*shape, dtype=torch.float64) + 0.1
    k = torch.arange(v[..., 0].numel()).reshape(shape[:-1]) * 3 % 8
    return oracle.Memory(v, m, k)


def flat(state: Any) -> list[Tensor]:
    """The tensors of a state, however nested, in order."""
    if state is None:
        return []
    return [state] if isinstance(state, Tensor) else [tensor for part in state for tensor in flat(part)]
