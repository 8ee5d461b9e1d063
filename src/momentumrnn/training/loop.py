"""The training loop, from top to bottom: set up, or go on; an epoch; its evaluation; the record of it."""

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor

from momentumrnn.errors import CheckpointError, DivergedError
from momentumrnn.tasks import Batches, Task
from momentumrnn.tasks.contract import Part
from momentumrnn.tasks.models import layer_options, rule_arguments
from momentumrnn.training.averaging import Averaging
from momentumrnn.training.carried_state import CarriedState
from momentumrnn.training.checkpoint import (
    Checkpoint,
    load_latest_checkpoint,
    restoring,
    save_checkpoint,
    save_weights,
)
from momentumrnn.training.divergence import Divergence
from momentumrnn.training.files import needing_disk
from momentumrnn.training.history import Epoch, best_validation_epoch
from momentumrnn.training.interrupt import Interrupt
from momentumrnn.training.model import build_model
from momentumrnn.training.optimizers import build_optimizers, restore_optimizer, scaled_lr
from momentumrnn.training.own_state import collect_own_states, restore_own_state
from momentumrnn.training.processes import Processes
from momentumrnn.training.progress import Progress
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.run_folder import RunFolder
from momentumrnn.training.totals import Totals

# Reading a number from the device waits for it, so it is done by the clock and not at every step.
SECONDS_BETWEEN_READS = 0.5
T = TypeVar("T")


