"""Run folders that were never trained in."""

import json

import numpy as np

from momentumrnn.tasks.contract import ACCURACY
from momentumrnn.training.experiments import load_experiment
from momentumrnn.training.history import Epoch, write_metrics
from momentumrnn.training.plan import run_name

VERSIONS = {
    "momentumrnn": "0.1.0",
    "commit": "c0ffee",
    "torch": "2.13.0+cpu",
    "platform": "Linux",
    "device": "cpu",
    "threads": 1,
    "command": "momentumrnn reproduce table1 --seeds 3",
}


def history(metric, values, *, validation=None, loss=1.0, train_loss=None, seconds=60.0):
    """Epochs whose test metric has these values, as they are shown."""
    validation = values if validation is None else validation
    train_loss = [loss] * len(values) if train_loss is None else train_loss
    epochs = []
    for number, (tested, held_out) in enumerate(zip(values, validation, strict=True), 1):
        test, validated = tested / metric.scale, held_out / metric.scale
        losses = (
            (train_loss[number - 1], validated, test)
            if metric.name == "loss"
            else (
                train_loss[number - 1],
                loss,
                loss,
            )
        )
        learned = losses[0] if metric.name == "loss" else test
        epochs.append(
            Epoch(
                number,
                10 * number,
                losses[0],
                learned,
                losses[1],
                validated,
                losses[2],
                test,
                seconds,
                metric,
            )
        )
    return tuple(epochs)


def write_run(folder, recipe, epochs, versions=VERSIONS):
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    if epochs:
        write_metrics(folder / "metrics.csv", epochs)
    if versions:
        (folder / "versions.json").write_text(json.dumps({"starts": [versions]}), encoding="utf-8")


def curve(recipe, epochs, best, seed):
    """What a run might have measured: losses that fall, a metric that comes near its best."""
    metric, noise = recipe.task().metric, np.random.default_rng(seed)
    falling = np.exp(-np.arange(epochs) / 4)
    start = 10.0 if metric == ACCURACY else 3 * best
    values = (
        best
        + (start - best) * falling
        + 0.02 * best * noise.random(epochs) * (-1 if metric == ACCURACY else 1)
    )
    loss = 2.3 * falling + 0.05 + 0.02 * noise.random(epochs)
    made = history(metric, values, train_loss=loss, seconds=90.0)
    if metric.name == "loss":
        return made
    return tuple(
        Epoch(**{**vars(epoch), "test_loss": 1.2 * here}) for epoch, here in zip(made, loss, strict=True)
    )


def write_plan(folder, plan, skip=(), unfinished=()):
    """The runs of a plan, but for those whose names hold one of ``skip``."""
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder)
    for number, row in enumerate(plan.rows()):
        for seed in range(plan.seeds):
            name, recipe = run_name(row, seed), plan.recipe(row, seed)
            if any(part in name for part in skip):
                continue
            best = 96.0 + number % 4 if recipe.task().metric == ACCURACY else 1.0 + number % 5
            epochs = recipe.training.epochs
            if any(part in name for part in unfinished):
                epochs = max(1, epochs // 10)
            write_run(folder / name, recipe, curve(recipe, epochs, best, seed))


def write_cost(folder, skip=(), panels=3):
    lines = ["panel,row,train_seconds,train_ratio,eval_seconds,eval_ratio,train_bytes,eval_bytes"]
    for panel in load_experiment("cost").panels[:panels]:
        for number, row in enumerate(panel.all_rows()):
            if row.name not in skip:
                ratio = 1 + 0.13 * number
                memory = "" if "timit" in row.name else f"{2**27 * ratio},{2**25 * ratio}"
                lines.append(
                    f'"{panel.title}",{row.name},{0.2 * ratio},{ratio},{0.05 * ratio},{ratio},{memory or ","}'
                )
    (folder / "cost.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    machine = {"machine": {"processor": "a processor", "threads": 1}, "versions": {"torch": "2.13.0"}}
    (folder / "cost.json").write_text(json.dumps(machine), encoding="utf-8")
