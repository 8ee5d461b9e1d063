"""Runs killed at random moments and gone on with, beside the same runs undisturbed: bit for bit the same?

python benchmarks/kill_and_resume.py [--kills 10] [--only adding] [--seed 0]

Every run is a process of its own, on the CPU and with one thread, and killed by SIGKILL. Compared are
metrics.csv but for its seconds, the weights of the last checkpoint and of the best epoch, and the state of
optimizers and random numbers.
"""

import argparse
import multiprocessing
import random
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from momentumrnn.data import data_folder
from momentumrnn.training import load_recipe, train
from momentumrnn.training.checkpoint import load_latest_checkpoint
from momentumrnn.training.history import read_metrics

# A process that has imported everything already, so that the time goes into runs.
FORKED = multiprocessing.get_context("fork")
# Written about ten times a second, so that there is much to be killed in the middle of.
OFTEN = ["training.checkpoint_seconds=0.1", "model.hidden_size=12"]
DRAWN = ["data.length=60", "training.epochs=4", "training.batch_size=32", "training.steps_per_epoch=25"]
DROPOUT = ["model.num_layers=2", "model.dropout=0.3"]
DIGITS = ["training.epochs=4"]
SPEECH = ["data.name=prompts", "training.epochs=3", "training.batch_size=16"]
MNIST = ["data.validation=58000", "training.epochs=2"]
TEXT = ["data.subset=4000", "language.embedding_size=12", "training.epochs=8", "optimizer.average_after=1"]
DTRIV = ["model.rebase_every=7", "optimizer.name=adam", "optimizer.orthogonal=rmsprop"]
RUNS = {
    "digits LSTM": ("digits-lstm", [*DIGITS, *DROPOUT]),
    "digits MomentumLSTM": ("digits-momentum-lstm", [*DIGITS, *DROPOUT]),
    "digits AdamLSTM": ("digits-adam-lstm", [*DIGITS, *DROPOUT]),
    "digits RMSPropLSTM": ("digits-rmsprop-lstm", [*DIGITS, *DROPOUT]),
    "digits SRLSTM": ("digits-sr-lstm", [*DIGITS, *DROPOUT]),
    "pmnist MomentumLSTM": ("pmnist-momentum-lstm-128", MNIST),
    "speech AdamLSTM": ("timit-adam-lstm-84", [*SPEECH, *DROPOUT]),
    "copying SRLSTM": ("copying-100-sr-lstm-128", [*DRAWN, *DROPOUT]),
    "adding RMSPropLSTM": ("adding-100-rmsprop-lstm-128", [*DRAWN, *DROPOUT]),
    "language MomentumLSTM": ("ptb-small-momentum-lstm-200", TEXT),
    "language SRLSTM": ("ptb-sr-lstm-1150", TEXT),
    "adding DTRIV": ("adding-100-dtriv-128", [*DRAWN, *DTRIV]),
    "copying AdamDTRIV": ("copying-100-adam-dtriv-128", [*DRAWN, *DTRIV]),
    "pmnist MomentumDTRIV": ("pmnist-momentum-dtriv-170", [*MNIST, "training.epochs=1", *DTRIV]),
}
NEEDS = {"pmnist": "mnist", "speech": "speech/asterisk-en", "language": "ptb"}


@dataclass
class Tried:
    """What became of a run."""

    kills: int
    before_a_checkpoint: int
    starts: int
    different: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="of each run")
    parser.add_argument("--only", default="", help="runs whose names hold this")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{'task and model':24}{'kills':>6}{'before a checkpoint':>21}{'starts':>8}   identical")
    with tempfile.TemporaryDirectory() as folder:
        for name in RUNS:
            needed = NEEDS.get(name.partition(" ")[0])
            if arguments.only not in name:
                continue
            if needed and not (data_folder(None) / needed).exists():
                print(f"{name:24}not run: {data_folder(None) / needed} is not there")
                continue
            tried = kill_and_resume(name, Path(folder) / name.replace(" ", "-"), arguments.kills)
            told = f"no: {', '.join(tried.different)}" if tried.different else "yes"
            counts = f"{tried.kills:>6}{tried.before_a_checkpoint:>21}{tried.starts:>8}"
            print(f"{name:24}{counts}   {told}", flush=True)


def kill_and_resume(name: str, folder: Path, kills: int) -> Tried:
    whole, pieces = folder / "undisturbed", folder / "killed"
    process, begun = start(name, whole)
    finish(process)
    lasting = time.monotonic() - begun
    tried = Tried(0, 0, 1, [])
    while tried.kills < kills:
        process, _ = start(name, pieces)
        tried.starts += 1
        # Some of what is done is lost each time, so that the last ones fall near the end.
        time.sleep(random.uniform(0, 1.6 * lasting / kills))
        tried.before_a_checkpoint += not list((pieces / "checkpoints").glob("[0-9]*"))
        if process.is_alive():
            process.kill()
            process.join()
            tried.kills += 1
        else:
            finish(process)
            # It was at its end before it could be killed: once more, from the start.
            tried.different += compare(pieces, whole)
            pieces = pieces.with_name(f"killed-{tried.starts}")
    process, _ = start(name, pieces)
    finish(process)
    tried.different += compare(pieces, whole)
    return tried


def start(name: str, folder: Path) -> tuple[multiprocessing.process.BaseProcess, float]:
    """Start or go on, and wait until the run holds its folder."""
    versions = folder / "versions.json"
    before = versions.stat().st_mtime_ns if versions.exists() else 0
    process = FORKED.Process(target=carry_out, args=(name, folder))
    process.start()
    while process.is_alive():
        if versions.exists() and versions.stat().st_mtime_ns != before:
            break
        time.sleep(0.002)
    return process, time.monotonic()


def carry_out(name: str, folder: Path) -> None:
    recipe, changes = RUNS[name]
    train(load_recipe(recipe).override([*OFTEN, *changes]), folder, device="cpu", threads=1)


def finish(process: multiprocessing.process.BaseProcess) -> None:
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"a run ended with code {process.exitcode}")


def compare(one: Path, other: Path) -> list[str]:
    different = []
    rows = [
        [{**row.columns(), "seconds": 0.0} for row in read_metrics(path / "metrics.csv")]
        for path in (one, other)
    ]
    if rows[0] != rows[1]:
        different.append("metrics.csv")
    best = [safetensors.torch.load_file(path / "best.safetensors") for path in (one, other)]
    if not same(*best):
        different.append("best.safetensors")
    found, expected = (load_latest_checkpoint(path / "checkpoints") for path in (one, other))
    assert found is not None
    assert expected is not None
    if not same(found.weights, expected.weights):
        different.append("weights")
    different += [part for part in ("optimizers", "rng") if not same(found.state[part], expected.state[part])]
    return different


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


if __name__ == "__main__":
    main()
