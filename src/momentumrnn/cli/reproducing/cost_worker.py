"""A process of its own, ``python -m`` this module with a job, that prints the growth of its peak memory."""

import json
import sys
from typing import Any

import torch

from momentumrnn.cli.benchmarking.memory import STEPS
from momentumrnn.cli.benchmarking.memory_worker import growth_of_peak
from momentumrnn.cli.reproducing.steps import Steps
from momentumrnn.cli.reproducing.synthetic import synthetic_batch
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.smoke import shrink
from momentumrnn.training.toml_io import parse_toml


def measure(job: dict[str, Any]) -> int | None:
    """The growth of the peak that some steps cause; the model and its optimizers count.

    Args:
        job: ``recipe``, ``device``, ``threads``, and whether it is ``training``.
    """
    torch.set_num_threads(job["threads"])
    recipe, device = Recipe.from_sections(parse_toml(job["recipe"], "job"), "job"), job["device"]
    # What the first step of any size allocates for good is no property of the model.
    small = shrink(recipe)
    _take(Steps(small, device), small, device, job["training"])

    def work() -> None:
        steps = Steps(recipe, device)
        for _ in range(STEPS):
            _take(steps, recipe, device, job["training"])

    return growth_of_peak(work, device)


def _take(steps: Steps, recipe: Recipe, device: str, training: bool) -> None:
    batch = synthetic_batch(recipe, device)
    if training:
        steps.train(batch)
    else:
        steps.evaluate(batch)


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
