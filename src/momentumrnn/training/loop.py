"""The training loop, from top to bottom: set up, or go on; an epoch; its evaluation; the record of it."""

import dataclasses
import math
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from momentumrnn.data import data_folder
from momentumrnn.errors import CheckpointError, DivergedError
from momentumrnn.tasks import Batches, Score, Task
from momentumrnn.tasks.contract import Part
from momentumrnn.training.averaging import Averaging
from momentumrnn.training.carried_state import CarriedState
from momentumrnn.training.checkpoint import Checkpoint, load_latest_checkpoint, save_checkpoint, save_weights
from momentumrnn.training.devices import choose_device
from momentumrnn.training.history import Epoch, RunResult, best_validation_epoch
from momentumrnn.training.interrupt import Interrupt, catch_interrupts
from momentumrnn.training.model import build_model
from momentumrnn.training.optimizers import build_optimizers, scaled_lr
from momentumrnn.training.progress import Progress, Silent
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.run_folder import RunFolder
from momentumrnn.training.versions import current_versions

# Reading a number from the device waits for it, so it is done by the clock and not at every step.
SECONDS_BETWEEN_READS = 0.5


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    data: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Carry out a recipe in a folder; go on where the folder says it was left.

    A run that was interrupted and gone on with gives, on a CPU and with the same number of threads, bit
    for bit the result of one that was not.

    Args:
        recipe: What to run.
        folder: The run folder, made where it does not exist.
        data: The data folder; see ``momentumrnn.data.data_folder``.
        device: ``cpu``, ``cuda``, or ``auto`` for the GPU where there is one.
        threads: How many CPU threads torch uses; its own choice where absent.
        progress: Who is told how it goes.

    Returns:
        What was measured.

    Raises:
        CheckpointError: The folder is in use, belongs to another recipe, or is damaged.
        DataMissingError: The dataset is not there.
        DataError: The dataset is damaged.
        DivergedError: The loss is no longer finite.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written before.
    """
    run = RunFolder(Path(folder))
    run.check_recipe(recipe)
    present = run.result(recipe)
    if present.finished:
        return dataclasses.replace(present, already_finished=True)
    device = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    # Gradients that vanish over hundreds of steps end in denormal numbers, at many times the cost.
    torch.set_flush_denormal(True)
    task = recipe.task()
    batches = task.load(data_folder(data), recipe.sampling(), device)
    with run.opened(recipe, current_versions(device)), catch_interrupts() as interrupt:
        run.keep_documents(task.documents(batches))
        loop = _Loop(recipe, run, task, batches, device, interrupt, progress or Silent())
        loop.run_all_epochs()
    return run.result(recipe)


class _Loop:
    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        task: Task,
        batches: Batches,
        device: str,
        interrupt: Interrupt,
        progress: Progress,
    ) -> None:
        self.recipe, self.run, self.task, self.batches = recipe, run, task, batches
        self.interrupt, self.progress = interrupt, progress
        self.steps_per_epoch = batches.steps_per_epoch

        torch.manual_seed(recipe.training.seed)
        # The raw ones are what is saved: their names and states do not depend on the wrapper.
        self.raw_model = build_model(recipe)
        self.raw_optimizers = build_optimizers(recipe.optimizer, self.raw_model)
        self.fabric = Fabric(accelerator=device, devices=1)
        self.model, *self.optimizers = self.fabric.setup(self.raw_model, *self.raw_optimizers)

        self.carried = CarriedState()
        self.averaging = Averaging(recipe.optimizer.average_after)
        self.history: list[Epoch] = []
        self.epoch, self.step = 1, 0
        self.seconds_before = 0.0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.metric_sum = torch.zeros((), dtype=torch.float64, device=device)
        self.weight = 0
        self.bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._restore()
        self.last_save = self.last_read = time.monotonic()

    def run_all_epochs(self) -> None:
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
                while self.epoch <= training.epochs:
                    self.started = time.monotonic() - self.seconds_before
                    self._train_epoch()
                    row = self._measure_epoch()
                    self._finish_epoch(row)
                    for name, value in row.columns().items():
                        if name not in ("epoch", "step") and value is not None:
                            events.add_scalar(name.replace("_", "/", 1), value, row.epoch)
                    self.progress.epoch(row)
        finally:
            self.progress.end()

    def _train_epoch(self) -> None:
        clip_norm, checkpoint_seconds = (
            self.recipe.optimizer.clip_norm,
            self.recipe.training.checkpoint_seconds,
        )
        self.model.train()
        for batch in self.batches.training(self.epoch, self.step):
            score = self.task.score(self.carried.run(self.model, batch), batch)
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            self.fabric.backward(score.objective)
            if clip_norm is not None:
                # Over all weights, whichever optimizer is named.
                self.fabric.clip_gradients(
                    self.model, self.optimizers[0], max_norm=clip_norm, error_if_nonfinite=False
                )
            with scaled_lr(self.raw_optimizers, batch.lr_scale):
                for optimizer in self.optimizers:
                    optimizer.step()
            self.averaging.count(self.raw_model)
            self.step += 1
            self._count(score, batch.weight)
            if time.monotonic() - self.last_read >= SECONDS_BETWEEN_READS:
                self._report_step()
            if time.monotonic() - self.last_save >= checkpoint_seconds:
                self._save()
            self._stop_if_asked()

    def _count(self, score: Score, weight: int) -> None:
        loss = score.loss.detach()
        first_bad = (self.bad_step < 0) & ~torch.isfinite(loss)
        self.bad_step = torch.where(first_bad, self.step, self.bad_step)
        self.loss_sum += loss.double() * weight
        self.metric_sum += score.metric_sum
        self.weight += weight

    def _report_step(self) -> None:
        self._check_finite()
        loss, metric = self._train_means()
        self.progress.step(self.epoch, self.step, loss, metric)
        self.last_read = time.monotonic()

    def _train_means(self) -> tuple[float, float]:
        mean = self.metric_sum.item() / self.weight
        return self.loss_sum.item() / self.weight, self.task.metric.of_mean(mean)

    def _measure_epoch(self) -> Epoch:
        self._check_finite()
        validation_loss, validation_metric = self._evaluate("validation")
        test_loss, test_metric = self._evaluate("test")
        assert test_loss is not None
        assert test_metric is not None
        train_loss, train_metric = self._train_means()
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
        model, carried = self.averaging.evaluated(self.model).eval(), CarriedState()
        loss_sum, metric_sum, weight = torch.zeros_like(self.loss_sum), torch.zeros_like(self.metric_sum), 0
        for batch in batches:
            score = self.task.score(carried.run(model, batch), batch)
            loss_sum += score.loss.double() * batch.weight
            metric_sum += score.metric_sum
            weight += batch.weight
            self._stop_if_asked()
        loss = loss_sum.item() / weight
        if not math.isfinite(loss):
            self._diverged(f"the loss after epoch {self.epoch} is {loss}")
        return loss, self.task.metric.of_mean(metric_sum.item() / weight)

    def _finish_epoch(self, row: Epoch) -> None:
        self.history.append(row)
        if best_validation_epoch(self.history) is row:
            best = self.averaging.evaluated(self.raw_model)
            save_weights(self.run.best, best.state_dict(), epoch=str(row.epoch))
        self.averaging.judge(self.history, self.raw_model)
        self.epoch, self.step, self.seconds_before = self.epoch + 1, 0, 0.0
        self.started = time.monotonic()
        self.loss_sum.zero_()
        self.metric_sum.zero_()
        self.weight = 0
        # The checkpoint first: metrics without the weights they belong to could not be gone on from.
        self._save()
        self.run.write_history(self.history, self.task.metric)

    def _stop_if_asked(self) -> None:
        if self.interrupt.requested:
            self._save()
            raise KeyboardInterrupt(
                f"stopped in epoch {self.epoch} after step {self.step}; {self.run.path} holds a checkpoint, "
                "and the same command goes on from it"
            )

    def _check_finite(self) -> None:
        step = int(self.bad_step)
        if step >= 0:
            self._diverged(f"the loss is not finite at step {step} of epoch {self.epoch}")

    def _diverged(self, what: str) -> None:
        optimizer = self.recipe.optimizer
        clip = "none now" if optimizer.clip_norm is None else f"now {optimizer.clip_norm}"
        raise DivergedError(
            f"{what}. Try a smaller optimizer.lr (now {optimizer.lr}), a smaller optimizer.clip_norm "
            f"({clip}) or a smaller rule.step_size. The metrics and checkpoints up to there are kept in "
            f"{self.run.path}; another setting needs another folder (--out)"
        )

    def _save(self) -> None:
        self._check_finite()
        if not all(bool(torch.isfinite(value).all()) for value in self.raw_model.parameters()):
            self._diverged(f"a weight is not finite after step {self.step} of epoch {self.epoch}")
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": time.monotonic() - self.started,
            "loss_sum": self.loss_sum.cpu(),
            "metric_sum": self.metric_sum.cpu(),
            "weight": self.weight,
            "history": [row.columns() for row in self.history],
            "carried": self.carried.state(),
            "average": self.averaging.state(),
            "optimizers": [optimizer.state_dict() for optimizer in self.raw_optimizers],
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.loss_sum.is_cuda else [],
        }
        save_checkpoint(self.run.checkpoints, Checkpoint(self.raw_model.state_dict(), state))
        self.last_save = time.monotonic()

    def _restore(self) -> None:
        checkpoint = load_latest_checkpoint(self.run.checkpoints)
        if checkpoint is None:
            return
        state = checkpoint.state
        if "weight" not in state:
            raise CheckpointError(
                f"{self.run.path}: its checkpoints are those of an earlier version of momentumrnn; finish "
                "the run with that version, or choose another folder with --out"
            )
        self.raw_model.load_state_dict(checkpoint.weights)
        for optimizer, stored in zip(self.raw_optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        self.epoch, self.step, self.seconds_before = state["epoch"], state["step"], state["seconds"]
        # Checkpoints from before there were these two hold neither.
        self.carried.restore(state.get("carried", []), self.loss_sum.device)
        self.averaging.restore(state.get("average"), self.raw_model)
        self.loss_sum.copy_(state["loss_sum"])
        self.metric_sum.copy_(state["metric_sum"])
        self.weight = state["weight"]
        self.history = [Epoch.from_columns(row, self.task.metric) for row in state["history"]]
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and self.loss_sum.is_cuda:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        # A process killed between the two leaves metrics one epoch behind the checkpoint.
        self.run.write_history(self.history, self.task.metric)

    def _tensorboard(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch.utils.tensorboard import SummaryWriter
        return SummaryWriter(str(self.run.tensorboard), purge_step=len(self.history) + 1)
