"""Which prompt is sampled when, and from which random numbers: functions of seed and position.

The prompts of a run are one endless stream: whole shuffled epochs, one after the other. Step s
takes positions s P to (s + 1) P - 1, so that the data cursor of a resumed run is its step. Prompts
sampled in place of others (`extra`) come from a second stream that is numbered within the step.
Shape suffixes: P prompts of a step.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.sentence import stable_hash
from c2s_rl.types import PromptRecord

SEED_BITS = 62  # what numpy, torch and vLLM all take
EXTRA = 1  # tells the second stream from the first, whose generators have two numbers as seed


class PromptStream:
    """The training prompts in the order in which a run takes them."""

    def __init__(self, records: Sequence[PromptRecord], *, per_step: int, seed: int) -> None:
        """Look at the records.

        Args:
            records: All training prompts.
            per_step: P.
            seed: The run's seed.
        """
        self._records = records
        self._per_step = per_step
        self._seed = seed
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def at(self, position: int) -> PromptRecord:
        """Return the prompt at a 0-based position of the stream."""
        return self._records[self._index(position)]

    def extra(self, step: int, number: int) -> PromptRecord:
        """Return the number-th further prompt of a step: one that the step has not, if there is."""
        first = step * self._per_step
        taken = {self._index(position) for position in range(first, first + self._per_step)}
        order = np.random.default_rng([self._seed, step, EXTRA]).permutation(len(self._records))
        fresh = [int(index) for index in order if int(index) not in taken]
        choice = fresh or [int(index) for index in order]
        return self._records[choice[number % len(choice)]]

    def _index(self, position: int) -> int:
        epoch, place = divmod(position, len(self._records))
        if epoch != self._epoch:
            generator = np.random.default_rng([self._seed, epoch])
            self._epoch, self._order = epoch, generator.permutation(len(self._records))
        return int(self._order[place])


def rollout_seed(seed: int, step: int, index: int, *, attempt: int = 0) -> int:
    """Seed of the index-th prompt of a step; its G samples use this number and the next G - 1.

    Args:
        seed: The run's seed.
        step: Optimiser step that the prompt belongs to.
        index: Place in the step; P and above for prompts sampled in place of others.
        attempt: How often the prompt was sampled before in vain.
    """
    name = f"rollout/{step}/{index}" + (f"/{attempt}" if attempt else "")
    return stable_hash(name, seed) >> (64 - SEED_BITS)
