"""The workers of one reward: a queue of groups, and a thread a worker that feeds it from there.

Groups that wait are scored in one call, up to `max_groups`, unless the reward compares the groups
of a condition: those come as one job and stay one.
"""

import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.calls import wait_all
from actors.reward import HostAnswer
from actors.reward_figures import RewardFigures
from c2s_rl.errors import DeadlineError, StageError
from c2s_rl.types import Group
from rewards.base import CheckedResult, FailureKind, RewardFailure
from rewards.checking import split_result
from rewards.pool_config import RewardPoolConfig

# For what a worker does beside waiting for its plug-in: sending, ending processes.
GRACE_S = 60.0
# A worker that is lost (its node, its memory) is replaced and called again so often.
MAX_LOST = 2
CLOSE_S = 5.0


@dataclass(frozen=True, eq=False)
class _Job:
    """Groups that stay together."""

    groups: tuple[bytes, ...]
    """Pickled once for all tries; a worker hands them on as they are."""
    sizes: tuple[int, ...]
    """Completions of each."""
    result: "Future[CheckedResult]" = field(default_factory=Future)
    queued_at: float = field(default_factory=time.monotonic)


class RewardPool:
    """One reward's workers."""

    def __init__(
        self,
        name: str,
        start_worker: Callable[[], ActorHandle],
        config: RewardPoolConfig,
        *,
        is_per_condition: bool,
    ) -> None:
        """Start the actors.

        Args:
            name: Of the reward.
            start_worker: Starts a `RewardHost`; called again for each that is lost.
            config: How many, and what they may take.
            is_per_condition: The reward compares the groups of a condition.
        """
        self.name = name
        self.is_per_condition = is_per_condition
        self.figures = RewardFigures(name)
        self._start_worker = start_worker
        self._config = config
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self.workers = [start_worker() for _ in range(config.num_workers)]
        self._threads = [
            threading.Thread(target=self._serve, args=(w,), name=f"reward-{name}-{w}", daemon=True)
            for w in range(config.num_workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def max_waiting(self) -> int:
        """Groups that keep every worker busy with full calls, one under way and one waiting."""
        return 2 * self._config.num_workers * self._config.max_groups

    def ready(self) -> None:
        """Wait until every worker has loaded the plug-in.

        Raises:
            ConfigError: If it cannot be built.
        """
        self._wait_ready(range(len(self.workers)))

    def submit(self, groups: Sequence[Group]) -> "Future[CheckedResult]":
        """Have groups scored that stay together; the result is theirs, in order.

        The future always ends: with a result, or with what stopped the workers.
        """
        blobs = tuple(pickle.dumps(group, pickle.HIGHEST_PROTOCOL) for group in groups)
        job = _Job(blobs, tuple(len(group.completions_G) for group in groups))
        with self._changed:
            if self._is_closed:
                raise StageError(f"reward {self.name!r} must be open to score, got a closed pool")
            self._jobs.append(job)
            self._changed.notify()
        return job.result

    def close(self) -> None:
        """End the workers and their plug-ins' processes; what is under way fails."""
        with self._changed:
            self._is_closed = True
            waiting = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in waiting:
            job.result.set_exception(StageError(f"reward {self.name!r} was closed"))
        with suppress(RayError, TimeoutError):
            ray.get([worker.close.remote() for worker in self.workers], timeout=CLOSE_S)
        for worker in self.workers:
            ray.kill(worker)

    def _serve(self, worker: int) -> None:
        while jobs := self._next_jobs():
            try:
                waits_s = [time.monotonic() - job.queued_at for job in jobs]
                answer = self._score(worker, jobs)
                self.figures.note(answer, waits_s)
                parts = split_result(answer.result, [sum(job.sizes) for job in jobs])
            except BaseException as error:  # noqa: BLE001 raised again where results are waited for
                for job in jobs:
                    job.result.set_exception(error)
            else:
                for job, part in zip(jobs, parts, strict=True):
                    job.result.set_result(part)

    def _next_jobs(self) -> list[_Job]:
        """Wait for a job and take those with it that fit in one call; none once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            jobs = [self._jobs.popleft()] if self._jobs else []
            num_groups = sum(len(job.groups) for job in jobs)
            while self._jobs and not self.is_per_condition:
                num_groups += len(self._jobs[0].groups)
                if num_groups > self._config.max_groups:
                    break
                jobs.append(self._jobs.popleft())
        return jobs

    def _score(self, worker: int, jobs: Sequence[_Job]) -> HostAnswer:
        """Call a worker; one that is lost is replaced."""
        blobs = tuple(blob for job in jobs for blob in job.groups)
        sizes = tuple(size for job in jobs for size in job.sizes)
        began = time.monotonic()
        for number in range(MAX_LOST):
            try:
                return self._wait(worker, blobs, sizes)
            except (DeadlineError, StageError) as error:
                if self._is_closed:
                    raise
                self._replace(worker)
                failure = RewardFailure(FailureKind.CRASHED, f"{error} ({number + 1} times)")
        num = sum(sizes)
        result = CheckedResult((None,) * num, {}, dict.fromkeys(range(num), failure))
        return HostAnswer(result, time.monotonic() - began, MAX_LOST)

    def _wait(self, worker: int, blobs: tuple[bytes, ...], sizes: tuple[int, ...]) -> HostAnswer:
        config = self._config
        (answer,) = wait_all(
            [self.workers[worker].score.remote(blobs, sizes)],
            # new processes are waited for beside the deadline, the last of them to its own end
            deadline_s=config.deadline_s + 2 * config.start_deadline_s + GRACE_S,
            peer=self._peer([worker]),
        )
        return answer

    def _replace(self, worker: int) -> None:
        ray.kill(self.workers[worker])
        self.workers[worker] = self._start_worker()
        self._wait_ready([worker])

    def _wait_ready(self, workers: Sequence[int]) -> None:
        wait_all(
            [self.workers[worker].ready.remote() for worker in workers],
            deadline_s=self._config.start_deadline_s + GRACE_S,
            peer=f"{self._peer(workers)} (start)",
        )

    def _peer(self, workers: Sequence[int]) -> str:
        return f"worker {', '.join(map(str, workers))} of reward {self.name!r}"
