"""Options that several commands take."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from momentumrnn.errors import CheckpointError

Overrides = Annotated[
    tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]],
    tyro.conf.arg(
        name="set",
        metavar="KEY=VALUE",
        help="Change values of the recipe, such as model.hidden_size=128 training.epochs=1.",
    ),
]
Out = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")]
DataFolder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")]
Threads = Annotated[int | None, tyro.conf.arg(metavar="N")]
Device = Literal["auto", "cpu", "cuda"]
Count = Annotated[int, tyro.conf.arg(metavar="N")]


PATHS = tyro.constructors.ConstructorRegistry()


@PATHS.primitive_rule
def _path(
    kind: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
    """How a word becomes the name of a file or folder: an empty one would silently be the current folder."""
    if kind.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: _named(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def _named(word: str) -> Path:
    if not word or "\0" in word:
        raise CheckpointError(
            f"expected the name of a file or folder, got {word!r}; leave the option out for its default, or "
            "name the current folder by a dot"
        )
    return Path(word)


def joined(groups: Iterable[Iterable[str]]) -> list[str]:
    """All words of an option that can be given several times.

    Args:
        groups: Those of each time.

    >>> joined([["a=1", "b=2"], ["c=3"]])
    ['a=1', 'b=2', 'c=3']
    """
    return [word for group in groups for word in group]
