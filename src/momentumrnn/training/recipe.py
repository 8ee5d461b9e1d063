"""A recipe: the typed record of one training run, checked when it is built."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from momentumrnn.data import find_dataset
from momentumrnn.errors import DataError, RecipeError
from momentumrnn.tasks.models import build_layer, find_layer, rule_arguments
from momentumrnn.training.toml_io import Sections, parse_value, write_toml
from momentumrnn.training.typed import build

Check = tuple[Callable[[Any], bool], str]


@dataclass(frozen=True)
class DataSection:
    """What is learned from.

    Attributes:
        name: A dataset of ``momentumrnn data list``.
        validation: Training examples held out to choose the epoch by; the dataset's default where absent,
            0 for none.
    """

    name: str
    validation: int | None = None


@dataclass(frozen=True)
class ModelSection:
    """The recurrent layer.

    Attributes:
        name: A recurrent layer of ``momentumrnn``.
        hidden_size: h.
        num_layers: How many are stacked.
        dropout: Between stacked layers.
        init: ``default`` is that of ``torch.nn``, ``paper`` that of the paper's MNIST experiments.
    """

    name: str
    hidden_size: int
    num_layers: int = 1
    dropout: float = 0.0
    init: Literal["default", "paper"] = "default"


@dataclass(frozen=True)
class RuleSection:
    """The coefficients of the momentum rule; each only where the model takes it.

    Attributes:
        momentum: μ.
        step_size: s.
        beta: β of Adam and RMSProp.
        restart: F, the period of scheduled restart.
        velocity: Whether the rule acts in ``gate`` or in ``hidden`` space.
        learnable: Fixed coefficients, one of each per layer (true), or one per ``channel``.
    """

    momentum: float | None = None
    step_size: float | None = None
    beta: float | None = None
    restart: int | None = None
    velocity: Literal["gate", "hidden"] | None = None
    learnable: bool | Literal["channel"] | None = None


@dataclass(frozen=True)
class OptimizerSection:
    """How the weights are fitted.

    Attributes:
        name: The optimizer.
        lr: Its learning rate.
        smoothing: RMSprop's α, 0.99 where absent.
        momentum: SGD's momentum, 0 where absent.
        clip_norm: The gradient norm is clipped at this; no clipping where absent.
    """

    name: Literal["rmsprop", "adam", "sgd"]
    lr: float
    smoothing: float | None = None
    momentum: float | None = None
    clip_norm: float | None = None


@dataclass(frozen=True)
class TrainingSection:
    """How long, in what order.

    Attributes:
        epochs: Passes over the training data.
        batch_size: Sequences a step; the last batch of an epoch may be smaller.
        seed: Of weights, batches, dropout and, for PMNIST, of the order of the pixels.
        eval_batch_size: Sequences a step where nothing is learned.
        checkpoint_seconds: How often a checkpoint is written within an epoch.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    eval_batch_size: int = 512
    checkpoint_seconds: float = 60.0


