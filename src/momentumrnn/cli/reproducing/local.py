"""Several jobs at once on this machine, each in a process of its own."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence

from momentumrnn.cli.reproducing.jobs import Job, Listener, Outcome, Stop
from momentumrnn.cli.reproducing.worker import STOP

SECONDS_BETWEEN_LOOKS = 0.2
# A process that dies once may have been killed for want of memory; twice in the same job, it is the job.
ATTEMPTS = 2
LINES_KEPT = 20


class _Worker:
    """A process and what it says."""

    def __init__(self, said: "queue.SimpleQueue[tuple[_Worker, str | None]]") -> None:
        # A session of its own: Ctrl-C in the terminal is meant for the parent, which passes it on once.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "momentumrnn.cli.reproducing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self.job: Job | None = None
        self._said = said
        self._complaints: deque[str] = deque(maxlen=LINES_KEPT)
        self._reading_errors = threading.Thread(target=self._read_errors, daemon=True)
        self._reading_errors.start()
        threading.Thread(target=self._read, daemon=True).start()

    def give(self, job: Job) -> None:
        self.job = job
        self._write(json.dumps(job.to_message()))

    def stop(self) -> None:
        self._write(STOP)

    def end(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def last_words(self) -> str:
        code = self.process.wait()
        self._reading_errors.join()
        if code < 0:
            return f"its process was killed by signal {-code}"
        last = self._complaints[-1] if self._complaints else "it said nothing"
        return f"its process ended with code {code}: {last}"

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        # A process that has gone is noticed by the end of its output.
        with contextlib.suppress(OSError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put((self, line))
        self._said.put((self, None))

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.strip():
                self._complaints.append(line.strip())


class LocalExecutor:
    """Carries out jobs on this machine.

    Args:
        at_once: How many.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._said: queue.SimpleQueue[tuple[_Worker, str | None]] = queue.SimpleQueue()
        self._working: set[_Worker] = set()
        self._attempts: dict[str, int] = {}
        self._stopping = False

    def run(self, jobs: Sequence[Job], listener: Listener, stop: Stop) -> dict[str, Outcome]:
        """Do jobs, the first ones first.

        Args:
            jobs: What is done.
            listener: Who is told.
            stop: Asked several times a second.

        Returns:
            What came of those that were begun, by name.
        """
        waiting, outcomes = deque(jobs), dict[str, Outcome]()
        idle: list[_Worker] = []
        try:
            while self._working or (waiting and not self._stopping):
                while waiting and not self._stopping and len(self._working) < self._at_once:
                    worker = idle.pop() if idle else _Worker(self._said)
                    self._working.add(worker)
                    self._attempts[waiting[0].name] = self._attempts.get(waiting[0].name, 0) + 1
                    worker.give(waiting.popleft())
                if not self._stopping and stop.wanted():
                    self._stopping = True
                    for worker in self._working:
                        worker.stop()
                try:
                    worker, line = self._said.get(timeout=SECONDS_BETWEEN_LOOKS)
                except queue.Empty:
                    continue
                if line is None:
                    if worker in idle:
                        idle.remove(worker)
                    else:
                        self._bury(worker, waiting, outcomes, listener)
                    continue
                job = worker.job
                assert job is not None
                event, values = json.loads(line)
                if event != "ended":
                    listener.tell(job.name, event, values)
                    continue
                outcomes[job.name] = Outcome(**values)
                self._working.remove(worker)
                idle.append(worker)
                listener.ended(job.name, outcomes[job.name])
            for worker in idle:
                worker.end()
            for worker in idle:
                worker.process.wait()
        finally:
            # Only where something was raised; a run goes on from its last checkpoint.
            for worker in [*self._working, *idle]:
                worker.process.kill()
        return outcomes

    def _bury(
        self, worker: _Worker, waiting: deque[Job], outcomes: dict[str, Outcome], listener: Listener
    ) -> None:
        """A process has ended in the middle of a job."""
        job, words = worker.job, worker.last_words()
        assert job is not None
        self._working.remove(worker)
        if self._stopping:
            outcome = Outcome("stopped")
        elif self._attempts[job.name] < ATTEMPTS:
            listener.say(f"{job.name}: {words}; another goes on with it")
            waiting.appendleft(job)
            return
        else:
            outcome = Outcome("failed", f"{words}, and so was one before")
        outcomes[job.name] = outcome
        listener.ended(job.name, outcome)
