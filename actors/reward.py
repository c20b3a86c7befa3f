"""Reward worker: a Ray actor that scores groups with one plug-in, in a process beside it.

The actor runs no plug-in code: it starts the process, watches it, and takes apart what failed. Left
out: which groups are scored together (`reward_pool.py`) and what several rewards come to.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from actors.reward_messages import Cut, PluginSetup, ScoreCall, ScoreReply
from actors.reward_process import PluginProcess
from actors.reward_rescue import Rescue, Try
from c2s_rl.errors import ConfigError, StageError
from rewards.base import CheckedResult, FailureKind, RewardFailure, RewardScope
from rewards.pool_config import RewardPoolConfig


@dataclass(frozen=True, eq=False)
class HostAnswer:
    """Scores, and what they took."""

    result: CheckedResult
    """One entry a completion, group after group."""
    seconds: float
    """Wall time of the call with all its tries."""
    num_restarts: int = 0
    """Processes that had to be replaced."""
    cache_hits: int = 0
    """Encodings that were found."""
    cache_misses: int = 0
    """Encodings that had to be made."""
    warning: str = ""
    """What the user should know of the plug-in beside its failures."""


class RewardHost:
    """One worker of one reward."""

    def __init__(self, setup: PluginSetup, config: RewardPoolConfig) -> None:
        """Start the plug-in's process."""
        self._setup = setup
        self._config = config
        self._process = PluginProcess(setup, config)
        # whether scores are the same for groups together and alone; None: not seen yet
        self._can_batch: bool | None = None

    def ready(self) -> int:
        """Wait until the plug-in is loaded; returns the id of its process.

        Raises:
            ConfigError: If it cannot be built.
            StageError: If its process does not get there.
        """
        failure = self._process.ready()
        if failure is not None:
            raise StageError(failure.message)
        return self._process.pid

    def pid(self) -> int:
        """Id of the plug-in's process as it is now."""
        return self._process.pid

    def score(self, groups: Sequence[bytes], sizes: Sequence[int]) -> HostAnswer:
        """Score whole groups.

        Args:
            groups: Pickled `Group`s; only the plug-in's process reads them.
            sizes: Completions of each.
        """
        began, num_starts = time.monotonic(), self._process.num_starts
        tries = _Tries(self._process, tuple(groups), self._config)
        warning = ""
        if self._setup.scope is RewardScope.CONDITION:
            result = self._rescue(sizes, tries).by_condition()
        else:
            result = self._rescue(sizes, tries).by_group(is_together=self._can_batch is not False)
            if self._can_batch is None and len(sizes) > 1 and not result.failures:
                result, warning = self._check_batching(result, sizes, tries)
        return HostAnswer(
            result,
            time.monotonic() - began,
            self._process.num_starts - num_starts,
            tries.cache_hits,
            tries.cache_misses,
            warning,
        )

    def close(self) -> None:
        """End the plug-in's process and whatever it started."""
        self._process.close()

    def _rescue(self, sizes: Sequence[int], tries: "_Tries") -> Rescue:
        deadline_s, max_retries = self._config.deadline_s, self._config.max_retries
        return Rescue(sizes, tries.make, deadline_s=deadline_s, max_retries=max_retries)

    def _check_batching(
        self, together: CheckedResult, sizes: Sequence[int], tries: "_Tries"
    ) -> tuple[CheckedResult, str]:
        """Score the first groups that came together also alone, to the last bit.

        Who comes together is a matter of time, and a run must not depend on it. Where scores do,
        groups are scored one by one from now on.

        Returns:
            The scores of the groups alone, and what to warn of.
        """
        alone = self._rescue(sizes, tries).by_group(is_together=False)
        if alone.failures:
            return together, ""
        self._can_batch = alone.scores == together.scores
        if self._can_batch:
            return alone, ""
        pairs = zip(alone.scores, together.scores, strict=True)
        one, other = next((a, b) for a, b in pairs if a != b)
        return alone, (
            "a reward of scope 'group' must score a group alike alone and beside others, got "
            f"{one!r} and {other!r} from reward {self._setup.spec.key!r}: its groups are scored "
            "one by one; workers.max_groups: 1 says so from the start"
        )


class _Tries:
    """Makes the tries of one call on a process that may have to be replaced in between."""

    def __init__(
        self, process: PluginProcess, groups: tuple[bytes, ...], config: RewardPoolConfig
    ) -> None:
        self._process = process
        self._groups = groups
        self._sent_to = 0
        self._start_left_s = config.start_deadline_s
        self.cache_hits = 0
        self.cache_misses = 0

    def make(self, cuts: tuple[Cut, ...], deadline_s: float) -> Try:
        """Score some cuts; waiting for a new process takes nothing of the deadline."""
        began = time.monotonic()
        failure = self._wait_ready()
        self._start_left_s -= time.monotonic() - began
        if failure is not None:
            return Try(failure, 0.0, can_go_on=False)
        start = self._process.num_starts
        groups = None if start == self._sent_to else self._groups
        self._sent_to = start
        answer = self._process.call(ScoreCall(cuts, groups), deadline_s=deadline_s)
        can_go_on = self._start_left_s > 0
        if not isinstance(answer.reply, ScoreReply):
            return Try(answer.reply, answer.seconds, can_go_on)
        self.cache_hits += answer.reply.cache_hits
        self.cache_misses += answer.reply.cache_misses
        return Try(_whole(answer.reply.result), answer.seconds, can_go_on)

    def _wait_ready(self) -> RewardFailure | None:
        try:
            return self._process.ready()
        except ConfigError as error:  # it could be loaded when the run started
            return RewardFailure(FailureKind.CRASHED, f"{error}, when it was loaded again")


def _whole(result: CheckedResult) -> CheckedResult | RewardFailure:
    """A result in which the call as a whole failed as that failure."""
    kinds = set(result.failures.values())
    if len(kinds) == 1 and len(result.failures) == len(result.scores):
        return kinds.pop()
    return result
