"""What is done in a process of its own: a run, a row of Fig. 2, a measurement of some steps."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from momentumrnn.training.recipe import Recipe
from momentumrnn.training.toml_io import parse_toml

Kind = Literal["train", "gradients", "measure"]
State = Literal["done", "failed", "missing", "stopped"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Something to be done, as it travels to another process or machine.

    Attributes:
        kind: What.
        name: How it is called; of all jobs at once only this one.
        recipe: Of what.
        place: The run folder, or the file that is written.
        data: The data folder; where absent, the one that is found there.
        device: ``cpu``, ``cuda`` or ``auto``.
        threads: How many CPU threads.
        smoke: Whether it is a look, not a result.
    """

    kind: Kind
    name: str
    recipe: Recipe
    place: Path
    data: Path | None
    device: str
    threads: int
    smoke: bool = False

    def to_message(self) -> dict[str, Any]:
        """The job as what JSON can hold."""
        return {
            "kind": self.kind,
            "name": self.name,
            "recipe": self.recipe.to_toml(),
            "place": str(self.place.absolute()),
            "data": None if self.data is None else str(self.data),
            "device": self.device,
            "threads": self.threads,
            "smoke": self.smoke,
            # The run folder notes how it was made.
            "command": sys.argv,
        }

    @staticmethod
    def from_message(message: dict[str, Any]) -> "Job":
        """The inverse of ``to_message``.

        Args:
            message: What it returned.
        """
        return Job(
            kind=message["kind"],
            name=message["name"],
            recipe=Recipe.from_sections(parse_toml(message["recipe"], message["name"]), message["name"]),
            place=Path(message["place"]),
            data=None if message["data"] is None else Path(message["data"]),
            device=message["device"],
            threads=message["threads"],
            smoke=message["smoke"],
        )


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        state: ``missing`` are its data; ``stopped`` was asked for, and it can be gone on with.
        told: In words.
        values: What was measured, where that was the job.
    """

    state: State
    told: str = ""
    values: dict[str, float] = field(default_factory=dict)


class Listener(Protocol):
    """Who is told how jobs go."""

    def tell(self, name: str, event: str, values: dict[str, Any]) -> None:
        """Something happened.

        Args:
            name: The job.
            event: ``begin``, ``step`` or ``epoch`` as in ``training.progress``, or ``warning``.
            values: The event's own.
        """

    def say(self, text: str) -> None:
        """Something worth a line.

        Args:
            text: The line.
        """

    def ended(self, name: str, outcome: Outcome) -> None:
        """A job ended.

        Args:
            name: The job.
            outcome: What came of it.
        """


class Stop(Protocol):
    """Whether everything shall stop."""

    def wanted(self) -> bool:
        """Whether it shall."""
