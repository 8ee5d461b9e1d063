"""Doing a job, in whatever process."""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from momentumrnn.cli.reproducing.gradients import record_gradients
from momentumrnn.cli.reproducing.jobs import Job, Outcome
from momentumrnn.cli.reproducing.steps import measure_steps
from momentumrnn.errors import DataMissingError, InUseError
from momentumrnn.tasks.contract import ACCURACY, Metric
from momentumrnn.training import RunResult, train
from momentumrnn.training.history import Epoch, best_test_epoch, best_validation_epoch
from momentumrnn.training.progress import duration
from momentumrnn.training.run_folder import RunFolder

SECONDS_FOR_ANOTHER, SECONDS_BETWEEN_TRIES = 60.0, 0.5

# Called with an event's name and its values.
Tell = Callable[[str, dict[str, Any]], None]


class Telling:
    """A run's progress as events.

    Args:
        tell: Who is told.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def begin(
        self, run: str, epochs: int, steps: int, epoch: int, step: int, metric: Metric = ACCURACY
    ) -> None:
        """Pass it on."""
        at = {"epochs": epochs, "steps": steps, "epoch": epoch, "step": step, "metric": metric.name}
        self._tell("begin", at)

    def step(self, epoch: int, step: int, loss: float, metric: float) -> None:
        """Pass it on."""
        self._tell("step", {"epoch": epoch, "step": step, "loss": loss, "metric": metric})

    def epoch(self, row: Epoch) -> None:
        """Pass it on."""
        self._tell("epoch", {"columns": row.columns(), "metric": row.metric.name})

    def end(self) -> None:
        """The outcome is told elsewhere."""


def perform(message: dict[str, Any], tell: Tell) -> Outcome:
    """Do a job. Whatever goes wrong is its outcome, so that others go on.

    Args:
        message: From ``Job.to_message``.
        tell: Who is told how it goes.
    """
    sys.argv = list(message["command"])
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = lambda text, *_, **__: tell("warning", {"text": str(text)})
        try:
            return _once_free(Job.from_message(message), tell)
        except KeyboardInterrupt:
            return Outcome("stopped")
        except DataMissingError as error:
            return Outcome("missing", str(error))
        except Exception as error:
            # Errors of this package say by themselves what is wrong.
            known = type(error).__module__ == "momentumrnn.errors"
            return Outcome("failed", str(error) if known else f"{type(error).__name__}: {error}")


def _once_free(job: Job, tell: Tell) -> Outcome:
    """Do it, after a while where a process of an earlier call, which was killed, has not stopped yet."""
    until = time.monotonic() + SECONDS_FOR_ANOTHER
    while True:
        try:
            return _do(job, tell)
        except InUseError:
            if time.monotonic() >= until:
                raise
        time.sleep(SECONDS_BETWEEN_TRIES)


def _do(job: Job, tell: Tell) -> Outcome:
    if job.kind == "train":
        try:
            result = train(
                job.recipe,
                job.place,
                data=job.data,
                device=job.device,
                threads=job.threads,
                progress=Telling(tell),
            )
        except KeyboardInterrupt:
            result = RunFolder(job.place).result(job.recipe)
            if not result.finished:
                raise
        return Outcome("done", describe_result(result))
    torch.set_num_threads(job.threads)
    torch.set_flush_denormal(True)
    if job.kind == "gradients":
        record_gradients(job, Telling(tell))
        return Outcome("done", f"wrote {job.place}")
    return Outcome("done", values=measure_steps(job.recipe, job.data, job.device))


def describe_result(result: RunResult) -> str:
    """A finished run in a few words.

    Args:
        result: The run.
    """
    chosen = best_validation_epoch(result.history) or best_test_epoch(result.history)
    if chosen is None:
        return ""
    seconds = sum(epoch.seconds for epoch in result.history)
    shown = chosen.metric.show(chosen.test_metric)
    return f"test {chosen.metric.name} {shown} in epoch {chosen.epoch}, {duration(seconds)}"
