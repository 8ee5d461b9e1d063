"""From a dataset's name and its options to a task."""

from collections.abc import Mapping
from typing import Any

from momentumrnn.data import find_dataset
from momentumrnn.data.registry import ClassifiedDataset, DrawnDataset, SpeechDataset, TextDataset
from momentumrnn.errors import DataError, RecipeError
from momentumrnn.tasks.adding import Adding
from momentumrnn.tasks.classification import Classification
from momentumrnn.tasks.contract import Task
from momentumrnn.tasks.copying import Copying
from momentumrnn.tasks.language import LanguageModelling, LanguageOptions
from momentumrnn.tasks.speech import SpeechPrediction

DRAWN: dict[str, type[Copying] | type[Adding]] = {"copying": Copying, "adding": Adding}


def build_task(
    name: str,
    validation: int | None = None,
    folder: str | None = None,
    length: int | None = None,
    vocabulary: int | None = None,
    language: Mapping[str, Any] | None = None,
) -> Task:
    """The task that belongs to a dataset. No data are read for that.

    Args:
        name: The dataset.
        validation: Training examples held out, where the dataset lets that be chosen.
        folder: The folder of recordings, for ``speech``, or of text files, for ``text``.
        length: T, for ``copying`` and ``adding``.
        vocabulary: How many words to know, for ``text``.
        language: What is given of ``LanguageOptions``, for text.

    Raises:
        RecipeError: There is no such dataset, or it does not take, or needs, one of these.
    """
    try:
        dataset = find_dataset(name)
    except DataError as error:
        raise RecipeError(f"data.name: {error}") from error
    options = {"validation": validation, "folder": folder, "length": length, "vocabulary": vocabulary}
    for key, value in options.items():
        if value is not None and key not in dataset.options:
            takes = ", ".join(f"data.{option}" for option in dataset.options) or "none"
            raise RecipeError(
                f"data.{key}: {name!r} does not take it, got {value!r}; beside its name it takes {takes}"
            )
        if value is None and dataset.options.get(key):
            raise RecipeError(f"data.{key}: {name!r} needs it; add it to the section [data]")
    if isinstance(dataset, TextDataset):
        return LanguageModelling(dataset, LanguageOptions.of(language or {}), folder, vocabulary)
    for key in language or {}:
        raise RecipeError(f"language.{key}: {name!r} is no text; leave it out")
    if isinstance(dataset, ClassifiedDataset):
        if validation is not None and not dataset.takes_validation:
            raise RecipeError(
                f"data.validation: the split of {name!r} is fixed; leave it out, got {validation}"
            )
        return Classification(dataset, validation)
    if isinstance(dataset, SpeechDataset):
        return SpeechPrediction(dataset, folder)
    assert isinstance(dataset, DrawnDataset)
    assert length is not None
    if length < dataset.shortest:
        raise RecipeError(f"data.length: {name!r} needs {dataset.shortest} or more, got {length}")
    return DRAWN[name](length)
