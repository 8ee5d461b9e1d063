"""What a model is asked to do with a dataset: its head, its loss, its metric, its batches."""

from momentumrnn.tasks.choice import build_task
from momentumrnn.tasks.classification import classification_loss, count_correct
from momentumrnn.tasks.contract import (
    METRICS,
    Baseline,
    Batch,
    Batches,
    Continued,
    LayerChoice,
    Metric,
    Sampling,
    Score,
    Task,
)
from momentumrnn.tasks.models import build_layer, recurrent_layers
from momentumrnn.tasks.readouts import LastStepReadout

__all__ = [
    "METRICS",
    "Baseline",
    "Batch",
    "Batches",
    "Continued",
    "LastStepReadout",
    "LayerChoice",
    "Metric",
    "Sampling",
    "Score",
    "Task",
    "build_layer",
    "build_task",
    "classification_loss",
    "count_correct",
    "recurrent_layers",
]
