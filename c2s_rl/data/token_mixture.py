"""How often an epoch shows each sample, so that tasks get the shares that a mixture asks for.

An epoch has as many samples as the corpus. A task with more samples than its share is thinned, one
with fewer is repeated: every sample `base` times, and those with the smallest hashes once more.
The hash is of prompt id and seed, so that the choice does not depend on order, files or batches.
Two scans find the hash that ends the choice; neither holds more than a histogram and one of its
bins. Shares are of the samples before those too long are dropped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.errors import DataError
from c2s_rl.types import Task

# 65,536 bins of 64-bit hashes: half a megabyte a task; of 100 million samples a bin holds 1,500.
BIN_BITS = 16
_SHIFT = 64 - BIN_BITS

HashedSample = tuple[Task, int]
"""A sample's task and its 64-bit hash."""


@dataclass(frozen=True)
class TaskQuota:
    """What one epoch shows of one task."""

    num_samples: int
    """Samples that the corpus has."""
    num_shown: int
    """Samples of an epoch; a repeated one counts each time."""
    base: int
    """How often every sample is shown."""
    last_hash: int
    """Largest hash that is shown once more; -1 where none is."""

    def copies(self, sample_hash: int) -> int:
        """How often an epoch shows the sample with this hash."""
        return self.base + (sample_hash <= self.last_hash)


def epoch_quotas(
    counts: Mapping[Task, int], mixture: Mapping[Task, float], *, max_repeats: int
) -> dict[Task, int]:
    """Divide an epoch of as many samples as there are among tasks by their shares.

    The largest remainders are rounded up (Hamilton's method), so that the sum is exact.

    Args:
        counts: Samples of each task.
        mixture: Share of each of these tasks; need not sum to 1.
        max_repeats: Most times that a sample may be shown.

    Raises:
        DataError: If a task would show a sample more often, or none of its samples.
    """
    total, weight = sum(counts.values()), sum(mixture.values())
    exact = {task: total * mixture[task] / weight for task in sorted(counts)}
    quotas = {task: int(wanted) for task, wanted in exact.items()}
    by_remainder = sorted(exact, key=lambda task: (quotas[task] - exact[task], task))
    for task in by_remainder[: total - sum(quotas.values())]:
        quotas[task] += 1
    for task, quota in quotas.items():
        if quota > max_repeats * counts[task]:
            raise DataError(
                f"data.mixture must not show a sample of {task.value!r} more than "
                f"data.max_repeats = {max_repeats} times an epoch, got "
                f"{quota / counts[task]:.1f} times ({quota} of {total} samples out of "
                f"{counts[task]}): a share of at most {max_repeats * counts[task] / total:.3g} "
                "of the sum is possible"
            )
        if quota == 0:
            raise DataError(
                f"data.mixture must show at least one sample of every task, got a share of "
                f"{mixture[task] / weight:.3g} of {total} samples for {task.value!r}"
            )
    return quotas


class QuotaScan:
    """First scan: how many samples a task has, and how their hashes are spread."""

    def __init__(self) -> None:
        self._bins: dict[Task, npt.NDArray[np.int64]] = {}

    def add(self, samples: Iterable[HashedSample]) -> None:
        """Count some samples."""
        for task, sample_hash in samples:
            if task not in self._bins:
                self._bins[task] = np.zeros(2**BIN_BITS, dtype=np.int64)
            self._bins[task][sample_hash >> _SHIFT] += 1

    @property
    def counts(self) -> dict[Task, int]:
        """Samples of each task that was seen."""
        return {task: int(self._bins[task].sum()) for task in sorted(self._bins)}

    def choose(
        self, quotas: Mapping[Task, int], samples: Iterable[HashedSample]
    ) -> dict[Task, TaskQuota]:
        """Second scan: find the hashes up to which samples are shown once more.

        Args:
            quotas: Samples of an epoch, by task.
            samples: All samples of the first scan again, in any order.
        """
        places = {task: self._place(task, quota) for task, quota in quotas.items()}
        inside: dict[Task, list[int]] = {task: [] for task in quotas}
        for task, sample_hash in samples:
            if sample_hash >> _SHIFT == places[task].bin:
                inside[task].append(sample_hash)
        counts = self.counts
        return {
            task: TaskQuota(
                num_samples=counts[task],
                num_shown=quota,
                base=quota // counts[task],
                last_hash=sorted(inside[task])[places[task].rank] if places[task].bin >= 0 else -1,
            )
            for task, quota in quotas.items()
        }

    def _place(self, task: Task, quota: int) -> "_Place":
        """Find bin and rank in it of the last sample that is shown once more."""
        num_more = quota % self.counts[task]
        if num_more == 0:
            return _Place(bin=-1, rank=0)
        ends = np.cumsum(self._bins[task])
        found = int(np.searchsorted(ends, num_more))
        before = int(ends[found - 1]) if found else 0
        return _Place(bin=found, rank=num_more - before - 1)


@dataclass(frozen=True)
class _Place:
    """Where a sample stands among the sorted hashes of its task."""

    bin: int
    """Its bin; -1 for no sample."""
    rank: int
    """Its place among the sorted hashes of the bin."""


def every_sample_once(counts: Mapping[Task, int]) -> dict[Task, TaskQuota]:
    """Quotas of an epoch that shows every sample once."""
    return {task: TaskQuota(num, num, base=1, last_hash=-1) for task, num in counts.items()}
