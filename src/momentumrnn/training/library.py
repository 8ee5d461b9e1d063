"""The recipes that are installed with the package, and recipes in files."""

from importlib import resources
from pathlib import Path

from momentumrnn.errors import RecipeError
from momentumrnn.nearest import did_you_mean
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.toml_io import parse_toml, read_text

SUFFIX = ".toml"


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
        hint = did_you_mean(text, names, f"installed are {', '.join(names)}")
        raise RecipeError(f"there is no recipe {text!r}{hint}")
    content = (resources.files("momentumrnn.recipes") / f"{text}{SUFFIX}").read_text(encoding="utf-8")
    source = f"recipe {text}"
    return Recipe.from_sections(parse_toml(content, source), source)
