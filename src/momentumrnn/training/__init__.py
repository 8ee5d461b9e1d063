"""A recipe in, a trained model out: the loop, its checkpoints, its folder."""

from momentumrnn.training.history import Epoch, RunResult
from momentumrnn.training.library import load_recipe, recipe_names
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.run import train

__all__ = ["Epoch", "Recipe", "RunResult", "load_recipe", "recipe_names", "train"]
