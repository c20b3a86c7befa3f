"""Which rank forwards which micro-batch when: the same number of passes on every rank.

Ranks gather and reduce shards together in each pass, so all must make as many. Groups are dealt out
by their place in the step, and a pass starts when every rank has a micro-batch for it; so passes
depend on the step's groups and their order, not on when they arrive.
Left out: balancing ranks by length, which would need all groups before the first pass.
"""

from collections import deque
from collections.abc import Sequence

from c2s_rl.grpo.batch import Row
from c2s_rl.grpo.packing import GreedyPacker, PackedPart

MicroParts = tuple[PackedPart, ...]
"""One rank's micro-batch; empty for a filler."""
Pass = tuple[MicroParts, ...]
"""[ranks] micro-batches that are forwarded together."""


class PassPlanner:
    """Deals the groups of one step to ranks and cuts each rank's share into micro-batches."""

    def __init__(self, num_ranks: int, max_tokens: int) -> None:
        """Start a step.

        Args:
            num_ranks: Data-parallel ranks.
            max_tokens: Budget of a micro-batch, packed tokens.
        """
        self._packers = [GreedyPacker(max_tokens) for _ in range(num_ranks)]
        self._queues: list[deque[MicroParts]] = [deque() for _ in range(num_ranks)]
        self._num_groups = 0

    def add(self, rows: Sequence[Row]) -> list[Pass]:
        """Take the next group's completions and return the passes that are now complete."""
        rank = self._num_groups % len(self._packers)
        self._num_groups += 1
        self._queues[rank] += [tuple(parts) for parts in self._packers[rank].add(rows)]
        return self._passes(min(map(len, self._queues)))

    def flush(self) -> list[Pass]:
        """Return the passes that are left, at least one; ranks without work get fillers."""
        for packer, waiting in zip(self._packers, self._queues, strict=True):
            waiting += [tuple(parts) for parts in packer.flush()]
        return self._passes(max(1, *map(len, self._queues)))

    def _passes(self, num_passes: int) -> list[Pass]:
        return [
            tuple(waiting.popleft() if waiting else () for waiting in self._queues)
            for _ in range(num_passes)
        ]
