"""What a model is asked to do with a dataset: its head, its loss, its metric."""

from momentumrnn.tasks.classification import SequenceClassifier, classification_loss, count_correct
from momentumrnn.tasks.models import build_layer, recurrent_layers

__all__ = [
    "SequenceClassifier",
    "build_layer",
    "classification_loss",
    "count_correct",
    "recurrent_layers",
]
