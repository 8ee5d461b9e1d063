"""A recipe in, a trained model out: the loop, its checkpoints, its folder."""

from momentumrnn.training.history import Epoch, RunResult
from momentumrnn.training.library import load_recipe, recipe_names
from momentumrnn.training.loop import train
from momentumrnn.training.recipe import Recipe

__all__ = ["Epoch", "Recipe", "RunResult", "load_recipe", "recipe_names", "train"]
