"""What failed rewards may cost a run: completions without a score, and groups with too few.

A failure is never a number. A completion that a reward failed on has no total: it takes part in no
mean and no std, and gets advantage 0. A group with fewer than two totals left compares nothing; it
is dropped. Both are counted, each against its own budget. The loss is divided by the completions
that were planned, whatever fails.
Shape suffixes: G completions of a prompt.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

from c2s_rl.errors import BudgetError
from c2s_rl.types import ScoredGroup


def num_failed(scored: ScoredGroup) -> int:
    """Count completions without a total because a reward failed, not because all abstained."""
    is_failed_G = [any(messages) for messages in zip(*scored.failures.values(), strict=True)]
    return sum(r is None and f for r, f in zip(scored.rewards_G, is_failed_G, strict=False))


def is_failed(scored: ScoredGroup) -> bool:
    """Whether failures left a group fewer than two totals to compare."""
    return num_failed(scored) > 0 and sum(r is not None for r in scored.rewards_G) < 2


class FailureBudget:
    """Counts a run's failures and stops it when there are too many."""

    def __init__(
        self,
        *,
        max_groups: int,
        max_completions: int,
        num_groups: int = 0,
        num_completions: int = 0,
    ) -> None:
        """Go on counting.

        Args:
            max_groups: Groups that may be dropped in the whole run.
            max_completions: Completions that may fail in groups that are kept.
            num_groups: Dropped so far.
            num_completions: Failed so far in groups that were kept.
        """
        self._max_groups = max_groups
        self._max_completions = max_completions
        self.num_groups = num_groups
        self.num_completions = num_completions
        self._kinds: Counter[tuple[str, str]] = Counter()
        self._first: dict[str, str] = {}

    def keep(self, scored: Sequence[ScoredGroup], step: int) -> list[ScoredGroup]:
        """Count what failed, and return the groups that can be learned from.

        Raises:
            BudgetError: If a budget is exceeded; names reward, kind and number.
        """
        kept: list[ScoredGroup] = []
        for group in scored:
            self._note(group)
            if is_failed(group):
                self.num_groups += 1
            else:
                self.num_completions += num_failed(group)
                kept.append(group)
        if self.num_groups > self._max_groups:
            self.fail(step)
        if self.num_completions > self._max_completions:
            raise BudgetError(
                f"at most max_failed_completions={self._max_completions} completions may fail to "
                f"be scored in groups that are kept, got {self.num_completions} by step {step}: "
                f"{self._summary()}"
            )
        return kept

    def fail(self, step: int) -> NoReturn:
        """Stop the run for its groups.

        Raises:
            BudgetError: Always.
        """
        raise BudgetError(
            f"at most max_failed_groups={self._max_groups} groups may fail to be scored, and not "
            f"all of a step, got {self.num_groups} by step {step}: {self._summary()}"
        )

    def figures(self) -> dict[str, float]:
        """Failures in the whole run."""
        return {
            "failed_groups": float(self.num_groups),
            "failed_completions": float(self.num_completions),
        }

    def _note(self, scored: ScoredGroup) -> None:
        for name, messages_G in scored.failures.items():
            for message in filter(None, messages_G):
                self._kinds[name, message.partition(":")[0]] += 1
                self._first.setdefault(name, message)

    def _summary(self) -> str:
        """Reward, kind and number of completions, and each reward's first message."""
        parts = [
            f"reward {name!r} "
            + ", ".join(f"{kind} {n}" for (key, kind), n in self._kinds.items() if key == name)
            + f" (first: {first})"
            for name, first in self._first.items()
        ]
        return "; ".join(parts) or "none since the run was continued"
