"""Sampling and scoring in the background: requests go in, scored groups come out as they finish.

One thread talks to the rollout workers, and as many as the reward workers can use to those; the
loop that uses the stream is the only one that talks to the learner. Streaming or not changes when a
group is scored, never what is sampled or how it is scored: every call of the reward holds one
group, or all groups of one condition that were submitted together where the reward asks for it.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from c2s_rl.grpo.roles import (
    PublishedWeights,
    RewardWorker,
    RolloutAnswer,
    RolloutRequest,
    RolloutWorker,
)
from c2s_rl.pipeline.timeline import Timeline
from c2s_rl.types import Group, ScoredGroup

# How soon a new command reaches the engines while nothing finishes; also how soon a stop does.
POLL_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """What became of one request."""

    ticket: int
    """Of the request."""
    group: Group
    """As sampled."""
    scored: ScoredGroup
    """With rewards, and with what failed after retries."""

    @property
    def version(self) -> int:
        """The oldest policy version that sampled a token of it."""
        return min(completion.policy_version for completion in self.group.completions_G)


@dataclass
class _Bundle:
    """Groups that are scored in one call, in the order of their requests."""

    tickets: tuple[int, ...]
    groups: dict[int, Group] = field(default_factory=dict)

    def is_whole(self) -> bool:
        """All of them have been sampled."""
        return len(self.groups) == len(self.tickets)


@dataclass(frozen=True)
class _Update:
    """Command to load weights."""

    publish: Callable[[], PublishedWeights]
    """Gives them out."""
    should_wait: bool
    """What is being sampled is finished under the former weights first."""
    is_done: threading.Event = field(default_factory=threading.Event)
    """Set when every engine has them."""


_Command = _Update | tuple[RolloutRequest, ...]


class GroupStream:
    """Samples and scores side by side; use it as a context manager. Obeys commands in order."""

    def __init__(
        self,
        rollout: RolloutWorker,
        reward: RewardWorker,
        timeline: Timeline,
        *,
        is_streaming: bool,
    ) -> None:
        """Take the workers.

        Args:
            rollout: From now on used by the stream alone.
            reward: Likewise.
            timeline: Where the phases 'rollout' and 'reward' are counted.
            is_streaming: Score a group once it is sampled; otherwise once nothing is being sampled.
        """
        self._rollout = rollout
        self._reward = reward
        self._timeline = timeline
        self._is_streaming = is_streaming
        self._commands: queue.Queue[_Command] = queue.Queue()
        self._outcomes: queue.Queue[list[Outcome] | BaseException] = queue.Queue()
        self._failure: BaseException | None = None
        self._should_stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="group-stream", daemon=True)
        self._scorers = ThreadPoolExecutor(reward.max_calls, thread_name_prefix="reward")
        self._bundles: dict[int, _Bundle] = {}
        self._unscored: list[_Bundle] = []
        self._num_sampling = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Calls under way end with their workers, which are not ours to end: no waiting for them.
        self._should_stop.set()
        self._scorers.shutdown(wait=False, cancel_futures=True)
        self._thread.join(timeout=2 * POLL_S)

    def reward_figures(self) -> dict[str, float]:
        """What the reward workers did since the last call."""
        return self._reward.figures()

    def submit(self, requests: Sequence[RolloutRequest]) -> None:
        """Have one group a request sampled and scored."""
        if requests:
            self._commands.put(tuple(requests))

    def update(self, publish: Callable[[], PublishedWeights], *, should_wait: bool) -> None:
        """Have the engines load weights; returns when they have, so before the next `submit`.

        Args:
            publish: Called in between two tokens, for some transports write into the engines; on
                another thread, while the caller waits.
            should_wait: Let what is being sampled be finished under the former weights first;
                otherwise it goes on under the new ones.

        Raises:
            C2SError: Whatever stopped the workers or the publication.
        """
        update = _Update(publish, should_wait)
        self._commands.put(update)
        # no deadline of its own: the thread obeys, or is stopped by the deadline of a worker
        while not update.is_done.wait(POLL_S):
            if self._failure is not None:
                raise self._failure

    def take(self) -> list[Outcome]:
        """Wait for the next outcomes, at least one, in the order of finishing.

        Raises:
            C2SError: Whatever stopped the workers.
        """
        taken: list[Outcome] = []
        while not taken or not self._outcomes.empty():
            item = self._outcomes.get()
            if isinstance(item, BaseException):
                raise item
            taken += item
        return taken

    def _run(self) -> None:
        held: _Command | None = None
        try:
            while not self._should_stop.is_set():
                held = held or self._next_command()
                if held is not None and self._obey(held):
                    held = None
                elif self._num_sampling:
                    for answer in self._rollout.collect(timeout_s=POLL_S):
                        self._sampled(answer)
        except BaseException as error:  # noqa: BLE001 raised again where the outcomes are taken
            self._failure = error
            self._outcomes.put(error)

    def _next_command(self) -> _Command | None:
        try:
            return self._commands.get(block=not self._num_sampling, timeout=POLL_S)
        except queue.Empty:
            return None

    def _obey(self, command: _Command) -> bool:
        """Do what the command says; False if it has to wait."""
        if isinstance(command, _Update):
            if command.should_wait and self._num_sampling:
                return False
            self._rollout.pause()
            self._rollout.update_weights(command.publish())
            command.is_done.set()
            return True
        for tickets in self._calls(command):
            bundle = _Bundle(tickets)
            self._bundles |= dict.fromkeys(tickets, bundle)
        if not self._num_sampling:
            self._timeline.enter("rollout")
        self._num_sampling += len(command)
        self._rollout.submit(command)
        return True

    def _calls(self, requests: Sequence[RolloutRequest]) -> list[tuple[int, ...]]:
        """Tickets of the groups that the reward is given together."""
        if not self._reward.is_per_condition:
            return [(request.ticket,) for request in requests]
        by_condition: dict[str, list[int]] = {}
        for request in requests:
            by_condition.setdefault(request.record.condition, []).append(request.ticket)
        return [tuple(tickets) for tickets in by_condition.values()]

    def _sampled(self, answer: RolloutAnswer) -> None:
        self._num_sampling -= 1
        if not self._num_sampling:
            self._timeline.leave("rollout")
        bundle = self._bundles.pop(answer.ticket)
        bundle.groups[answer.ticket] = answer.group
        if bundle.is_whole():
            self._unscored.append(bundle)
        if self._is_streaming or not self._num_sampling:
            for whole in self._unscored:
                self._scorers.submit(self._score, whole)
            self._unscored = []

    def _score(self, bundle: _Bundle) -> None:
        groups = [bundle.groups[ticket] for ticket in bundle.tickets]
        try:
            with self._timeline.phase("reward"):
                results = self._reward.score(groups)
        except BaseException as error:  # noqa: BLE001 raised again where the outcomes are taken
            self._outcomes.put(error)
        else:
            parts = zip(bundle.tickets, groups, results, strict=True)
            self._outcomes.put([Outcome(*part) for part in parts])
