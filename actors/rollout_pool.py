"""Several vLLM actors behind the role `RolloutWorker`.

Requests are dealt out by position, so that results depend on the number of workers and on nothing
else. Engines run in slices: a worker answers as soon as a group is finished, or when its slice is
over, and what was sent to it meanwhile (requests, weights) gets in between two slices.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import ray
from ray import ObjectRef
from ray.actor import ActorHandle

from actors.calls import wait_all, wait_each
from c2s_rl.errors import DeadlineError
from c2s_rl.grpo.roles import PublishedWeights, RolloutAnswer, RolloutRequest
from c2s_rl.types import Group

T = TypeVar("T")

# Longest wait of new weights or requests for an engine that is at work.
SLICE_S = 0.2


class RolloutPool:
    """Fills `RolloutWorker` with one or more vLLM actors."""

    def __init__(
        self,
        workers: Sequence[ActorHandle],
        *,
        deadline_s: float,
        sync_deadline_s: float,
        can_sleep: bool = False,
    ) -> None:
        """Take the workers.

        Args:
            workers: Whose engines are starting.
            deadline_s: Longest time in which a worker finishes no group, and for a call.
            sync_deadline_s: Longest time for taking new weights.
            can_sleep: Let the engines give their memory back while nothing is being sampled.
        """
        self._can_sleep = can_sleep
        self._is_asleep = False
        self._finished: list[RolloutAnswer] = []
        self.workers = list(workers)
        self._deadline_s = deadline_s
        self._sync_deadline_s = sync_deadline_s
        self._num_sampling = [0] * len(self.workers)
        self._last_progress = [0.0] * len(self.workers)
        self._slices: dict[ObjectRef[list[RolloutAnswer]], int] = {}

    def start(self) -> list[str]:
        """Wait until every engine is up; returns the ids of their nodes."""
        return self._call_all([w.node.remote() for w in self.workers], "start")

    def generate(self, requests: Sequence[RolloutRequest]) -> list[Group]:
        """Sample one group a request, in the order of the requests; nothing else is under way."""
        self.submit([replace(request, ticket=i) for i, request in enumerate(requests)])
        groups: dict[int, Group] = {}
        while len(groups) < len(requests):
            answers = self.collect(timeout_s=self._deadline_s)
            groups |= {answer.ticket: answer.group for answer in answers}
        return [groups[i] for i in range(len(requests))]

    def submit(self, requests: Sequence[RolloutRequest]) -> None:
        """Start sampling one group a request, beside what is being sampled already."""
        self._wake()
        num_workers = len(self.workers)
        shares = {w: list(requests[w::num_workers]) for w in range(min(num_workers, len(requests)))}
        self._call_all([self.workers[w].submit.remote(s) for w, s in shares.items()], "requests")
        for w, share in shares.items():
            if not self._num_sampling[w]:
                self._last_progress[w] = time.monotonic()
            self._num_sampling[w] += len(share)
        self._keep_going()

    def collect(self, *, timeout_s: float) -> list[RolloutAnswer]:
        """Wait until requests are finished, or for `timeout_s`, and return them.

        Raises:
            DeadlineError: If a worker has finished no group for the deadline.
        """
        self._keep_going()
        if not self._finished:
            ready, _ = ray.wait(list(self._slices), num_returns=1, timeout=timeout_s)
            self._end_slices(ready)
            self._keep_going()
            self._check_progress()
        answers, self._finished = self._finished, []
        if self._can_sleep and not any(self._num_sampling):
            self._call_all([worker.sleep.remote() for worker in self.workers], "sleep")
            self._is_asleep = True
        return answers

    def pause(self) -> None:
        """Let no engine make a step until `collect` or `submit` is called next."""
        self._end_slices(list(self._slices))
        self._wake()

    def update_weights(self, weights: PublishedWeights) -> None:
        """Load a published version into every engine."""
        what = f"taking weights version {weights.version}"
        wait_each(
            [worker.update_weights.remote(weights) for worker in self.workers],
            deadline_s=self._sync_deadline_s,
            peers=[f"rollout worker {i} ({what})" for i in range(len(self.workers))],
        )

    def _wake(self) -> None:
        if self._is_asleep:
            self._call_all([worker.wake.remote() for worker in self.workers], "wake")
            self._is_asleep = False

    def _call_all(self, calls: "Sequence[ObjectRef[T]]", what: str) -> list[T]:
        return wait_all(calls, deadline_s=self._deadline_s, peer=f"rollout workers ({what})")

    def _end_slices(self, calls: "Sequence[ObjectRef[list[RolloutAnswer]]]") -> None:
        """Wait for slices and keep what they finished."""
        for call in calls:
            worker = self._slices.pop(call)
            (finished,) = wait_all(
                [call], deadline_s=self._deadline_s, peer=f"rollout worker {worker}"
            )
            self._finished += finished
            if finished:
                self._num_sampling[worker] -= len(finished)
                self._last_progress[worker] = time.monotonic()

    def _keep_going(self) -> None:
        """Give every worker that has something to sample its next slice."""
        at_work = set(self._slices.values())
        for w, worker in enumerate(self.workers):
            if self._num_sampling[w] and w not in at_work:
                self._slices[worker.advance.remote(SLICE_S)] = w

    def _check_progress(self) -> None:
        now = time.monotonic()
        for w, num_sampling in enumerate(self._num_sampling):
            if num_sampling and now - self._last_progress[w] > self._deadline_s:
                raise DeadlineError(
                    f"rollout worker {w} must finish a group within {self._deadline_s:g} s, "
                    f"got none of {num_sampling}"
                )
