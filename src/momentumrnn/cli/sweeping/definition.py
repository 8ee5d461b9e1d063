"""What a sweep is: the same in every call that goes on with it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from momentumrnn.cli.sweeping.axes import Axis, Value, parse_axes, with_values
from momentumrnn.errors import CheckpointError, RecipeError
from momentumrnn.tasks import Metric
from momentumrnn.training import Recipe
from momentumrnn.training.toml_io import parse_toml

Sampler = Literal["tpe", "random", "grid"]


@dataclass(frozen=True)
class Definition:
    """What decides which trials there are and what comes of them, but for how many.

    Attributes:
        recipe: What every trial begins with.
        axes: What is varied.
        sampler: Who says which values are tried.
        seeds: How many runs a trial has.
        prune: Whether trials that fall behind are stopped.

    Raises:
        RecipeError: Values that no sweep can have.
    """

    recipe: Recipe
    axes: tuple[Axis, ...]
    sampler: Sampler = "tpe"
    seeds: int = 1
    prune: bool = False

    def __post_init__(self) -> None:
        """Reject what cannot be swept before anything runs."""
        if self.seeds < 1:
            raise RecipeError(f"--seeds: expected 1 or more, got {self.seeds}")
        if self.recipe.data.validation == 0:
            raise RecipeError(
                "data.validation: a sweep is judged by held-out examples and never by the test, and the "
                "recipe holds out none; say how many, as in --set data.validation=5000"
            )
        if self.sampler == "grid":
            for axis in self.axes:
                if axis.grid is None:
                    raise RecipeError(
                        f"--over {axis.key}: a grid needs its values one by one, as {axis.key}=a,b,c, "
                        f"got {axis}"
                    )

    @property
    def metric(self) -> Metric:
        """What trials are judged by."""
        return self.recipe.task().metric

    def runs(self, values: Mapping[str, Value]) -> list[Recipe]:
        """A trial, seed by seed.

        Args:
            values: ``section.key`` → value.
        """
        return [with_values(self.recipe, {**values, "training.seed": seed}) for seed in range(self.seeds)]

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            "recipe": self.recipe.to_toml(),
            "over": [f"{axis.key}={axis}" for axis in self.axes],
            "sampler": self.sampler,
            "seeds": self.seeds,
            "prune": self.prune,
        }

    @staticmethod
    def from_json(stored: Any, source: str) -> "Definition":
        """A definition as it was written down.

        Args:
            stored: From ``to_json``.
            source: The file, for the error message.

        Raises:
            CheckpointError: It is no definition.
        """
        try:
            recipe = Recipe.from_sections(parse_toml(stored["recipe"], source), source)
            axes = parse_axes(stored["over"], recipe)
            return Definition(recipe, axes, stored["sampler"], stored["seeds"], stored["prune"])
        except (RecipeError, LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{source} is damaged: it holds no sweep ({error})") from error

    def differences(self, other: "Definition") -> Iterator[str]:
        """In what another definition is another one, in words.

        Args:
            other: What was found in the place of this one.
        """
        here, there = _flat(self), _flat(other)
        for key in sorted({*here, *there}):
            if here.get(key) != there.get(key):
                yield f"{key} is {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"


def _flat(definition: Definition) -> dict[str, str]:
    flat = {
        f"{section}.{key}": json.dumps(value)
        for section, values in definition.recipe.sections().items()
        for key, value in values.items()
    }
    flat |= {f"--over {axis.key}": str(axis) for axis in definition.axes}
    return flat | {
        "--sampler": definition.sampler,
        "--seeds": str(definition.seeds),
        "--prune": str(definition.prune),
    }
