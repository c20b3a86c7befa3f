"""Several reward actors behind the role `RewardWorker`, retrying what fails."""

import logging
import queue
from collections.abc import Callable, Sequence

import ray
from ray.actor import ActorHandle

from actors.calls import wait_all
from actors.reward import RewardPoolConfig
from c2s_rl.errors import DeadlineError, RewardError, StageError
from c2s_rl.types import Group, ScoredGroup

logger = logging.getLogger(__name__)


class RewardPool:
    """Fills `RewardWorker` with one or more reward actors; a call is worked on by one of them."""

    def __init__(
        self,
        start_worker: Callable[[], ActorHandle],
        config: RewardPoolConfig,
        *,
        is_per_condition: bool,
    ) -> None:
        """Start the actors.

        Args:
            start_worker: Starts one; called again for each that dies or hangs.
            config: How many, and how often a failure is tried again.
            is_per_condition: A reward of the run compares the groups of a condition.
        """
        self._start_worker = start_worker
        self._config = config
        self._is_per_condition = is_per_condition
        self._is_closed = False
        self.workers = [start_worker() for _ in range(config.num_workers)]
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for worker in range(config.num_workers):
            self._free.put(worker)

    @property
    def num_workers(self) -> int:
        """Calls of `score` that are worked on at once."""
        return self._config.num_workers

    @property
    def is_per_condition(self) -> bool:
        """All groups of a step that share a condition have to be in one call."""
        return self._is_per_condition

    def ready(self) -> None:
        """Wait until every plug-in is loaded."""
        self._wait_ready(range(len(self.workers)))

    def close(self) -> None:
        """Replace no worker from now on: they are about to be ended."""
        self._is_closed = True

    def score(self, groups: Sequence[Group]) -> list[ScoredGroup | None]:
        """Score every group, in order; None marks a group whose reward failed after retries.

        Groups that failed together are tried again one by one, unless the reward has to see them
        together.
        """
        # the caller has no more threads than there are workers, so this does not wait for long
        worker = self._free.get(timeout=self._config.deadline_s)
        try:
            return self._score(worker, list(groups), self._config.max_retries)
        finally:
            self._free.put(worker)

    def _score(
        self, worker: int, groups: list[Group], num_retries: int
    ) -> list[ScoredGroup | None]:
        try:
            (scored,) = self._wait(worker, groups)
        except (RewardError, DeadlineError, StageError) as error:
            logger.warning("%s; %d further tries", error, num_retries)
        else:
            return [*scored]
        if not num_retries:
            return [None] * len(groups)
        parts = [groups] if self._is_per_condition else [[group] for group in groups]
        return [s for part in parts for s in self._score(worker, part, num_retries - 1)]

    def _wait(self, worker: int, groups: list[Group]) -> list[list[ScoredGroup]]:
        """Make one call; a worker that hangs or died is replaced before the error goes on."""
        try:
            call = self.workers[worker].score.remote(groups)
            return wait_all(
                [call], deadline_s=self._config.deadline_s, peer=f"reward worker {worker}"
            )
        except (DeadlineError, StageError):
            if not self._is_closed:
                ray.kill(self.workers[worker])
                self.workers[worker] = self._start_worker()
                # loading its plug-ins must not count against the next call
                self._wait_ready([worker])
            raise

    def _wait_ready(self, workers: Sequence[int]) -> None:
        wait_all(
            [self.workers[worker].ready.remote() for worker in workers],
            deadline_s=self._config.start_deadline_s,
            peer=f"reward workers {list(workers)} (start)",
        )
