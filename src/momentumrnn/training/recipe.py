"""A recipe: the typed record of one training run, checked when it is built."""

import dataclasses
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import nn

from momentumrnn.errors import RecipeError
from momentumrnn.tasks import LayerChoice, Sampling, Task, build_task
from momentumrnn.tasks.drawn import EVALUATION_SIZE
from momentumrnn.tasks.initialisation import initialise_as_paper
from momentumrnn.tasks.models import (
    LAYER_OPTIONS,
    find_layer,
    layer_options,
    rule_arguments,
    takes_weight_dropout,
)
from momentumrnn.training.files import written
from momentumrnn.training.sections import (
    DataSection,
    LanguageSection,
    ModelSection,
    OptimizerSection,
    PublishedSection,
    RuleSection,
    TrainingSection,
)
from momentumrnn.training.toml_io import Sections, parse_value, write_toml
from momentumrnn.training.typed import build

# The sections that a layer was built from, without an error.
_BUILDABLE: set[Hashable] = set()
MOST = torch.finfo(torch.float32).max
Check = tuple[Callable[[Any], bool], str]


# 64 GiB in float32, to which training adds gradients and what the optimizer keeps.
MOST_WEIGHTS = 2**34
# A number per time step is drawn in float64 before it becomes a batch: 16 GiB.
MOST_DRAWN_STEPS = 2**31


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run. Building it checks it; no data is read for that.

    Attributes:
        data: What is learned from.
        model: The recurrent layer.
        rule: The coefficients of the momentum rule.
        language: What a language model is made of beside it.
        optimizer: How the weights are fitted.
        training: How long, in what order.
        published: What the paper reports.

    Raises:
        RecipeError: Values that no run can have, or that contradict each other.
    """

    data: DataSection
    model: ModelSection
    rule: RuleSection = field(default_factory=RuleSection)
    language: LanguageSection = field(default_factory=LanguageSection)
    optimizer: OptimizerSection
    training: TrainingSection
    published: PublishedSection = field(default_factory=PublishedSection)

    def __post_init__(self) -> None:
        """Reject what cannot be run before anything is read or written."""
        self._check_ranges()
        self._check_rule()
        self._check_orthogonal()
        task = self.task()
        self._check_task(task)
        built = (self.data, self.model, self.rule, self.language)
        # A plan of hundreds of runs holds every layer once for each seed.
        if built not in _BUILDABLE:
            layer = task.build_layer(self.layer_choice(), device="meta")
            self._check_weights(layer)
            self.initialise(layer)
            _BUILDABLE.add(built)

    def task(self) -> Task:
        """What the model is asked to do."""
        data = self.data
        language = {k: v for k, v in dataclasses.asdict(self.language).items() if v is not None}
        return build_task(data.name, data.validation, data.folder, data.length, data.vocabulary, language)

    def layer_choice(self) -> LayerChoice:
        """The recurrent layer."""
        model = self.model
        options = self.layer_values()
        if model.weight_dropout is not None:
            options["weight_dropout"] = model.weight_dropout
        return LayerChoice(
            model.name, model.hidden_size, model.num_layers, model.dropout, self.rule_values(), options
        )

    def sampling(self) -> Sampling:
        """How batches are made."""
        training = self.training
        return Sampling(
            training.seed,
            training.batch_size,
            training.eval_batch_size,
            training.steps_per_epoch,
            self.data.subset,
        )

    def initialise(self, layer: nn.Module) -> None:
        """Give a layer its first weights, unless it is to keep those that it came with.

        Raises:
            RecipeError: The layer has no such initialisation.
        """
        if self.model.init == "paper":
            initialise_as_paper(layer, 1.0 if self.model.forget_bias is None else self.model.forget_bias)

    def layer_values(self) -> dict[str, Any]:
        """What is given for an orthogonal matrix, by argument name."""
        given = {argument: getattr(self.model, key) for key, argument in LAYER_OPTIONS.items()}
        return {argument: value for argument, value in given.items() if value is not None}

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
        """The recipe as TOML; reading it gives an equal recipe. Keys without a value are left out."""
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

        What is published belongs to the paper's data, model, rule, optimizer and batch size: it is dropped
        where one of these changes. Seeds and the length of training do not matter for that.

        Args:
            assignments: Such as ``"model.hidden_size=128"``; the value is read as TOML, and as a plain
                string where it is no TOML; ``none`` takes the key away.

        Raises:
            RecipeError: An assignment of another form, and everything a recipe is checked for.
        """
        sections = self.sections()
        given = []
        told = False
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            section, dot, name = key.strip().partition(".")
            if not (equals and dot and section and name):
                raise RecipeError(
                    f"expected section.key=value, such as training.epochs=1, got {assignment!r}"
                )
            given.append(assignment)
            told = told or section == "published"
            value = text.strip()
            sections.setdefault(section, {})[name] = None if value == "none" else parse_value(value)
        if not given:
            return self
        changed = Recipe.from_sections(sections, f"--set {' '.join(given)}")
        return changed if told or changed.is_row_of(self) else replace(changed, published=PublishedSection())

    def is_row_of(self, other: "Recipe") -> bool:
        """Whether a published value of the other recipe is one of this.

        Args:
            other: A recipe of the paper's.
        """
        validation = other.data.validation
        data = replace(self.data, validation=validation)
        return (
            data == other.data
            and self.training.batch_size == other.training.batch_size
            and (self.model, self.language, self.rule, self.optimizer)
            == (other.model, other.language, other.rule, other.optimizer)
        )

    def _check_ranges(self) -> None:
        below_one: Check = (lambda x: 0 <= x < 1, "at least 0 and below 1")
        positive: Check = (lambda x: 0 < x < math.inf, "a finite number above 0")
        not_negative: Check = (lambda x: 0 <= x < math.inf, "a finite number, 0 or more")
        at_least_one: Check = (lambda x: x >= 1, "1 or more")
        checks: dict[str, Check] = {
            "data.folder": (
                lambda x: written(x) == x,
                "a name in UTF-8, as recipes are (rename the folder, or link to it)",
            ),
            "data.validation": (lambda x: x >= 0, "0 or more"),
            "data.length": at_least_one,
            "data.vocabulary": (lambda x: x >= 3, "3 or more"),
            "data.subset": at_least_one,
            "model.forget_bias": (math.isfinite, "a finite number"),
            "model.hidden_size": at_least_one,
            # Each is a module of its own: a thousand of them take seconds, ten million all memory there is.
            "model.num_layers": (lambda x: 1 <= x <= 1000, "1 to 1000"),
            "model.dropout": below_one,
            "model.weight_dropout": below_one,
            "rule.momentum": below_one,
            "rule.step_size": positive,
            "rule.beta": below_one,
            "rule.restart": at_least_one,
            "language.embedding_size": at_least_one,
            "language.word_dropout": below_one,
            "language.embedding_dropout": below_one,
            "language.output_dropout": below_one,
            "language.activation_penalty": not_negative,
            "language.slowness_penalty": not_negative,
            "language.sequence_length": (lambda x: x >= 5, "5 or more"),
            "optimizer.lr": positive,
            "optimizer.smoothing": below_one,
            "optimizer.momentum": below_one,
            "optimizer.clip_norm": positive,
            "optimizer.lr_orthogonal": positive,
            "optimizer.weight_decay": not_negative,
            "optimizer.average_after": at_least_one,
            "training.epochs": at_least_one,
            "training.batch_size": at_least_one,
            "training.eval_batch_size": at_least_one,
            "training.seed": (lambda x: 0 <= x < 2**32, "0 to 2³² − 1"),
            "training.checkpoint_seconds": positive,
            "training.steps_per_epoch": at_least_one,
        }
        for key, (valid, wanted) in checks.items():
            section, name = key.split(".")
            value = getattr(getattr(self, section), name)
            if value is not None and not valid(value):
                raise RecipeError(f"{key}: expected {wanted}, got {value}")
            if isinstance(value, float) and abs(value) > MOST:
                raise RecipeError(f"{key}: expected at most {MOST:.2g}, as weights are float32, got {value}")
        model, optimizer = self.model, self.optimizer
        if model.dropout and model.num_layers == 1:
            raise RecipeError(
                f"model.dropout: acts between stacked layers, got {model.dropout} with num_layers = 1"
            )
        if model.forget_bias is not None and model.init != "paper":
            raise RecipeError(f'model.forget_bias: belongs to init = "paper", got it with {model.init!r}')
        if optimizer.smoothing is not None and "rmsprop" not in (optimizer.name, optimizer.orthogonal):
            raise RecipeError(
                f"optimizer.smoothing: belongs to rmsprop, got it with {optimizer.name!r}; leave it out "
                "(--set optimizer.smoothing=none)"
            )
        if optimizer.momentum is not None and optimizer.name != "sgd":
            raise RecipeError(f"optimizer.momentum: belongs to sgd, got it with {optimizer.name!r}")
        if optimizer.average_after is not None and self.data.validation == 0:
            raise RecipeError(
                "optimizer.average_after: validation decides when averaging begins, and data.validation is 0"
            )

    def _check_weights(self, layer: nn.Module) -> None:
        weights = sum(parameter.numel() for parameter in layer.parameters())
        if weights > MOST_WEIGHTS:
            raise RecipeError(
                f"model.hidden_size, model.num_layers: expected at most {MOST_WEIGHTS:,} weights of the "
                f"recurrent layers together, got {weights:,}; choose smaller ones"
            )

    def _check_drawn_steps(self, length: int) -> None:
        for key, sequences in (
            ("data.length", EVALUATION_SIZE),
            ("training.batch_size", self.training.batch_size),
        ):
            if (steps := length * sequences) > MOST_DRAWN_STEPS:
                raise RecipeError(
                    f"{key}: {sequences:,} sequences of data.length = {length:,} are drawn at once, expected "
                    f"at most {MOST_DRAWN_STEPS:,} time steps, got {steps:,}; choose a smaller one"
                )

    def _check_rule(self) -> None:
        name = self.model.name
        find_layer(name)
        takes, given = rule_arguments(name), self.rule_values()
        for key in given:
            if key not in takes:
                wanted = f"it takes {', '.join(takes)}" if takes else "it has no rule"
                raise RecipeError(
                    f"rule.{key}: {name} does not take it; {wanted}; leave it out (--set rule.{key}=none)"
                )
        for key, required in takes.items():
            if required and key not in given:
                raise RecipeError(f"rule.{key}: {name} needs it; add it to the section [rule]")

        if self.model.weight_dropout is not None and not takes_weight_dropout(name):
            raise RecipeError(f"model.weight_dropout: {name} does not take it; layers of LSTM do")

    def _check_orthogonal(self) -> None:
        name, optimizer = self.model.name, self.optimizer
        takes = layer_options(name)
        if optimizer.average_after is not None and takes:
            raise RecipeError(
                f"optimizer.average_after: the mean of orthogonal matrices is none, and {name} has one; "
                "leave it out"
            )
        for key, argument in LAYER_OPTIONS.items():
            if getattr(self.model, key) is not None and argument not in takes:
                raise RecipeError(f"model.{key}: {name} does not take it")
        for key in ("lr_orthogonal", "orthogonal"):
            if getattr(optimizer, key) is not None and not takes:
                raise RecipeError(f"optimizer.{key}: {name} has no orthogonal matrix")

    def _check_task(self, task: Task) -> None:
        drawn, steps = self.data.length is not None, self.training.steps_per_epoch
        if self.data.length is not None:
            self._check_drawn_steps(self.data.length)
        if drawn and steps is None:
            raise RecipeError(
                f"training.steps_per_epoch: {self.data.name!r} is drawn without end; say how many steps an "
                "epoch is"
            )
        if steps is not None and not drawn:
            raise RecipeError(
                f"training.steps_per_epoch: an epoch of {self.data.name!r} is once through its training "
                f"data; leave it out, got {steps}"
            )
        if drawn and self.data.subset is not None:
            raise RecipeError(
                f"data.subset: {self.data.name!r} is drawn as it is needed; leave it out, got "
                f"{self.data.subset}, and choose training.steps_per_epoch instead"
            )
        wanted = (f"test_{task.metric.name}", f"validation_{task.metric.name}", "train_loss")
        for key in self.published.values():
            if key not in wanted:
                raise RecipeError(
                    f"published.{key}: {self.data.name!r} is judged by its {task.metric.name}, expected "
                    f"{', '.join(wanted[:2])} or train_loss"
                )
