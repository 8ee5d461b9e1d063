"""A batch divided among processes, such that the mean over them is what the whole batch would give."""

from typing import NamedTuple

from torch import Tensor

from momentumrnn.tasks.contract import Batch, Score


class Share(NamedTuple):
    """What one of several processes does of a batch.

    Attributes:
        batch: Its sequences, and at least one: a process for which none is left works on the first, which
            then counts nothing, so that all take part in every step.
        loss_factor: What its loss is multiplied by; the losses so made have the whole batch's as their mean
            over the processes, and so have their gradients.
        metric_factor: Likewise for the metric's sum.
    """

    batch: Batch
    loss_factor: float
    metric_factor: float

    @property
    def counts(self) -> bool:
        """Whether its sequences are this process's own."""
        return self.metric_factor > 0

    def counted(self, score: Score) -> Score:
        """A score of which the mean over the processes is the whole batch's.

        Args:
            score: Of ``batch`` alone.
        """
        if self.loss_factor == self.metric_factor == 1.0:
            return score
        penalty = None if score.penalty is None else score.penalty * self.loss_factor
        return Score(score.loss * self.loss_factor, score.metric_sum * self.metric_factor, penalty)


def own_sequences(size: int, rank: int, count: int) -> tuple[int, int, bool]:
    """Which sequences are those of one process.

    Args:
        size: How many there are.
        rank: Which process, from 0.
        count: How many processes.

    Returns:
        The first one, the one behind the last, and whether none was left, and it was given the first of all.

    >>> [own_sequences(2, rank, 3) for rank in range(3)]
    [(0, 1, True), (0, 1, False), (1, 2, False)]
    """
    first, end = size * rank // count, size * (rank + 1) // count
    return (0, 1, True) if first == end else (first, end, False)


def share_of(batch: Batch, sequence_dim: int, rank: int, count: int) -> Share:
    """The share of one process in a batch: as many sequences as the others', or one more or less.

    Args:
        batch: The whole one.
        sequence_dim: The dimension of its targets that counts sequences.
        rank: Which process, from 0.
        count: How many processes.

    >>> import torch
    >>> whole = Batch(torch.zeros(2, 5, 1), torch.arange(5), weight=5)
    >>> share_of(whole, 0, rank=1, count=2).batch.targets
    tensor([2, 3, 4])
    """
    size = batch.inputs.shape[1]
    first, end, empty = own_sequences(size, rank, count)

    def part(tensor: Tensor, dim: int) -> Tensor:
        return tensor.narrow(dim, first, end - first).contiguous()

    lengths = None if batch.lengths is None else batch.lengths[first:end]
    # Without lengths every sequence has the same number of terms.
    weight = batch.weight * (end - first) // size if lengths is None else sum(lengths)
    own = batch._replace(
        inputs=part(batch.inputs, 1),
        targets=part(batch.targets, sequence_dim),
        weight=weight,
        mask=None if batch.mask is None else part(batch.mask, 1),
        lengths=lengths,
    )
    return Share(own, 0.0, 0.0) if empty else Share(own, weight * count / batch.weight, float(count))
