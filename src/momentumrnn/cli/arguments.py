"""Options that several commands take."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import tyro

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


def joined(groups: Iterable[Iterable[str]]) -> list[str]:
    """All words of an option that can be given several times.

    Args:
        groups: Those of each time.

    >>> joined([["a=1", "b=2"], ["c=3"]])
    ['a=1', 'b=2', 'c=3']
    """
    return [word for group in groups for word in group]
