"""The keys of a recipe that a sweep varies, and over what."""

import itertools
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from momentumrnn.errors import RecipeError
from momentumrnn.training import Recipe
from momentumrnn.training.toml_io import parse_value
from momentumrnn.training.typed import LARGEST

FORM = "KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=a,b,c"
MOST_CORNERS = 512
# Of type float for the sake of inf alone.
WHOLE = {"model.rebase_every"}
Value = bool | int | float | str


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
        key: ``section.key`` of a recipe.
        low: The lower end; whole numbers are meant where both ends are ``int``.
        high: The upper end.
        log: Whether the logarithm is what is searched evenly.
    """

    key: str
    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values between which the others lie."""
        return self.low, self.high

    @property
    def grid(self) -> tuple[Value, ...] | None:
        """Every value, ``None`` where there is no end to them."""
        whole = isinstance(self.low, int) and isinstance(self.high, int) and not self.log
        return tuple(range(int(self.low), int(self.high) + 1)) if whole else None

    def __str__(self) -> str:
        return f"{self.low!r}:{self.high!r}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """Values of which each trial takes one.

    Attributes:
        key: ``section.key`` of a recipe.
        values: Two or more.
    """

    key: str
    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """All of them: there is nothing between."""
        return self.values

    @property
    def grid(self) -> tuple[Value, ...] | None:
        """All of them."""
        return self.values

    def __str__(self) -> str:
        return ",".join(as_text(value) for value in self.values)


Axis = Range | Choices


def as_text(value: Value) -> str:
    """A value as ``--set`` reads it, to the last digit.

    Args:
        value: Of a recipe.

    >>> as_text(0.1), as_text(True), as_text("gate")
    ('0.1', 'true', 'gate')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def with_values(recipe: Recipe, values: Mapping[str, Value]) -> Recipe:
    """A recipe with some values in the place of its own, and nothing published.

    Args:
        recipe: Any.
        values: ``section.key`` → value.

    Raises:
        RecipeError: The recipe cannot have them.
    """
    sections = recipe.sections()
    sections.pop("published", None)
    for key, value in values.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    given = " ".join(f"{key}={as_text(value)}" for key, value in values.items())
    return Recipe.from_sections(sections, f"--over, at {given}")


def parse_axes(texts: Sequence[str], recipe: Recipe) -> tuple[Axis, ...]:
    """What ``--over`` says, checked against the recipe it is meant for.

    Args:
        texts: Such as ``rule.momentum=0:0.99``.
        recipe: The recipe.

    Raises:
        RecipeError: Another form, a key that no recipe has or no sweep may vary, ends in the wrong order, a
            value that the recipe cannot have.
    """
    if not texts:
        raise RecipeError(f"--over: say what to sweep, as {FORM}, such as --over rule.momentum=0:0.99")
    axes = tuple(_parse(text, recipe) for text in texts)
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise RecipeError(f"--over {key}: expected every key once, got it {keys.count(key)} times")
    for corner in _corners(axes):
        with_values(recipe, corner)
    return axes


def _parse(text: str, recipe: Recipe) -> Axis:
    key, equals, given = (part.strip() for part in text.partition("="))
    section, dot, name = key.partition(".")
    if not (equals and dot and section and name and given):
        raise RecipeError(f"--over: expected {FORM}, such as rule.momentum=0:0.99, got {text!r}")
    if key == "training.seed":
        raise RecipeError("--over training.seed: the seeds are counted from 0; choose how many with --seeds")
    if section in ("data", "published"):
        raise RecipeError(
            f"--over {key}: trials are compared on the same data, and what is published is no setting; "
            "sweep a key of model, rule, optimizer or training"
        )
    kinds = _kinds(key, recipe)
    if "," in given:
        return _choices(key, given, kinds)
    if ":" in given:
        return _range(key, given, kinds)
    raise RecipeError(f"--over {key}: expected LOW:HIGH or two values or more, got {given!r}")


def _kinds(key: str, recipe: Recipe) -> set[Any]:
    section, _, name = key.partition(".")
    try:
        hint = get_type_hints(get_type_hints(Recipe)[section])[name]
    except KeyError:
        # Always an error, and one that names the nearest key.
        with_values(recipe, {key: 0})
        raise
    return set(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else {hint}


def _range(key: str, given: str, kinds: set[Any]) -> Range:
    low_text, high_text, *rest = given.split(":")
    if rest not in ([], ["log"]):
        raise RecipeError(f"--over {key}: expected LOW:HIGH or LOW:HIGH:log, got {given!r}")
    if not kinds & {int, float}:
        raise RecipeError(f"--over {key}: it is no number; expected its values as a,b,c, got {given!r}")
    fractions = float in kinds and key not in WHOLE
    kind, wanted = (float, "a finite number") if fractions else (int, "a whole number")
    ends: list[float] = []
    for text in (low_text, high_text):
        try:
            ends.append(kind(text))
        except ValueError:
            ends.append(math.nan)
        # Not isfinite, which makes a float of every whole number.
        if not -math.inf < ends[-1] < math.inf:
            raise RecipeError(f"--over {key}: expected {wanted} at either end, got {text!r}")
    low, high = ends
    if low >= high:
        raise RecipeError(f"--over {key}: expected LOW below HIGH, got {given!r}")
    if rest and low <= 0:
        raise RecipeError(f"--over {key}: a logarithmic range begins above 0, got {given!r}")
    return Range(key, low, high, bool(rest))


def _choices(key: str, given: str, kinds: set[Any]) -> Choices:
    values: list[Value] = []
    for text in given.split(","):
        value = parse_value(text.strip())
        if not isinstance(value, Value) or value == "":
            raise RecipeError(f"--over {key}: expected values as a,b,c, got {given!r}")
        # As the recipe reads it, so that 1 and 1.0 are seen to be the same.
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < LARGEST
        values.append(float(value) if whole and float in kinds else value)
    if len(set(map(as_text, values))) < len(values):
        raise RecipeError(f"--over {key}: expected every value once, got {given!r}")
    return Choices(key, tuple(values))


def _corners(axes: Sequence[Axis]) -> Iterator[dict[str, Value]]:
    # Keys may contradict each other, such as dropout and a single layer: only together they say so.
    keys = [axis.key for axis in axes]
    if math.prod(len(axis.ends) for axis in axes) <= MOST_CORNERS:
        for values in itertools.product(*(axis.ends for axis in axes)):
            yield dict(zip(keys, values, strict=True))
        return
    first = {axis.key: axis.ends[0] for axis in axes}
    for axis in axes:
        for value in axis.ends:
            yield {**first, axis.key: value}
