"""What each process of a run has of its own, its sums and its random numbers, for a checkpoint."""

from typing import Any

import torch

from momentumrnn.training.processes import Processes
from momentumrnn.training.totals import Totals


def collect_own_states(processes: Processes, totals: Totals) -> dict[str, Any]:
    """That of every process: the first one's by name, and a list of the ``others``'.

    Args:
        processes: Who takes part in the run; all call this.
        totals: What this one has added up.
    """
    own = {"loss_sum": totals.loss_sum, "metric_sum": totals.metric_sum, "rng": torch.get_rng_state()}
    if totals.loss_sum.is_cuda:
        own["cuda_rng"] = torch.cuda.get_rng_state()
    gathered = {name: processes.gather(tensor) for name, tensor in own.items()}
    first, *others = (
        {name: every[rank] for name, every in gathered.items()} for rank in range(processes.count)
    )
    return {**first, "others": others}


def restore_own_state(processes: Processes, totals: Totals, state: dict[str, Any]) -> None:
    """Take up what this process had; where there were more processes or fewer, a part of what they had.

    Args:
        processes: Who takes part in the run.
        totals: What to restore.
        state: With what ``collect_own_states`` gave.
    """
    # Checkpoints written before there could be others lack them.
    every = [state, *state.get("others", [])]
    if len(every) == processes.count:
        loss_sum, metric_sum = every[processes.rank]["loss_sum"], every[processes.rank]["metric_sum"]
    else:
        loss_sum, metric_sum = (
            torch.stack([part[name] for part in every]).mean() for name in ("loss_sum", "metric_sum")
        )
    totals.restore(loss_sum, metric_sum, state["weight"])
    if processes.rank >= len(every):
        return
    own = every[processes.rank]
    torch.set_rng_state(own["rng"])
    if totals.loss_sum.is_cuda and "cuda_rng" in own:
        # They were once those of all devices of the machine.
        stored = own["cuda_rng"]
        if not isinstance(stored, list):
            torch.cuda.set_rng_state(stored)
        elif stored:
            torch.cuda.set_rng_state(stored[0])
