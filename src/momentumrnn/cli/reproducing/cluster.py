"""Jobs on a Ray cluster: one that is running, or one that is started on this machine."""

import _thread
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from momentumrnn.cli.reproducing.at_once import RUNS_ON_A_GPU
from momentumrnn.cli.reproducing.errors import ReproduceError
from momentumrnn.cli.reproducing.jobs import Job, Listener, Outcome, Stop
from momentumrnn.cli.reproducing.work import perform

SECONDS_BETWEEN_LOOKS = 0.5
# How often a job is begun again after its process, or its machine, has gone.
RETRIES = 3
BEGUN = "begun"
# Ray looks at RAY_ADDRESS, and for a cluster that was started on this machine.
ADDRESS = "auto"


class Board:
    """Where jobs write down how they go, and read whether they shall stop; an actor of its own."""

    def __init__(self) -> None:
        self._events: list[tuple[str, str, dict[str, Any]]] = []
        self._stopping = False

    def tell(self, name: str, event: str, values: dict[str, Any]) -> None:
        """Write down.

        Args:
            name: The job.
            event: What happened.
            values: The event's own.
        """
        self._events.append((name, event, values))

    def take(self, stop: bool) -> list[tuple[str, str, dict[str, Any]]]:
        """Read what was written down since.

        Args:
            stop: Whether jobs shall stop from now on.
        """
        self._stopping = stop
        taken, self._events = self._events, []
        return taken

    def stopping(self) -> bool:
        """Whether jobs shall stop."""
        return self._stopping


def perform_on_cluster(message: dict[str, Any], board: Any) -> Outcome:
    """Do a job in a process of the cluster.

    Args:
        message: From ``Job.to_message``.
        board: The actor.
    """
    import ray

    ended = threading.Event()

    def look() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            try:
                stopping = ray.get(board.stopping.remote())
            except ray.exceptions.RayError:
                # Begun again beside the driver, or lost with it, and then this process ends, too.
                continue
            if stopping:
                # As Ctrl-C, but no signal: Ray blocks that one in its workers. Once: a second one would not
                # wait for the checkpoint.
                _thread.interrupt_main()
                return

    board.tell.remote(message["name"], BEGUN, {})
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        return perform(message, lambda event, values: board.tell.remote(message["name"], event, values))
    finally:
        ended.set()


def find_ray() -> Any:
    """Import Ray.

    Raises:
        ReproduceError: It is not installed.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ReproduceError(
            "--executor ray: Ray is not installed; pip install 'momentumrnn[ray]', or '.[ray]'"
        ) from error
    return ray


class RayExecutor:
    """Carries out jobs on a Ray cluster. One whose process is killed is begun again, and goes on.

    Args:
        at_once: How many, where a cluster is started on this machine.
        bound: How many on a cluster that runs; as many as it has room for where absent.

    Raises:
        ReproduceError: Ray is not installed.
    """

    def __init__(self, at_once: int, bound: int | None) -> None:
        self._ray = find_ray()
        self._at_once, self._bound = at_once, bound

    def run(self, jobs: Sequence[Job], listener: Listener, stop: Stop) -> dict[str, Outcome]:
        """Do jobs, the first ones first.

        Args:
            jobs: What is done.
            listener: Who is told.
            stop: Asked several times a second.

        Returns:
            What came of those that were begun, by name.
        """
        if not jobs:
            return {}
        listener.say(self._connect(jobs[0].threads))
        try:
            return self._run(jobs, listener, stop)
        finally:
            self._ray.shutdown()

    def _connect(self, threads: int) -> str:
        """Find a cluster, or start one."""
        # Its own default is to report how it is used.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        quiet = {"logging_level": "error", "log_to_driver": False}
        try:
            self._ray.init(address=ADDRESS, **quiet)
            told = "the Ray cluster that runs"
        except ConnectionError:
            cores = self._at_once * threads
            self._ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
            told = "a Ray cluster of this machine"
            self._bound = self._bound or self._at_once
        resources = self._ray.cluster_resources()
        gpus = f" and {resources['GPU']:.0f} GPUs" if resources.get("GPU") else ""
        return f"runs go to {told}: {resources.get('CPU', 0):.0f} cores{gpus}"

    def _run(self, jobs: Sequence[Job], listener: Listener, stop: Stop) -> dict[str, Outcome]:
        ray = self._ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # On the driver's machine: lost with another it would end runs that are well. Its process may be lost.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        kept = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        board = ray.remote(**kept)(Board).remote()
        options: dict[str, Any] = {"num_cpus": jobs[0].threads, "max_retries": RETRIES}
        if jobs[0].device != "cpu" and ray.cluster_resources().get("GPU"):
            options["num_gpus"] = 1 / RUNS_ON_A_GPU
        remote = ray.remote(**options)(perform_on_cluster)
        waiting, going = deque(jobs), dict[Any, str]()
        begun, outcomes, stopping = set[str](), dict[str, Outcome](), False
        while going or (waiting and not stopping):
            while waiting and not stopping and (self._bound is None or len(going) < self._bound):
                job = waiting.popleft()
                going[remote.remote(job.to_message(), board)] = job.name
            ended, _ = ray.wait(list(going), num_returns=1, timeout=SECONDS_BETWEEN_LOOKS)
            if not stopping and stop.wanted():
                stopping = True
                for reference, name in going.items():
                    if name not in begun:
                        ray.cancel(reference)
            for name, event, values in ray.get(board.take.remote(stopping)):
                if name not in going.values():
                    # Of a job that has ended; its last words came late.
                    continue
                if event != BEGUN:
                    listener.tell(name, event, values)
                elif name in begun:
                    listener.say(f"{name}: its process was lost; another goes on with it")
                begun.add(name)
            for reference in ended:
                name = going.pop(reference)
                outcome = self._outcome(reference)
                if name in begun or outcome.state != "stopped":
                    outcomes[name] = outcome
                    listener.ended(name, outcome)
        return outcomes

    def _outcome(self, reference: Any) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            return Outcome("stopped")
        except self._ray.exceptions.RayError as error:
            told = str(error).strip().splitlines() or ["no reason is given"]
            return Outcome("failed", f"{type(error).__name__}: {told[0]}")
        return outcome
