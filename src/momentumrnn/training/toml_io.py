"""Reading TOML with errors that name the file, and writing the flat sections that recipes are made of."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from momentumrnn.errors import RecipeError
from momentumrnn.regular_files import read_regular

Sections = dict[str, dict[str, Any]]


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Parse TOML.

    Args:
        text: The document.
        source: What it is, for the error message.

    Raises:
        RecipeError: It is not valid TOML.
    """
    try:
        return tomllib.loads(text)
    # Python itself refuses numbers of thousands of digits and brackets hundreds deep.
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{source}: not valid TOML: {error}") from error


def read_text(path: Path) -> str:
    """The text of a file.

    Args:
        path: The file.

    Raises:
        RecipeError: It is not UTF-8, cannot be read, or is no regular file.
    """
    try:
        return read_regular(path).decode("utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path}: cannot be read as text: {error}") from error


def parse_value(text: str) -> Any:
    """A value as TOML reads it, and as a plain string where it is no TOML.

    Args:
        text: What follows the equals sign of an override, as in ``--set optimizer.lr=1e-3``.

    >>> parse_value("128"), parse_value("true"), parse_value("adam")
    (128, True, 'adam')
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # A line break would let the text define more than its value.
    return parsed["value"] if parsed.keys() == {"value"} else text


def write_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Write sections of strings, numbers, truth values and lists of them; ``None`` is left out.

    Args:
        sections: Section → key → value.

    Raises:
        TypeError: A value is of another type.

    >>> print(write_toml({"model": {"name": "LSTM", "hidden_size": 128}}), end="")
    [model]
    name = "LSTM"
    hidden_size = 128
    """
    blocks = []
    for section, values in sections.items():
        lines = [f"{key} = {_literal(value)}" for key, value in values.items() if value is not None]
        if lines:
            blocks.append("\n".join([f"[{section}]", *lines]) + "\n")
    return "\n".join(blocks)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # repr is shortest and exact; inf and nan are spelled alike in TOML.
        return repr(value)
    if isinstance(value, str):
        # JSON's string escapes are TOML's, but for the one character that TOML wants escaped as well.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    raise TypeError(f"expected a string, number, truth value or list, got {type(value).__name__}")
