"""The recipes that are installed with the package, and recipes in files."""

import difflib
from importlib import resources
from pathlib import Path

from momentumrnn.errors import RecipeError
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.toml_io import parse_toml, read_text

SUFFIX = ".toml"
MOST_NAMED = 4


def recipe_names() -> list[str]:
    """The names of the installed recipes."""
    files = resources.files("momentumrnn.recipes").iterdir()
    return sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """An installed recipe by its name, or a recipe in a file.

    Args:
        name_or_path: Such as ``digits-momentum-lstm``; whatever ends in ``.toml`` or holds a path
            separator is a file.

    Raises:
        RecipeError: There is none; the message names the nearest. Or it cannot be read.
    """
    text = str(name_or_path)
    if text.endswith(SUFFIX) or "/" in text or "\\" in text:
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise RecipeError(f"{path}: there is no such recipe file")
        return Recipe.from_sections(parse_toml(read_text(path), str(path)), str(path))
    names = recipe_names()
    if text not in names:
        near = difflib.get_close_matches(text, names, n=MOST_NAMED)
        hint = f": did you mean {near[0]!r}?" if near else ";"
        also = f" Other names like it are {', '.join(near[1:])};" if near[1:] else ""
        raise RecipeError(f"there is no recipe {text!r}{hint}{also} `momentumrnn recipes` lists all of them")
    content = (resources.files("momentumrnn.recipes") / f"{text}{SUFFIX}").read_text(encoding="utf-8")
    source = f"recipe {text}"
    return Recipe.from_sections(parse_toml(content, source), source)
