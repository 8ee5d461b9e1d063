"""The recurrent layers of the package by name, and how a recipe's words become one."""

import functools
import inspect
from typing import Any

from torch import nn

import momentumrnn
from momentumrnn.errors import RecipeError
from momentumrnn.nearest import did_you_mean

# What a rule is made of: a recipe states every one that its model takes, so that it says by itself what runs.
COEFFICIENTS = ("momentum", "step_size", "beta", "restart")
OPTIONS = ("velocity", "learnable")
# What layers with an orthogonal matrix take beside it: key of a recipe's section [model] → argument.
LAYER_OPTIONS = {"map": "map", "rebase_every": "rebase_every", "orthogonal_init": "init"}


# Every recipe that is built asks several times.
@functools.cache
def recurrent_layers() -> dict[str, type[nn.Module]]:
    """Every public recurrent layer of the package, without the single-step cells."""
    public = {name: getattr(momentumrnn, name) for name in momentumrnn.__all__}
    return {
        name: value
        for name, value in public.items()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and {"input_size", "hidden_size", "num_layers"} <= _argument_names(name)
    }


def find_layer(name: str) -> type[nn.Module]:
    """The recurrent layer of that name.

    Args:
        name: A class name, as ``momentumrnn`` exports it.

    Raises:
        RecipeError: There is none; the message names the nearest.
    """
    layers = recurrent_layers()
    if name in layers:
        return layers[name]
    hint = did_you_mean(name, layers, f"known are {', '.join(layers)}", cutoff=0.4)
    raise RecipeError(f"there is no model {name!r}{hint}")


def rule_arguments(name: str) -> dict[str, bool]:
    """Which arguments of a rule a layer takes.

    Args:
        name: A class name.

    Returns:
        Argument name → whether a recipe must give it.
    """
    taken = _argument_names(find_layer(name).__name__)
    return {argument: argument in COEFFICIENTS for argument in (*COEFFICIENTS, *OPTIONS) if argument in taken}


def takes_weight_dropout(name: str) -> bool:
    """Whether a layer can drop entries of U.

    Args:
        name: A class name.
    """
    return "weight_dropout" in _argument_names(find_layer(name).__name__)


def layer_options(name: str) -> set[str]:
    """Which arguments of an orthogonal matrix a layer takes.

    Args:
        name: A class name.
    """
    return set(LAYER_OPTIONS.values()) & _argument_names(find_layer(name).__name__)


def build_layer(
    name: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    dropout: float = 0.0,
    rule: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    device: str | None = None,
) -> nn.Module:
    """Build a recurrent layer by name.

    Args:
        name: A class name, as ``momentumrnn`` exports it.
        input_size: d.
        hidden_size: h.
        num_layers: How many are stacked.
        dropout: Between stacked layers.
        rule: The coefficients of its rule, by argument name.
        options: What else it takes, likewise.
        device: Where its weights are made; ``"meta"`` checks the arguments without making any.

    Raises:
        RecipeError: The layer refuses these arguments; the message is its own.
    """
    layer = find_layer(name)
    try:
        return layer(
            input_size,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            device=device,
            **(rule or {}),
            **(options or {}),
        )
    except (TypeError, ValueError, RuntimeError) as error:
        # The further lines of some errors of torch are a trace of its C++ code.
        said = str(error).partition("\n")[0]
        raise RecipeError(f"model {name}: {said}") from error


@functools.cache
def _argument_names(name: str) -> frozenset[str]:
    # A named layer passes on what it does not take itself.
    return frozenset(
        argument
        for base in getattr(momentumrnn, name).__mro__
        if issubclass(base, nn.Module)
        for argument in inspect.signature(base.__init__).parameters
    )
