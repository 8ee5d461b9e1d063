"""One run: who takes part in it, what is checked before it, what becomes of its errors."""

import dataclasses
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric

from momentumrnn.data import data_folder
from momentumrnn.errors import BackendError
from momentumrnn.training.devices import choose_device
from momentumrnn.training.documents import keep_documents
from momentumrnn.training.history import RunResult
from momentumrnn.training.interrupt import catch_interrupts
from momentumrnn.training.launch import begins_alone, check_launch, start_fabric
from momentumrnn.training.loop import Loop
from momentumrnn.training.processes import Processes, lost_another
from momentumrnn.training.progress import Progress, Silent
from momentumrnn.training.recipe import Recipe
from momentumrnn.training.run_folder import RunFolder
from momentumrnn.training.surroundings import surroundings_kept
from momentumrnn.training.versions import current_versions


def train(
    recipe: Recipe,
    folder: str | Path,
    *,
    data: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "auto",
) -> RunResult:
    """Carry out a recipe in a folder; go on where the folder says it was left.

    A run that was interrupted and gone on with gives, on a CPU and with the same number of threads, bit
    for bit the result of one that was not.

    Over several processes every batch is divided among them, and what comes out is what one process gives, to
    rounding; where there is dropout, its masks are other ones. With ``"ddp"`` the first process starts the
    others on its machine by running its own command line again, as Lightning Fabric does; with
    ``"ddp_spawn"`` as workers of ``multiprocessing``, which a program can use as well.

    Args:
        recipe: What to run.
        folder: The run folder, made where it does not exist.
        data: The data folder; see ``momentumrnn.data.data_folder``.
        device: ``cpu``, ``cuda``, or ``auto`` for the GPU where there is one.
        threads: How many CPU threads torch uses in each process; its own choice where absent.
        progress: Who is told how it goes.
        devices: How many devices of this machine work on it, each with a process of its own; on a CPU, how
            many processes.
        nodes: How many machines do; this is then called on every one, and all see the folder and the data.
        strategy: ``auto``, ``ddp``, ``ddp_spawn`` or ``ddp_fork``, as in Fabric.

    Returns:
        What was measured.

    Raises:
        BackendError: There is no such device, or these processes cannot be had.
        CheckpointError: The folder is in use, belongs to another recipe, is damaged, or cannot be written to.
        DataMissingError: The dataset is not there.
        DataError: The dataset is damaged.
        DivergedError: The loss is no longer finite, or a million times what it was.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written before.
    """
    run = RunFolder(Path(folder))
    if begins_alone(nodes) and _is_finished(run, recipe):
        return dataclasses.replace(run.result(recipe), already_finished=True)
    device = choose_device(device)
    check_launch(device, devices, nodes, strategy, threads)
    fabric = start_fabric(device, devices, nodes, strategy)
    part = partial(
        _carry_out,
        recipe=recipe,
        run=run,
        data=data,
        device=device,
        threads=threads,
        progress=progress or Silent(),
    )
    outcome = fabric.launch(part)
    if isinstance(outcome, BaseException):
        raise outcome
    return dataclasses.replace(run.result(recipe), already_finished=outcome)


def _is_finished(run: RunFolder, recipe: Recipe) -> bool:
    run.check_recipe(recipe)
    return run.result(recipe).finished


def _carry_out(
    fabric: Fabric,
    recipe: Recipe,
    run: RunFolder,
    data: str | Path | None,
    device: str,
    threads: int | None,
    progress: Progress,
) -> bool | BaseException:
    """Do one process's part, and say whether there was nothing to do.

    Errors are given back: of a process that was spawned nothing but that reaches the one that waits for it.
    """
    task = recipe.task()
    processes = Processes(fabric, task.sequence_dim)
    try:
        if processes.broadcast(processes.lead(lambda: _is_finished(run, recipe))):
            return True
        with ExitStack() as stack:
            stack.enter_context(surroundings_kept(fabric.device))
            if threads is not None:
                torch.set_num_threads(threads)
            # Gradients that vanish over hundreds of steps end in denormal numbers, at many times the cost.
            torch.set_flush_denormal(True)
            batches = processes.by_turns(
                lambda: task.load(data_folder(data), recipe.sampling(), fabric.device)
            )
            versions = current_versions(device, processes.count)
            processes.lead(lambda: stack.enter_context(run.opened(recipe, versions)))
            processes.lead(lambda: keep_documents(run.path, task.documents(batches)))
            interrupt = stack.enter_context(catch_interrupts())
            listener = progress if processes.leads else Silent()
            Loop(recipe, run, task, batches, fabric, processes, interrupt, listener).run_all_epochs()
        return False
    except (Exception, KeyboardInterrupt) as error:
        if not lost_another(error):
            return error
        said = str(error).partition(". ")[0]
        return BackendError(
            f"another process of this run has ended or cannot be reached ({said}). What is in {run.path} is "
            "kept, and the same command goes on from the last checkpoint"
        )
    finally:
        processes.close()
