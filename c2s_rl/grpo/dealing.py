"""Dealing a step's groups to data-parallel ranks as micro-batches, while others are awaited.

Left out: what a micro-batch holds (rows, padded or packed), which is the cutter's business.
"""

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from c2s_rl.grpo.batch import Row

T = TypeVar("T")


class Cutter(Protocol[T]):
    """Cuts what it is given, in that order, into micro-batches."""

    def add(self, rows: Sequence[Row]) -> list[list[T]]:
        """Take the rows of one group; returns the micro-batches that are full."""

    def flush(self) -> list[list[T]]:
        """Give out what is left."""


class Dealer(Generic[T]):
    """One step's micro-batches by rank: group i goes to rank i modulo ranks.

    All ranks make the same number of passes, for their collectives have to meet: a rank that has
    more micro-batches than another keeps them until the other has as many, or the step ends. What a
    rank gets, and in which order, depends on the order of the groups alone.
    """

    def __init__(self, num_ranks: int, new_cutter: Callable[[], Cutter[T]]) -> None:
        """Start a step.

        Args:
            num_ranks: How many ranks there are.
            new_cutter: Makes a cutter; called once a rank.
        """
        self._cutters = [new_cutter() for _ in range(num_ranks)]
        self._cut: list[list[list[T]]] = [[] for _ in range(num_ranks)]
        self._num_groups = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Take the rows of the step's next group."""
        rank = self._num_groups % len(self._cutters)
        self._num_groups += 1
        self._cut[rank] += self._cutters[rank].add(rows)

    def ready(self) -> list[list[list[T]]]:
        """Return [ranks] equally many micro-batches that can be learned from now, maybe none."""
        return self._take(min(len(cut) for cut in self._cut))

    def rest(self) -> list[list[list[T]]]:
        """Return [ranks] the step's last micro-batches, at least one each.

        Where a rank has fewer than another, or none has any left, empty ones make up for it:
        gradients are averaged between the ranks in the last backward pass of a step.
        """
        for rank, cutter in enumerate(self._cutters):
            self._cut[rank] += cutter.flush()
        return self._take(max(1, *(len(cut) for cut in self._cut)))

    def _take(self, num_passes: int) -> list[list[list[T]]]:
        taken = [cut[:num_passes] for cut in self._cut]
        self._cut = [cut[num_passes:] for cut in self._cut]
        return [cut + [[] for _ in range(num_passes - len(cut))] for cut in taken]
