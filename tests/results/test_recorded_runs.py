"""The runs whose numbers the documentation tells: what is kept of them is what it says."""

from pathlib import Path

import pytest

from momentumrnn.results.runs import read_run, setting_of
from momentumrnn.training import load_recipe

RUNS = Path(__file__).parents[2] / "docs" / "runs"
FOLDERS = sorted(path.parent for path in RUNS.rglob("recipe.toml"))


def test_there_are_some():
    assert FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_recorded_run_is_that_of_the_recipe_it_is_named_for(folder):
    """A change of a recipe would leave numbers behind that it does not give."""
    name, _, seed = folder.name.rpartition("-seed-")
    run = read_run(folder)
    assert setting_of(run.recipe) == setting_of(load_recipe(name))
    assert run.seed == int(seed)
    assert run.finished
    assert run.diverged is None
    assert all(start["torch"] and start["device"] for start in run.starts)
