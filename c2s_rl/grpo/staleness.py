"""Which prompts are under way, and how far their samples may lag behind the policy.

Pure bookkeeping of positions in the prompt stream: nothing here samples, waits or knows a clock. A
group's staleness is the number of optimiser steps between the oldest weights that sampled a token
of it and the weights that learn from it. Synchronous training is the case of staleness 0.
Shape suffixes: P prompts of a step.
"""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field

from c2s_rl.config import FrozenConfig


class Mode(StrEnum):
    """When completions are sampled."""

    SYNC = "sync"
    """By the weights of the step that learns from them."""
    ASYNC = "async"
    """Ahead of the learner, by weights that may be a few steps old."""


class OnExcess(StrEnum):
    """How the bound on staleness is kept."""

    WAIT = "wait"
    """The learner takes prompts in the order they were started and waits for slow ones."""
    DROP = "drop"
    """The learner takes what is there; what arrives too late is dropped and sampled again."""


class OnSync(StrEnum):
    """What becomes of groups that are being sampled when new weights are there."""

    FINISH = "finish"
    """They are finished first, and nothing new is started until then."""
    KEEP = "keep"
    """The weights change between two of their tokens."""


class StalenessConfig(FrozenConfig):
    """How far rollout may run ahead of the learner."""

    max_versions: int = Field(
        1, ge=1, description="Optimiser steps by which a group may lag; also steps sampled ahead"
    )
    on_excess: OnExcess = Field(
        OnExcess.WAIT,
        description="wait: learn in the order of starting; drop: learn in the order of arrival, "
        "and sample again what comes too late",
    )
    on_sync: OnSync = Field(
        OnSync.KEEP,
        description="finish: groups under way end under the former weights before new ones are "
        "loaded; keep: weights change while they are sampled",
    )


@dataclass(frozen=True)
class Cursor:
    """How much of the prompt stream has been used: what a checkpoint has to keep."""

    base: int = 0
    """Every position below it has been used."""
    ahead: tuple[int, ...] = ()
    """Positions above it that have been used as well, ascending; only with `OnExcess.DROP`."""


@dataclass(frozen=True)
class Start:
    """A prompt that may be sampled now."""

    position: int
    """In the prompt stream."""
    attempt: int = 0
    """How often it was sampled before and dropped."""


class Ledger:
    """Positions of the prompt stream from their start to their use."""

    def __init__(
        self,
        *,
        max_versions: int,
        on_excess: OnExcess,
        per_step: int,
        total: int,
        cursor: Cursor = Cursor(),
    ) -> None:
        """Go on from a cursor; what was under way before is started again.

        Args:
            max_versions: Largest staleness that is learned from.
            on_excess: How that is kept.
            per_step: P.
            total: Length of the stream: positions of the whole run.
            cursor: What has been used.
        """
        self._max_versions = max_versions
        self._on_excess = on_excess
        self._per_step = per_step
        self._total = total
        self._base = self._next = cursor.base
        self._ahead = set(cursor.ahead)
        self._attempts: dict[int, int] = {}
        self._arrived: dict[int, int] = {}

    @property
    def cursor(self) -> Cursor:
        """What has been used so far."""
        return Cursor(self._base, tuple(sorted(self._ahead)))

    @property
    def num_outstanding(self) -> int:
        """Positions that were started and not used yet."""
        return len(self._attempts)

    def admit(self, *, lead: int) -> list[Start]:
        """Start so much that the coming step and `lead` further ones are under way.

        Called as a step begins, with the weights of that step loaded or about to be: then position
        p is started no earlier than lead steps before step p // P, which bounds its staleness.
        """
        starts: list[Start] = []
        while len(self._attempts) < (1 + lead) * self._per_step and self._next < self._total:
            if self._next not in self._ahead:
                self._attempts[self._next] = 0
                starts.append(Start(self._next))
            self._next += 1
        return starts

    def arrive(self, position: int, version: int) -> None:
        """Note that a group is sampled and scored.

        Args:
            position: As started.
            version: Optimiser steps behind the oldest weights that sampled a token of it.

        Raises:
            ValueError: If the position is not under way.
        """
        if position not in self._attempts or position in self._arrived:
            raise ValueError(f"a group that arrives must be under way, got position {position}")
        self._arrived[position] = version

    def drop(self, *, step: int) -> list[Start]:
        """Forget groups that are too stale for a step; returns them to be started again.

        Raises:
            ValueError: If there is one although learning in order should have prevented it.
        """
        oldest = step - self._max_versions
        stale = [position for position, version in self._arrived.items() if version < oldest]
        if stale and self._on_excess is OnExcess.WAIT:
            raise ValueError(
                f"groups learned from at step {step} must be sampled by version {oldest} or "
                f"later, got version {self._arrived[stale[0]]} at position {stale[0]}"
            )
        for position in stale:
            del self._arrived[position]
            self._attempts[position] += 1
        return [Start(position, self._attempts[position]) for position in stale]

    def take(self, *, limit: int) -> list[int]:
        """Use what may be learned from now; none if the learner has to wait.

        Args:
            limit: Most positions that are taken.

        Returns:
            Positions, in the order of starting (`WAIT`) or of arrival (`DROP`).
        """
        taken: list[int] = []
        if self._on_excess is OnExcess.WAIT:
            while self._base in self._arrived and len(taken) < limit:
                taken.append(self._base)
                self._use(self._base)
        else:
            taken = list(self._arrived)[:limit]
            for position in taken:
                self._use(position)
        return taken

    def _use(self, position: int) -> None:
        del self._arrived[position], self._attempts[position]
        self._ahead.add(position)
        while self._base in self._ahead:
            self._ahead.remove(self._base)
            self._base += 1
