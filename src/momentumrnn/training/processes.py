"""The processes that carry out one run together: what each does of a batch, and how they agree."""

import io
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch import distributed as dist

from momentumrnn import errors
from momentumrnn.tasks import Batch
from momentumrnn.tasks.shares import Share, share_of

T = TypeVar("T")


def leads() -> bool:
    """Whether this process is the one that speaks for its run: the first, or the only one."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def lost_another(error: BaseException) -> bool:
    """Whether an error is that of a process that waits for one that has gone.

    Args:
        error: What came up where processes wait for each other.
    """
    if not dist.is_available():
        return False
    # Gloo's errors have no class of their own.
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


class Processes:
    """The processes of a run, one a device; where it is one alone, nothing here does anything.

    Except ``share``, every method waits for the others: all call it, in the same order. None of them waits
    for a GPU unless it is handed a number from one.

    Args:
        fabric: What started them.
        sequence_dim: The dimension of a batch's targets that counts sequences.

    Attributes:
        rank: Which of them this is, from 0.
        local_rank: Likewise among those on this machine.
        count: How many there are.
    """

    def __init__(self, fabric: Fabric, sequence_dim: int) -> None:
        self.rank, self.local_rank, self.count = fabric.global_rank, fabric.local_rank, fabric.world_size
        self._sequence_dim = sequence_dim
        # Beside the one for gradients, on the CPU even where that is on GPUs.
        self._group = dist.new_group(backend="gloo") if self.count > 1 else None

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes files and tells how it goes."""
        return self.rank == 0

    def share(self, batch: Batch) -> Share:
        """What this process does of a batch.

        Args:
            batch: The whole one.
        """
        if self.count == 1:
            return Share(batch, 1.0, 1.0)
        return share_of(batch, self._sequence_dim, self.rank, self.count)

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        """For each wish, whether any process has it.

        Args:
            wishes: Of this process; the same ones in every process.
        """
        if self.count == 1:
            return wishes
        return tuple(bool(wish) for wish in self._reduced(wishes, torch.int64, dist.ReduceOp.MAX))

    def lowest(self, number: int) -> int:
        """The lowest of the numbers that the processes give.

        Args:
            number: Of this process.
        """
        if self.count == 1:
            return number
        return int(self._reduced((number,), torch.int64, dist.ReduceOp.MIN)[0])

    def means(self, *numbers: Tensor) -> tuple[float, ...]:
        """The means over the processes.

        Args:
            numbers: Of this process, each ().
        """
        own = [number.item() for number in numbers]
        if self.count == 1:
            return tuple(own)
        return tuple(total / self.count for total in self._reduced(own, torch.float64, dist.ReduceOp.SUM))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """What every process holds, by rank, on the CPU.

        Args:
            tensor: Of this process, and of the same shape and dtype in every one.
        """
        own = tensor.detach().cpu()
        if self.count == 1:
            return [own]
        every = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(every, own, group=self._group)
        return every

    def broadcast(self, value: T, source: int = 0) -> T:
        """What one of the processes holds.

        Args:
            value: Of this process; only that of ``source`` counts, and it is one that ``torch.load`` can read
                with ``weights_only=True``.
            source: The rank of that process.
        """
        if self.count == 1:
            return value
        buffer = io.BytesIO()
        if self.rank == source:
            torch.save(value, buffer)
        length = torch.tensor([buffer.tell()])
        dist.broadcast(length, source, group=self._group)
        content = torch.empty(int(length), dtype=torch.uint8)
        if self.rank == source:
            content = torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)
        dist.broadcast(content, source, group=self._group)
        if self.rank == source:
            return value
        received: T = torch.load(io.BytesIO(content.numpy().tobytes()), "cpu", weights_only=True)
        return received

    def together(self, function: Callable[[], T]) -> T:
        """Call a function in every process; where it fails in one, all fail.

        Args:
            function: What may fail in one process alone. It does not wait for the others.

        Returns:
            What it gave in this process.

        Raises:
            Exception: What it raised here; or, where it failed elsewhere, an error of that class, if it is
                one of ``momentumrnn.errors``, and that message.
        """
        if self.count == 1:
            return function()
        failure: Exception | None = None
        try:
            result = function()
        except Exception as error:
            failure = error
        failed = self.lowest(self.count if failure is None else self.rank)
        if failed == self.count:
            return result
        kind, message = self.broadcast([type(failure).__name__, str(failure)], failed)
        if failure is not None:
            raise failure
        where = f"process {failed}: "
        if hasattr(errors, kind):
            raise getattr(errors, kind)(where + message)
        raise RuntimeError(f"{where}{kind}: {message}")

    def lead(self, function: Callable[[], T]) -> T | None:
        """Call a function in the first process alone; where it fails, all fail.

        Args:
            function: As for ``together``.

        Returns:
            What it gave; ``None`` in the other processes.
        """
        return self.together(lambda: function() if self.leads else None)

    def by_turns(self, function: Callable[[], T]) -> T:
        """Call a function in the first process of each machine, and then in the others there.

        Args:
            function: What makes something that all can use, such as a cache on the disk. It may fail in one
                process alone, as for ``together``.
        """
        own: list[T] = []
        for turn in (True, False):
            if turn == (self.local_rank == 0):
                self.together(lambda: own.append(function()))
            else:
                self.together(lambda: None)
        return own[0]

    def close(self) -> None:
        """Give back what agreeing needs."""
        if self._group is not None:
            dist.destroy_process_group(self._group)

    def _reduced(
        self, numbers: Sequence[float], dtype: torch.dtype, operation: dist.ReduceOp.RedOpType
    ) -> list[float]:
        tensor = torch.tensor(numbers, dtype=dtype)
        dist.all_reduce(tensor, operation, group=self._group)
        reduced: list[float] = tensor.tolist()
        return reduced
