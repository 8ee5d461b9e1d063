"""``momentumrnn recipes``: what there is to train, without importing what trains it."""

import tomllib
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from momentumrnn.errors import RecipeError

SUFFIX = ".toml"


def list_recipes(word: str) -> None:
    """Print one line for each recipe.

    Args:
        word: text that the line contains, in either case; all lines where it is empty.

    Raises:
        RecipeError: No line contains it.
    """
    lines = [line for line in _lines() if word.casefold() in line.casefold()]
    if not lines:
        raise RecipeError(f"no recipe matches {word!r}; `momentumrnn recipes` lists all of them")
    for line in lines:
        print(line)


def _lines() -> list[str]:
    folder = resources.files("momentumrnn.recipes")
    recipes = _documents(folder)
    shown: dict[str, list[str]] = {name: [] for name in recipes}
    for experiment, sections in _documents(folder / "experiments").items():
        # A row is a recipe, perhaps with changes behind it; a grid has one recipe for all its cells.
        rows = [row.split()[0] for panel in sections["panels"] for row in panel.get("rows", ())]
        rows += [panel["base"] for panel in sections["panels"] if "base" in panel]
        for name in dict.fromkeys(rows):
            shown[name].append(experiment)
    width = max(map(len, recipes))
    return [f"{name:{width}}  {_describe(recipes[name], shown[name])}" for name in recipes]


def _documents(folder: Traversable) -> dict[str, dict[str, Any]]:
    files = {file.name.removesuffix(SUFFIX): file for file in folder.iterdir() if file.name.endswith(SUFFIX)}
    return {name: tomllib.loads(files[name].read_text(encoding="utf-8")) for name in sorted(files)}


def _describe(recipe: dict[str, Any], experiments: list[str]) -> str:
    data, model = recipe["data"], recipe["model"]
    layers = model.get("num_layers", 1)
    stacked = f"{layers} layers of {model['hidden_size']}" if layers > 1 else f"{model['hidden_size']}"
    length = f", T = {data['length']}" if "length" in data else ""
    told = f"{model['name']} with {stacked} hidden units on {data['name']}{length}"
    return f"{told} ({', '.join(experiments)})" if experiments else told
