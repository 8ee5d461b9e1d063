"""From ``--devices``, ``--nodes`` and ``--strategy`` to processes that Lightning Fabric starts."""

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from momentumrnn.errors import BackendError
from momentumrnn.nearest import did_you_mean

MOST_THREADS = 4096
# More than one process per core gains nothing, but lets a run of many processes be tried on a small machine.
MOST_PROCESSES_PER_CORE = 8
# Those of Fabric that keep all weights in every process, which is what checkpoints are made from.
STRATEGIES = ("auto", "ddp", "ddp_spawn", "ddp_fork")
# What tells the processes of a run that was started by hand on several machines about each other.
BY_HAND = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def check_launch(device: str, devices: int, nodes: int, strategy: str, threads: int | None = None) -> None:
    """Refuse what cannot be started, before anything is.

    Args:
        device: ``cpu`` or ``cuda``.
        devices: Processes on each machine.
        nodes: Machines.
        strategy: A name of Fabric's.
        threads: CPU threads of each process.

    Raises:
        BackendError: These processes cannot be had here.
    """
    for name, value in (("devices", devices), ("nodes", nodes), ("threads", threads)):
        if value is not None and value < 1:
            raise BackendError(f"--{name}: expected 1 or more, got {value}")
    check_threads(threads)
    if strategy not in STRATEGIES:
        hint = did_you_mean(strategy, STRATEGIES, f"expected one of {', '.join(STRATEGIES)}")
        raise BackendError(f"--strategy: there is no {strategy!r} here{hint}")
    if strategy in ("ddp_spawn", "ddp_fork") and (nodes > 1 or _started_elsewhere()):
        raise BackendError(f"--strategy {strategy}: starts processes on one machine by itself; use ddp")
    cores = os.cpu_count() or 1
    if device == "cpu" and devices > MOST_PROCESSES_PER_CORE * cores:
        raise BackendError(
            f"--devices {devices}: expected at most {MOST_PROCESSES_PER_CORE * cores} processes on {cores} "
            "CPU cores; each of them holds the whole model"
        )
    if device == "cuda" and devices > torch.cuda.device_count():
        raise BackendError(
            f"--devices {devices}: torch finds {torch.cuda.device_count()} CUDA devices here; ask for no "
            "more than there are, or for --device cpu"
        )
    _check_environment(devices, nodes)


def check_threads(threads: int | None) -> None:
    """Refuse more threads than a system starts, at which torch overflows or the process is aborted.

    Args:
        threads: CPU threads of a process; torch's own choice where absent.

    Raises:
        BackendError: There are too many.
    """
    if threads is not None and threads > MOST_THREADS:
        raise BackendError(f"--threads: expected at most {MOST_THREADS}, got {threads}")


def _check_environment(devices: int, nodes: int) -> None:
    by_torchrun = TorchElasticEnvironment.detect()
    # Without srun a job of many tasks is none of ours, as long as one process is all that is asked for.
    by_slurm = devices * nodes > 1 and not by_torchrun and SLURMEnvironment.detect()
    if nodes > 1 and not (by_torchrun or by_slurm or os.environ.keys() >= set(BY_HAND)):
        raise BackendError(
            f"--nodes {nodes}: no process can be started on another machine from here; start this command on "
            f"every one of them, with torchrun or srun, or with {', '.join(BY_HAND)} in its environment"
        )
    try:
        if by_torchrun:
            TorchElasticEnvironment().validate_settings(devices, nodes)
        elif by_slurm:
            SLURMEnvironment().validate_settings(devices, nodes)
    except (ValueError, RuntimeError) as error:
        starter = "torchrun" if by_torchrun else "srun"
        raise BackendError(
            f"--devices {devices} --nodes {nodes}: {starter} started other processes than these; {error}"
        ) from error


def start_fabric(device: str, devices: int, nodes: int, strategy: str) -> Fabric:
    """Fabric, ready to launch.

    Args:
        device: ``cpu`` or ``cuda``.
        devices: Processes on each machine.
        nodes: Machines.
        strategy: One of ``STRATEGIES``.

    Raises:
        BackendError: Fabric refuses them.
    """
    try:
        return Fabric(accelerator=device, devices=devices, num_nodes=nodes, strategy=strategy)
    except (ValueError, RuntimeError) as error:
        raise BackendError(f"--devices {devices} --nodes {nodes} --strategy {strategy}: {error}") from error


def begins_alone(nodes: int) -> bool:
    """Whether no other process of this run exists yet, so that nobody waits for this one.

    Args:
        nodes: Machines.
    """
    return nodes == 1 and not _started_elsewhere()


def _started_elsewhere() -> bool:
    return not os.environ.keys().isdisjoint(("LOCAL_RANK", "SLURM_LOCALID"))
