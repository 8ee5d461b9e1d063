"""``momentumrnn generate``: text drawn from a run's best weights."""

import math
from pathlib import Path

import safetensors
import safetensors.torch

from momentumrnn.data.text import END, Vocabulary
from momentumrnn.errors import CheckpointError, RecipeError
from momentumrnn.tasks.generation import draw_words
from momentumrnn.tasks.language import VOCABULARY_FILE, LanguageModelling
from momentumrnn.tasks.language_model import LanguageModel
from momentumrnn.training.model import build_model
from momentumrnn.training.run_folder import RunFolder


def generate(folder: Path, *, words: int, prompt: str, temperature: float, seed: int) -> None:
    """Print text drawn from a run's best weights.

    Args:
        folder: The run folder.
        words: How many words to draw.
        prompt: The words that the text begins with.
        temperature: Below 1 the likely words become likelier.
        seed: Which text.

    Raises:
        RecipeError: A value out of its range, or a run that learned no text.
        CheckpointError: No run folder, or one without weights, or a damaged one.
        DataError: A word of the prompt is unknown.
    """
    if words < 1:
        raise RecipeError(f"--words: expected 1 or more, got {words}")
    if not 0 < temperature < math.inf:
        raise RecipeError(f"--temperature: expected a finite number above 0, got {temperature}")
    if not 0 <= seed < 2**63:
        raise RecipeError(f"--seed: expected 0 to 2⁶³ − 1, got {seed}")
    model, vocabulary = load_language_model(folder)
    first = [vocabulary.number(word) for word in prompt.split()]
    # What it reads before the first word of a text is the end of a line.
    drawn = draw_words(model, [vocabulary.number(END), *first], words, temperature, seed)
    at_start = True
    for number in (*first, *drawn):
        word = vocabulary.words[number]
        print("\n" if word == END else word if at_start else f" {word}", end="", flush=True)
        at_start = word == END
    if not at_start:
        print()


def load_language_model(folder: Path) -> tuple[LanguageModel, Vocabulary]:
    """The model of a run with its best weights, the averaged ones where those are best.

    Args:
        folder: The run folder.

    Raises:
        RecipeError: The run learned no text.
        CheckpointError: No run folder, or one without weights, or a damaged one.
    """
    run = RunFolder(folder)
    recipe = run.recipe()
    if recipe is None:
        raise CheckpointError(f"{folder} is no run folder: it holds no recipe.toml")
    task = recipe.task()
    if not isinstance(task, LanguageModelling):
        raise RecipeError(f"{folder} is a run on {recipe.data.name!r}, which is no text (ptb, text)")
    if not run.best.exists():
        raise CheckpointError(
            f"{folder} holds no weights yet: they are kept after the first epoch; go on with the run"
        )
    model = build_model(recipe)
    assert isinstance(model, LanguageModel)
    try:
        words = (folder / VOCABULARY_FILE).read_text(encoding="utf-8").removesuffix("\n").split("\n")
        model.load_state_dict(safetensors.torch.load_file(run.best))
    except (OSError, UnicodeDecodeError, RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged: {error}") from error
    if len(words) != task.words:
        raise CheckpointError(
            f"{folder / VOCABULARY_FILE} is damaged: expected {task.words} words, got {len(words)}"
        )
    return model, Vocabulary(tuple(words))
