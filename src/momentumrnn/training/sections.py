"""The sections of a recipe."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class DataSection:
    """What is learned from.

    Attributes:
        name: A dataset of ``momentumrnn data list``.
        validation: Training examples held out to choose the epoch by; the dataset's default where absent,
            0 for none.
        folder: The folder of recordings, for ``speech``, or of text files, for ``text``; relative to the data
            folder, or absolute.
        length: T, for ``copying`` and ``adding``.
        vocabulary: How many words are known, ``<unk>`` and ``<eos>`` included, for ``text``.
        subset: Only the first so many sequences of each part, or words of a text, where they are not
            drawn: for a look, not a result.
    """

    name: str
    validation: int | None = None
    folder: str | None = None
    length: int | None = None
    vocabulary: int | None = None
    subset: int | None = None


@dataclass(frozen=True)
class ModelSection:
    """The recurrent layer.

    Attributes:
        name: A recurrent layer of ``momentumrnn``.
        hidden_size: h.
        num_layers: How many are stacked.
        dropout: Between stacked layers; of text the same at all time steps.
        weight_dropout: DropConnect: of entries of U, for layers that take it.
        init: ``default`` is that of the layer itself; ``paper`` that of the paper's LSTMs.
        forget_bias: With ``paper``, what both biases of the forget gate begin with; 1 where absent.
        map: From skew-symmetric to orthogonal matrices; this and the next two for layers that take them.
        rebase_every: Optimizer steps between two changes of base, or ``inf``.
        orthogonal_init: How the orthogonal matrix begins; the layer's argument ``init``.
    """

    name: str
    hidden_size: int
    num_layers: int = 1
    dropout: float = 0.0
    weight_dropout: float | None = None
    init: Literal["default", "paper"] = "default"
    forget_bias: float | None = None
    map: Literal["exp", "cayley"] | None = None
    rebase_every: float | None = None
    orthogonal_init: Literal["cayley", "henaff", "haar", "identity"] | None = None


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
class LanguageSection:
    """What a language model is made of beside its recurrent layers; for text alone.

    Attributes:
        embedding_size: Features of an embedded word; text needs it.
        tied: Whether the decoder has the embedding's weight, as where absent; then the last layer has
            ``embedding_size`` units.
        word_dropout: Of whole words, each at all its places in a batch; this and the next four are 0 where
            absent.
        embedding_dropout: Of features of embedded words, the same at all time steps.
        output_dropout: Of features of what the last layer says, likewise.
        activation_penalty: α, times the mean square of what the last layer says, behind its dropout.
        slowness_penalty: β, times the mean square of its change from one step to the next.
        sequence_length: How many words of each column a step reads, about; 70 where absent.
        variable_lengths: Whether that number is drawn for each step of training, as where absent.
    """

    embedding_size: int | None = None
    tied: bool | None = None
    word_dropout: float | None = None
    embedding_dropout: float | None = None
    output_dropout: float | None = None
    activation_penalty: float | None = None
    slowness_penalty: float | None = None
    sequence_length: int | None = None
    variable_lengths: bool | None = None


@dataclass(frozen=True)
class OptimizerSection:
    """How the weights are fitted.

    Attributes:
        name: The optimizer.
        lr: Its learning rate.
        smoothing: RMSprop's α, 0.99 where absent.
        momentum: SGD's momentum, 0 where absent.
        clip_norm: The gradient norm is clipped at this; no clipping where absent.
        lr_orthogonal: A learning rate for the matrices behind orthogonal ones; ``lr`` where absent.
        orthogonal: An optimizer of their own; the same one where absent.
        weight_decay: Times a weight, added to its gradient; 0 where absent.
        average_after: Once an epoch is worse, on the validation data, than the best of those more than this
            many epochs before it, the mean of all later weights is what is evaluated and kept; where absent,
            never.
    """

    name: Literal["rmsprop", "adam", "sgd"]
    lr: float
    smoothing: float | None = None
    momentum: float | None = None
    clip_norm: float | None = None
    lr_orthogonal: float | None = None
    orthogonal: Literal["rmsprop", "adam"] | None = None
    weight_decay: float | None = None
    average_after: int | None = None


@dataclass(frozen=True)
class TrainingSection:
    """How long, in what order.

    Attributes:
        epochs: Passes over the training data, or ``steps_per_epoch`` steps each.
        batch_size: Sequences a step; the last batch of an epoch may be smaller.
        seed: Of weights, batches, dropout and, for PMNIST, of the order of the pixels.
        eval_batch_size: Sequences a step where nothing is learned.
        checkpoint_seconds: How often a checkpoint is written within an epoch.
        steps_per_epoch: What an epoch is where sequences are drawn as they are needed.
    """

    epochs: int
    batch_size: int
    seed: int = 0
    eval_batch_size: int = 512
    checkpoint_seconds: float = 60.0
    steps_per_epoch: int | None = None


@dataclass(frozen=True)
class PublishedSection:
    """What the paper reports for this row, one value per source that it quotes.

    Attributes:
        test_accuracy: In percent.
        test_mse: In dB².
        train_loss: At the end of training.
        validation_perplexity: The best over epochs.
        test_perplexity: At the best validation epoch.
        std: Over seeds, in the unit of the value; of the test where validation is given as well.
        source: Where in the paper.
    """

    test_accuracy: tuple[float, ...] = ()
    test_mse: tuple[float, ...] = ()
    train_loss: tuple[float, ...] = ()
    validation_perplexity: tuple[float, ...] = ()
    test_perplexity: tuple[float, ...] = ()
    std: float | None = None
    source: str | None = None

    def values(self) -> dict[str, tuple[float, ...]]:
        """What is published, by the name of the column that it stands beside."""
        named = {
            "test_accuracy": self.test_accuracy,
            "test_mse": self.test_mse,
            "train_loss": self.train_loss,
            "validation_perplexity": self.validation_perplexity,
            "test_perplexity": self.test_perplexity,
        }
        return {name: values for name, values in named.items() if values}