class Loop:
    """One run in one process, from where its folder says it was left.

    Args:
        recipe: What to run.
        run: Its folder, opened.
        task: The recipe's.
        batches: Its data.
        fabric: What the model is set up by.
        processes: Who takes part.
        interrupt: Whether somebody asked the run to stop.
        progress: Who is told how it goes.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        task: Task,
        batches: Batches,
        fabric: Fabric,
        processes: Processes,
        interrupt: Interrupt,
        progress: Progress,
    ) -> None:
        self.recipe, self.run, self.task, self.batches = recipe, run, task, batches
        self.fabric, self.processes = fabric, processes
        self.interrupt, self.progress = interrupt, progress
        self.steps_per_epoch = batches.steps_per_epoch

        torch.manual_seed(recipe.training.seed)
        # The raw ones are what is saved: their names and states do not depend on the wrapper.
        self.raw_model = build_model(recipe)
        self.raw_optimizers = build_optimizers(recipe.optimizer, self.raw_model)
        self.model, *self.optimizers = self.fabric.setup(self.raw_model, *self.raw_optimizers)

        self.carried = CarriedState(processes)
        self.averaging = Averaging(recipe.optimizer.average_after)
        self.history: list[Epoch] = []
        self.untold: list[Epoch] = []
        self.epoch, self.step = 1, 0
        self.seconds_before = 0.0
        self.totals = Totals(processes, fabric.device)
        self.divergence = Divergence(processes, fabric.device)
        if processes.rank:
            # Other dropout masks than the first process's, whose sequences are others.
            torch.manual_seed(recipe.training.seed + processes.rank * 2**32)
        self._restore()
        self._write(lambda: self.run.go_on(recipe))
        self.last_save = self.last_read = time.monotonic()

    def run_all_epochs(self) -> None:
        """Train, measure and write down, up to the last epoch."""
        training = self.recipe.training
        self.progress.begin(
            self.run.path.name,
            training.epochs,
            self.steps_per_epoch,
            self.epoch,
            self.step,
            self.task.metric,
        )
        try:
            with self._tensorboard() as events:
                for row in self.untold:
                    self.progress.epoch(row)
                while self.epoch <= training.epochs:
                    self.started = time.monotonic() - self.seconds_before
                    self._train_epoch()
                    row = self._measure_epoch()
                    self._finish_epoch(row)
                    self._write(partial(_tell, events, row))
                    self.progress.epoch(row)
        finally:
            self.progress.end()

    def _train_epoch(self) -> None:
        clip_norm, checkpoint_seconds = (
            self.recipe.optimizer.clip_norm,
            self.recipe.training.checkpoint_seconds,
        )
        self.model.train()
        for whole in self.batches.training(self.epoch, self.step):
            share = self.processes.share(whole)
            outputs = self.carried.run(self.model, share)
            score = share.counted(self.task.score(outputs, share.batch))
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            self.fabric.backward(score.objective)
            if clip_norm is not None:
                # Not by Fabric, which would clip those of one optimizer alone.
                torch.nn.utils.clip_grad_norm_(self.raw_model.parameters(), clip_norm)
            with scaled_lr(self.raw_optimizers, whole.lr_scale):
                self._step_optimizers()
            self.averaging.count(self.raw_model)
            self.step += 1
            self.divergence.see(score.loss.detach(), self.step, first=self.epoch == self.step == 1)
            self.totals.add(score, whole.weight)
            now = time.monotonic()
            # By any clock, but all together: each of these waits for the other processes.
            read, save = self.processes.agree(
                now - self.last_read >= SECONDS_BETWEEN_READS, now - self.last_save >= checkpoint_seconds
            )
            if read:
                self._report_step()
            if save:
                self._save()
            self._stop_if_asked()

    def _step_optimizers(self) -> None:
        try:
            for optimizer in self.optimizers:
                optimizer.step()
        except RuntimeError as error:
            # Adam divides its first learning rates by small numbers.
            if "without overflow" not in str(error):
                raise
            self._diverged(
                f"a step is larger than float32 holds after step {self.step} of epoch {self.epoch}"
            )

    def _report_step(self) -> None:
        self._check_finite()
        self.progress.step(self.epoch, self.step, *self._means(self.totals))
        self.last_read = time.monotonic()

    def _means(self, totals: Totals) -> tuple[float, float]:
        loss, metric = totals.means()
        return loss, self.task.metric.of_mean(metric)

    def _measure_epoch(self) -> Epoch:
        self._check_finite()
        validation_loss, validation_metric = self._evaluate("validation")
        test_loss, test_metric = self._evaluate("test")
        assert test_loss is not None
        assert test_metric is not None
        train_loss, train_metric = self._means(self.totals)
        return Epoch(
            epoch=self.epoch,
            step=(self.history[-1].step if self.history else 0) + self.step,
            train_loss=train_loss,
            train_metric=train_metric,
            validation_loss=validation_loss,
            validation_metric=validation_metric,
            test_loss=test_loss,
            test_metric=test_metric,
            seconds=round(time.monotonic() - self.started, 3),
            metric=self.task.metric,
        )

    @torch.no_grad()
    def _evaluate(self, part: Part) -> tuple[float | None, float | None]:
        batches = self.batches.evaluation(part)
        if batches is None:
            return None, None
        model, carried = self.averaging.evaluated(self.model).eval(), CarriedState(self.processes)
        totals = Totals(self.processes, self.fabric.device)
        for whole in batches:
            share = self.processes.share(whole)
            score = share.counted(self.task.score(carried.run(model, share), share.batch))
            totals.add(score, whole.weight)
            self._stop_if_asked()
        loss, metric = self._means(totals)
        if not math.isfinite(loss):
            self._diverged(f"the loss after epoch {self.epoch} is {loss}")
        return loss, metric

    def _finish_epoch(self, row: Epoch) -> None:
        self.history.append(row)
        if best_validation_epoch(self.history) is row:
            weights = self.averaging.evaluated(self.raw_model).state_dict()
            self._write(lambda: save_weights(self.run.best, weights, epoch=str(row.epoch)))
        self.averaging.judge(self.history, self.raw_model)
        self.epoch, self.step, self.seconds_before = self.epoch + 1, 0, 0.0
        self.started = time.monotonic()
        self.totals.clear()
        # The checkpoint first: metrics without the weights they belong to could not be gone on from.
        self._save()
        self._write(lambda: self.run.write_history(self.history, self.task.metric))

    def _write(self, write: Callable[[], T]) -> T | None:
        def write_or_explain() -> T:
            with needing_disk(self.run.path):
                return write()

        return self.processes.lead(write_or_explain)

    def _stop_if_asked(self) -> None:
        (asked,) = self.processes.agree(self.interrupt.requested)
        if asked:
            self._save()
            raise KeyboardInterrupt(
                f"stopped in epoch {self.epoch} after step {self.step}; {self.run.path} holds a checkpoint, "
                "and the same command goes on from it"
            )

    def _check_finite(self) -> None:
        problem = self.divergence.problem()
        if problem is not None:
            self._diverged(f"{problem} of epoch {self.epoch}")

    def _diverged(self, what: str) -> None:
        self._write(lambda: self.run.mark_diverged(what))
        optimizer, model = self.recipe.optimizer, self.recipe.model.name
        clip = "none now" if optimizer.clip_norm is None else f"now {optimizer.clip_norm}"
        remedies = [f"optimizer.lr (now {optimizer.lr})", f"optimizer.clip_norm ({clip})"]
        if layer_options(model):
            lr = optimizer.lr if optimizer.lr_orthogonal is None else optimizer.lr_orthogonal
            remedies.insert(1, f"optimizer.lr_orthogonal (now {lr})")
        if "step_size" in rule_arguments(model):
            remedies.append("rule.step_size")
        *others, last = (f"a smaller {remedy}" for remedy in remedies)
        raise DivergedError(
            f"{what}. Try {', '.join(others)} or {last}. The metrics and checkpoints up to there are kept in "
            f"{self.run.path}; another setting needs another folder (--out)"
        )

    def _save(self) -> None:
        self._check_finite()
        finite = all(bool(torch.isfinite(value).all()) for value in self.raw_model.parameters())
        if any(self.processes.agree(not finite)):
            self._diverged(f"a weight is not finite after step {self.step} of epoch {self.epoch}")
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": time.monotonic() - self.started,
            **collect_own_states(self.processes, self.totals),
            "weight": self.totals.weight,
            "loss_limit": self.divergence.limit.cpu(),
            "history": [row.columns() for row in self.history],
            "carried": self.carried.state(),
            "average": self.averaging.state(),
            "optimizers": [optimizer.state_dict() for optimizer in self.raw_optimizers],
        }
        checkpoint = Checkpoint(self.raw_model.state_dict(), state)
        self._write(lambda: save_checkpoint(self.run.checkpoints, checkpoint))
        self.last_save = time.monotonic()

    def _restore(self) -> None:
        found = self.processes.lead(lambda: load_latest_checkpoint(self.run.checkpoints))
        stored = self.processes.broadcast(None if found is None else (found.weights, found.state))
        if stored is None:
            self.processes.lead(self.run.check_unbegun)
            return
        with restoring(self.run.path):
            self._take_up(*stored)
        # Killed between the two, a process leaves metrics an epoch behind the checkpoint; nobody was told.
        written = self._write(lambda: self.run.check_history(stored[1]["history"]))
        self.untold = [] if written is None else self.history[written:]
        self._write(lambda: self.run.write_history(self.history, self.task.metric))

    def _take_up(self, weights: dict[str, Tensor], state: dict[str, Any]) -> None:
        if "weight" not in state:
            raise CheckpointError(
                f"{self.run.path}: its checkpoints are those of an earlier version of momentumrnn; finish "
                "the run with that version, or choose another folder with --out"
            )
        self.raw_model.load_state_dict(weights)
        for optimizer, own in zip(self.raw_optimizers, state["optimizers"], strict=True):
            restore_optimizer(optimizer, own)
        self.epoch, self.step, self.seconds_before = state["epoch"], state["step"], state["seconds"]
        # Checkpoints from before there were these hold none of them.
        self.carried.restore(state.get("carried", []), self.fabric.device)
        self.averaging.restore(state.get("average"), self.raw_model)
        self.divergence.limit.copy_(state.get("loss_limit", self.divergence.limit))
        self.history = [Epoch.from_columns(row, self.task.metric) for row in state["history"]]
        restore_own_state(self.processes, self.totals, state)
        numbers = [self.step, self.seconds_before, *(v for row in state["history"] for v in row.values())]
        if not all(value is None or isinstance(value, int | float) for value in numbers) or self.step < 0:
            raise TypeError("expected numbers for step, seconds and history")
        if self.epoch != len(self.history) + 1:
            raise ValueError(f"expected epoch {len(self.history) + 1} after its history, got {self.epoch}")

    @contextmanager
    def _tensorboard(self) -> Iterator[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch.utils.tensorboard import SummaryWriter

        def open_events() -> Any:
            # The last epoch once more: whether it got there before the process was killed, nothing tells.
            again = self.history[-max(1, len(self.untold)) :]
            first = again[0].epoch if again else 1
            events = SummaryWriter(str(self.run.tensorboard), purge_step=first)
            for row in again:
                _tell(events, row)
            return events

        events = self._write(open_events)
        try:
            yield events
        finally:
            if events is not None:
                with needing_disk(self.run.path):
                    events.close()


def _tell(events: Any, row: Epoch) -> None:
    for name, value in row.columns().items():
        if name not in ("epoch", "step") and value is not None:
            events.add_scalar(name.replace("_", "/", 1), value, row.epoch)
    # By a thread of its own, which would be killed with the process.
    events.flush()
