"""Every optimizer setting of a recipe against the update written out by hand."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from momentumrnn import ExpRNN
from momentumrnn.training.optimizers import build_optimizers
from momentumrnn.training.sections import OptimizerSection

CASES = [
    {"name": "sgd", "lr": 0.3},
    {"name": "sgd", "lr": 0.1, "momentum": 0.7},
    {"name": "sgd", "lr": 0.1, "weight_decay": 0.4},
    {"name": "sgd", "lr": 0.1, "momentum": 0.7, "weight_decay": 0.4, "lr_orthogonal": 0.02},
    {"name": "rmsprop", "lr": 0.1},
    {"name": "rmsprop", "lr": 0.1, "smoothing": 0.6},
    {"name": "rmsprop", "lr": 0.1, "weight_decay": 0.4},
    {"name": "rmsprop", "lr": 0.1, "smoothing": 0.6, "weight_decay": 0.4, "lr_orthogonal": 0.02},
    {"name": "adam", "lr": 0.1},
    {"name": "adam", "lr": 0.1, "weight_decay": 0.4},
    {"name": "adam", "lr": 0.1, "weight_decay": 0.4, "lr_orthogonal": 0.02},
    {"name": "adam", "lr": 0.1, "orthogonal": "adam", "lr_orthogonal": 0.02},
    {"name": "adam", "lr": 0.1, "orthogonal": "rmsprop", "smoothing": 0.6, "weight_decay": 0.4},
    {"name": "sgd", "lr": 0.1, "orthogonal": "rmsprop", "lr_orthogonal": 0.02, "momentum": 0.7},
    {"name": "sgd", "lr": 0.1, "orthogonal": "adam", "lr_orthogonal": 0.02, "weight_decay": 0.4},
    {"name": "rmsprop", "lr": 0.1, "orthogonal": "adam", "lr_orthogonal": 0.02, "smoothing": 0.6},
]
# These two are the loop's, and tested with it.
OF_THE_LOOP = {"clip_norm", "average_after"}


def updated(name, settings, lr, weight, gradients):
    """The weight after one step for each gradient."""
    velocity, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, gradient in enumerate(gradients, 1):
        slope = gradient + settings.get("weight_decay", 0.0) * weight
        if name == "sgd":
            velocity = settings.get("momentum", 0.0) * velocity + slope
            change = velocity
        elif name == "rmsprop":
            alpha = settings.get("smoothing", 0.99)
            square = alpha * square + (1 - alpha) * slope**2
            change = slope / (square.sqrt() + 1e-8)
        else:
            velocity = 0.9 * velocity + 0.1 * slope
            square = 0.999 * square + 0.001 * slope**2
            change = velocity / (1 - 0.9**step) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        weight = weight - lr * change
    return weight


@pytest.mark.parametrize(
    "settings", CASES, ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items())
)
def test_a_step_is_the_one_the_recipe_describes(settings):
    model = ExpRNN(3, 4, dtype=torch.float64)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    gradients = {name: [torch.randn_like(weight) for _ in range(3)] for name, weight in before.items()}
    optimizers = build_optimizers(OptimizerSection(**settings), model)
    for step in range(3):
        for name, weight in model.named_parameters():
            weight.grad = gradients[name][step]
        for optimizer in optimizers:
            optimizer.step()
    assert any(name.endswith("skew") for name in before)
    for name, weight in model.named_parameters():
        rule, lr = settings["name"], settings["lr"]
        if name.endswith("skew"):
            rule, lr = settings.get("orthogonal", rule), settings.get("lr_orthogonal", lr)
        expected = updated(rule, settings, lr, before[name], gradients[name])
        assert_close(weight.detach(), expected, rtol=1e-10, atol=1e-10)


def test_every_setting_of_a_step_has_its_case():
    fields = {field.name for field in dataclasses.fields(OptimizerSection)}
    assert set().union(*CASES) == fields - OF_THE_LOOP