@dataclass(frozen=True)
class PublishedSection:
    """What the paper reports for this row.

    Attributes:
        test_accuracy: In percent, one value per source that the paper quotes.
        std: Over seeds, in percent.
        source: Where in the paper.
    """

    test_accuracy: tuple[float, ...] = ()
    std: float | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run. Building it checks it; no data is read for that.

    Attributes:
        data: What is learned from.
        model: The recurrent layer.
        rule: The coefficients of the momentum rule.
        optimizer: How the weights are fitted.
        training: How long, in what order.
        published: What the paper reports.

    Raises:
        RecipeError: Values that no run can have, or that contradict each other.
    """

    data: DataSection
    model: ModelSection
    rule: RuleSection = field(default_factory=RuleSection)
    optimizer: OptimizerSection
    training: TrainingSection
    published: PublishedSection = field(default_factory=PublishedSection)

    def __post_init__(self) -> None:
        """Reject what cannot be run before anything is read or written."""
        self._check_ranges()
        self._check_rule()
        try:
            dataset = find_dataset(self.data.name)
        except DataError as error:
            raise RecipeError(f"data.name: {error}") from error
        if self.data.validation is not None and not dataset.takes_validation:
            raise RecipeError(
                f"data.validation: the split of {dataset.name!r} is fixed; leave it out, got "
                f"{self.data.validation}"
            )
        model = self.model
        build_layer(
            model.name,
            dataset.features,
            model.hidden_size,
            model.num_layers,
            model.dropout,
            self.rule_values(),
            device="meta",
        )

    def rule_values(self) -> dict[str, Any]:
        """The rule's coefficients that are given, by argument name."""
        return {key: value for key, value in dataclasses.asdict(self.rule).items() if value is not None}

    def sections(self) -> Sections:
        """The recipe as section → key → value, without what is absent."""
        return {
            section: {key: value for key, value in values.items() if value is not None and value != ()}
            for section, values in dataclasses.asdict(self).items()
        }

    def to_toml(self) -> str:
        """The recipe as TOML, every default written out; reading it gives an equal recipe."""
        return write_toml(self.sections())

    @staticmethod
    def from_sections(sections: Mapping[str, Any], source: str = "recipe") -> "Recipe":
        """Build a recipe from parsed TOML.

        Args:
            sections: Section → key → value.
            source: The file, for error messages.

        Raises:
            RecipeError: An unknown or missing key, a wrong type, a contradiction.
        """
        try:
            return cast(Recipe, build(Recipe, sections))
        except RecipeError as error:
            raise RecipeError(f"{source}: {error}") from error

    def override(self, assignments: Iterable[str]) -> "Recipe":
        """A copy with some values replaced.

        Args:
            assignments: Such as ``"model.hidden_size=128"``; the value is read as TOML, and as a plain
                string where it is no TOML.

        Raises:
            RecipeError: An assignment of another form, and everything a recipe is checked for.
        """
        sections = self.sections()
        given = []
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            section, dot, name = key.strip().partition(".")
            if not (equals and dot and section and name):
                raise RecipeError(
                    f"expected section.key=value, such as training.epochs=1, got {assignment!r}"
                )
            given.append(assignment)
            sections.setdefault(section, {})[name] = parse_value(text.strip())
        return Recipe.from_sections(sections, f"--set {' '.join(given)}") if given else self

    def _check_ranges(self) -> None:
        below_one: Check = (lambda x: 0 <= x < 1, "at least 0 and below 1")
        positive: Check = (lambda x: 0 < x < math.inf, "a finite number above 0")
        at_least_one: Check = (lambda x: x >= 1, "1 or more")
        checks: dict[str, Check] = {
            "data.validation": (lambda x: x >= 0, "0 or more"),
            "model.hidden_size": at_least_one,
            "model.num_layers": at_least_one,
            "model.dropout": below_one,
            "rule.momentum": below_one,
            "rule.step_size": positive,
            "rule.beta": below_one,
            "rule.restart": at_least_one,
            "optimizer.lr": positive,
            "optimizer.smoothing": below_one,
            "optimizer.momentum": below_one,
            "optimizer.clip_norm": positive,
            "training.epochs": at_least_one,
            "training.batch_size": at_least_one,
            "training.eval_batch_size": at_least_one,
            "training.seed": (lambda x: 0 <= x < 2**32, "0 to 2³² − 1"),
            "training.checkpoint_seconds": positive,
        }
        for key, (valid, wanted) in checks.items():
            section, name = key.split(".")
            value = getattr(getattr(self, section), name)
            if value is not None and not valid(value):
                raise RecipeError(f"{key}: expected {wanted}, got {value}")
        model, optimizer = self.model, self.optimizer
        if model.dropout and model.num_layers == 1:
            raise RecipeError(
                f"model.dropout: acts between stacked layers, got {model.dropout} with num_layers = 1"
            )
        if optimizer.smoothing is not None and optimizer.name != "rmsprop":
            raise RecipeError(f"optimizer.smoothing: belongs to rmsprop, got it with {optimizer.name!r}")
        if optimizer.momentum is not None and optimizer.name != "sgd":
            raise RecipeError(f"optimizer.momentum: belongs to sgd, got it with {optimizer.name!r}")

    def _check_rule(self) -> None:
        name = self.model.name
        find_layer(name)
        takes, given = rule_arguments(name), self.rule_values()
        for key in given:
            if key not in takes:
                wanted = f"it takes {', '.join(takes)}" if takes else "it has no rule"
                raise RecipeError(f"rule.{key}: {name} does not take it; {wanted}")
        for key, required in takes.items():
            if required and key not in given:
                raise RecipeError(f"rule.{key}: {name} needs it; add it to the section [rule]")
