"""Recipes shrunk to seconds: to see that a path works, not what a model can do."""

from dataclasses import replace

from momentumrnn.training.recipe import Recipe
from momentumrnn.training.sections import PublishedSection

HIDDEN_SIZE, LENGTH, BATCH, STEPS = 8, 20, 8, 2
# Of texts, as many words for each sequence of a batch and step.
WORDS = 10


def shrink(recipe: Recipe) -> Recipe:
    """A recipe of the same kind that is done in seconds. What is published does not belong to it.

    Args:
        recipe: Any.
    """
    drawn, text = recipe.data.length is not None, recipe.language.embedding_size is not None
    return replace(
        recipe,
        data=replace(
            recipe.data,
            length=LENGTH if drawn else None,
            subset=None if drawn else BATCH * STEPS * (WORDS if text else 1),
        ),
        model=replace(recipe.model, hidden_size=HIDDEN_SIZE),
        language=(
            replace(recipe.language, embedding_size=HIDDEN_SIZE, sequence_length=WORDS)
            if text
            else recipe.language
        ),
        training=replace(
            recipe.training,
            epochs=2,
            batch_size=BATCH,
            steps_per_epoch=STEPS if drawn else None,
        ),
        published=PublishedSection(),
    )
