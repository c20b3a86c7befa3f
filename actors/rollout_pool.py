"""Several vLLM actors behind the role `RolloutWorker`.

Requests are dealt out by position, so that results depend on the number of workers and on nothing
else. Engines run in slices: a worker answers as soon as a group is finished, or when its slice is
over, and what was sent to it meanwhile (requests, weights) gets in between two slices.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

import ray
from ray import ObjectRef
from ray.actor import ActorHandle

from actors.calls import wait_all, wait_each
from c2s_rl.errors import DeadlineError
from c2s_rl.grpo.roles import PublishedWeights, RolloutAnswer, RolloutRequest
from c2s_rl.types import Group

# Longest wait of new weights or requests for an engine that is at work.
SLICE_S = 0.2


class RolloutPool:
    """Fills `RolloutWorker` with one or more vLLM actors."""

    def __init__(
        self, workers: Sequence[ActorHandle], *, deadline_s: float, sync_deadline_s: float
    ) -> None:
        """Take the workers.

        Args:
            workers: With their engines up.
            deadline_s: Longest time in which a worker finishes no group.
            sync_deadline_s: Longest time for taking new weights.
        """
        self._workers = list(workers)
        self._deadline_s = deadline_s
        self._sync_deadline_s = sync_deadline_s
        self._num_sampling = [0] * len(self._workers)
        self._last_progress = [0.0] * len(self._workers)
        self._slices: dict[ObjectRef[list[RolloutAnswer]], int] = {}

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
        num_workers = len(self._workers)
        shares = {w: list(requests[w::num_workers]) for w in range(min(num_workers, len(requests)))}
        wait_all(
            [self._workers[w].submit.remote(share) for w, share in shares.items()],
            deadline_s=self._deadline_s,
            peer="rollout workers (requests)",
        )
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
        ready, _ = ray.wait(list(self._slices), num_returns=1, timeout=timeout_s)
        answers: list[RolloutAnswer] = []
        for call in ready:
            worker = self._slices.pop(call)
            (finished,) = wait_all(
                [call], deadline_s=self._deadline_s, peer=f"rollout worker {worker}"
            )
            answers += finished
            if finished:
                self._num_sampling[worker] -= len(finished)
                self._last_progress[worker] = time.monotonic()
        self._keep_going()
        self._check_progress()
        return answers

    def update_weights(self, weights: PublishedWeights) -> None:
        """Load a published version into every engine."""
        what = f"taking weights version {weights.version}"
        wait_each(
            [worker.update_weights.remote(weights) for worker in self._workers],
            deadline_s=self._sync_deadline_s,
            peers=[f"rollout worker {i} ({what})" for i in range(len(self._workers))],
        )

    def _keep_going(self) -> None:
        """Give every worker that has something to sample its next slice."""
        at_work = set(self._slices.values())
        for w, worker in enumerate(self._workers):
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
