"""From parsed TOML to typed dataclasses, every key accounted for."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from momentumrnn.errors import RecipeError
from momentumrnn.nearest import did_you_mean

# No size, count or seed is larger, and neither torch nor NumPy holds larger ones.
LARGEST = 2**63
MOST_SHOWN = 60


def build(kind: type[Any], values: Any, path: str = "") -> Any:
    """Build a dataclass, and the dataclasses in it, from mappings.

    Args:
        kind: The dataclass.
        values: Key → value; a whole number may stand for a float, a list for a tuple, ``None`` for no value.
        path: The dotted name of ``values``, for error messages.

    Raises:
        RecipeError: An unknown key (the nearest right one is named), a missing one, a wrong type.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(f"{path}: expected a section, got {values!r}")
    hints = get_type_hints(kind)
    dot = f"{path}." if path else ""
    what = "key" if path else "section"
    for key in values:
        if key not in hints:
            hint = did_you_mean(key, hints, f"known are {', '.join(hints)}", show=lambda name: dot + name)
            raise RecipeError(f"unknown {what} {dot}{key}{hint}")
    values = {key: value for key, value in values.items() if value is not None}
    for entry in dataclasses.fields(kind):
        optional = (
            entry.default is not dataclasses.MISSING or entry.default_factory is not dataclasses.MISSING
        )
        if entry.name not in values and not optional:
            raise RecipeError(f"missing {what} {dot}{entry.name}")
    built = {
        key: build(hints[key], value, f"{dot}{key}")
        if dataclasses.is_dataclass(hints[key])
        else _convert(hints[key], value, f"{dot}{key}")
        for key, value in values.items()
    }
    return kind(**built)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return _convert(option, value, path)
            except RecipeError:
                continue
    elif origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(_convert(arguments[0], item, path) for item in value)
    elif origin is dict:
        if isinstance(value, Mapping):
            return {key: _convert(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    # bool is an int in Python, and is not meant where a number is.
    elif isinstance(value, bool):
        if hint is bool:
            return value
    elif isinstance(value, int) and abs(value) >= LARGEST:
        raise RecipeError(f"{path}: expected {_describe(hint)} below 2⁶³, got {_shown(value)}")
    elif hint is float and isinstance(value, int | float):
        return float(value)
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    raise RecipeError(f"{path}: expected {_describe(hint)}, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}… ({len(text)} characters)"


def _describe(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(option) for option in arguments if option is not types.NoneType)
    if origin is Literal:
        return " or ".join(repr(option) for option in arguments)
    if origin is tuple:
        return f"a list of {_describe(arguments[0])}"
    if origin is dict:
        return f"a section of {_describe(arguments[1])}"
    return {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}.get(
        hint, str(hint)
    )
