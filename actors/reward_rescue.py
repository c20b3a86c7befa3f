"""Which tries a call gets: good completions beside a bad one keep their scores.

A call that fails as a whole says nothing about whom it failed on. It is repeated on parts: groups,
then single completions, until only those that really fail are left. All tries share one deadline:
the first gets half of it and every further one a quarter of what is left, so that however many hang
the others get their turn; those in a part that hung before come last.
Pure: what makes a try is handed in. Shape suffixes: B completions of a call, group after group.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from actors.reward_messages import Cut
from rewards.base import CheckedResult, FailureKind, RewardFailure

FIRST_SHARE = 0.5
NEXT_SHARE = 0.25
# After these the process is gone: the same call again would only cost another one.
LOST = frozenset({FailureKind.DEADLINE, FailureKind.MEMORY, FailureKind.CRASHED})


@dataclass(frozen=True, eq=False)
class Try:
    """What became of one try."""

    result: CheckedResult | RewardFailure
    """Entries of the completions asked for, or why there are none."""
    seconds: float
    """What it took of the deadline."""
    can_go_on: bool = True
    """False where no further try is possible."""


MakeTry = Callable[[tuple[Cut, ...], float], Try]


class Rescue:
    """The tries of one call."""

    def __init__(
        self, sizes: Sequence[int], make_try: MakeTry, *, deadline_s: float, max_retries: int
    ) -> None:
        """Try nothing yet.

        Args:
            sizes: Completions of each group.
            make_try: Scores some cuts within some seconds.
            deadline_s: For all tries together.
            max_retries: Tries of a group after its first; the last is by single completions.
        """
        self._groups = [Cut(g, tuple(range(size))) for g, size in enumerate(sizes) if size]
        self._starts = [0, *accumulate(sizes)]
        self._make_try = make_try
        self._left_s = deadline_s
        self._share = FIRST_SHARE
        self._max_retries = max_retries
        self._can_go_on = True
        self._scores: list[float | None] = [None] * self._starts[-1]
        self._diagnostics: dict[str, list[float]] = {}
        self._failures: dict[int, RewardFailure] = {}
        self._open = set(range(self._starts[-1]))

    def by_group(self, *, is_together: bool = True) -> CheckedResult:
        """Score groups that do not depend on each other.

        Several in one call are each called alone once it failed, which counts as no retry: then
        the result is the same as if every group had come alone.

        Args:
            is_together: Make one call of all groups first.
        """
        if is_together and len(self._groups) > 1:
            self._try(self._groups)
        for number in range(max(1, self._max_retries)):
            for cut in self._groups:
                if number == 0 or not self._is_lost(cut):
                    self._try_if_open(cut)
        if self._max_retries:
            for single in _singles(self._groups):
                self._try_if_open(single)
        return self._result()

    def by_condition(self) -> CheckedResult:
        """Score groups that are compared with each other.

        Parts of them have other scores. So groups and then completions are only probed alone, for
        whether they make the plug-in fail, and all but those that do are scored together.
        """
        for _ in range(max(1, self._max_retries)):
            if self._open and not any(map(self._is_lost, self._groups)):
                self._try(self._groups)
        if self._max_retries and len(self._open) == len(self._scores):
            rest = self._without(self._culprits())
            if 0 < sum(len(cut.completions) for cut in rest) < len(self._scores):
                self._share = 1.0
                self._try(rest)
        return self._result()

    def _culprits(self) -> set[int]:
        """Completions that fail as a whole call when they are alone."""
        suspects = [cut for cut in self._groups if self._probe(cut)]
        return set(self._places(one for one in _singles(suspects) if self._probe(one)))

    def _without(self, places: set[int]) -> list[Cut]:
        kept: list[Cut] = []
        for group, completions in ((cut.group, cut.completions) for cut in self._groups):
            good = tuple(i for i in completions if self._starts[group] + i not in places)
            if good:
                kept.append(Cut(group, good))
        return kept

    def _probe(self, cut: Cut) -> bool:
        """Whether a part fails; its scores are not used."""
        made = self._made((cut,))
        if made is None or isinstance(made, CheckedResult):
            return made is None
        self._failures |= dict.fromkeys(self._places([cut]), made)
        return True

    def _try_if_open(self, cut: Cut) -> None:
        if self._open.intersection(self._places([cut])):
            self._try([cut])

    def _try(self, cuts: Sequence[Cut]) -> None:
        """Score some cuts and keep what is new."""
        made = self._made(tuple(cuts))
        places = self._places(cuts)
        if isinstance(made, RewardFailure):
            self._failures |= dict.fromkeys(self._open.intersection(places), made)
        elif made is not None:
            self._keep(made, places)

    def _made(self, cuts: tuple[Cut, ...]) -> CheckedResult | RewardFailure | None:
        """Make a try; None where no time is left for one."""
        if not cuts or not self._can_go_on or self._left_s <= 0.0:
            return None
        made = self._make_try(cuts, self._share * self._left_s)
        self._share = NEXT_SHARE
        self._left_s -= made.seconds
        self._can_go_on = made.can_go_on
        return made.result

    def _keep(self, result: CheckedResult, places: Sequence[int]) -> None:
        for i, place in enumerate(places):
            if place not in self._open:
                continue
            if i in result.failures:
                self._failures[place] = result.failures[i]
                continue
            self._open.remove(place)
            self._failures.pop(place, None)
            self._scores[place] = result.scores[i]
            for name, values in result.diagnostics.items():
                figures = self._diagnostics.setdefault(name, [math.nan] * len(self._scores))
                figures[place] = values[i]

    def _is_lost(self, cut: Cut) -> bool:
        failures = (self._failures.get(place) for place in self._places([cut]))
        return any(failure.kind in LOST for failure in failures if failure)

    def _places(self, cuts: Iterable[Cut]) -> list[int]:
        return [self._starts[cut.group] + i for cut in cuts for i in cut.completions]

    def _result(self) -> CheckedResult:
        return CheckedResult(
            tuple(self._scores),
            {name: tuple(values) for name, values in self._diagnostics.items()},
            {place: self._failures[place] for place in sorted(self._open)},
        )


def _singles(cuts: Iterable[Cut]) -> list[Cut]:
    return [Cut(cut.group, (i,)) for cut in cuts for i in cut.completions]
