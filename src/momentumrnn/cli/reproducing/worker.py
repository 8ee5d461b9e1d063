"""A process of its own, ``python -m`` this module: a job a line on its input, a line an event on its output.

The line ``stop`` asks the job at hand to stop, with a checkpoint. So does the end of the input: whoever
wanted the job is gone then.
"""

import json
import os
import queue
import signal
import sys
import threading
from typing import Any

STOP = "stop"


def main() -> None:
    """Work until the input ends."""
    # What a library prints must not be taken for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Outside of a run it ends a job at once; inside, the run's own handler takes it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    jobs: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    working, stopping = threading.Event(), threading.Event()

    def stop() -> None:
        # Of the two that look at both, here and below, at least one sees what the other has set.
        stopping.set()
        if working.is_set():
            signal.raise_signal(signal.SIGTERM)

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == STOP:
                stop()
            else:
                jobs.put(line)
        jobs.put(None)
        stop()

    def answer(event: str, values: dict[str, Any]) -> None:
        try:
            print(json.dumps([event, values]), file=answers, flush=True)
        except OSError:
            # Nobody reads any more: the input ends as well, and the job is stopped for that.
            return

    threading.Thread(target=listen, daemon=True).start()
    from momentumrnn.cli.reproducing.jobs import Outcome
    from momentumrnn.cli.reproducing.work import perform

    while (line := jobs.get()) is not None:
        working.set()
        outcome = Outcome("stopped") if stopping.is_set() else perform(json.loads(line), answer)
        working.clear()
        answer("ended", {"state": outcome.state, "told": outcome.told, "values": outcome.values})


if __name__ == "__main__":
    main()
