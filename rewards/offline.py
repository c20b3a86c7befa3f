"""Scoring completions that lie on disk, with the code that scored them in training.

The same plug-ins, the same `Combiner`, the same groups and real cells give the same numbers, to the
last bit. Where a reward compares all groups of a condition, that holds for synchronous runs, whose
files hold all groups of a step; an asynchronous one may have scored some of them a step earlier.

A completion that a plug-in fails on has no score here either, and is counted. Left out: retries,
deadlines and processes of their own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from c2s_rl.data.completions import TOTAL, read_completions
from c2s_rl.data.prompt_set import PromptSet
from c2s_rl.types import ScoredGroup
from rewards.composite import CompositeReward


@dataclass(frozen=True, eq=False)
class Rescored:
    """Completions with the scores they had and those they have now."""

    stored: tuple[ScoredGroup, ...]
    """As read."""
    scored: tuple[ScoredGroup, ...]
    """The same groups, scored again."""
    advantages: tuple[tuple[float, ...], ...]
    """[P][G] as read."""


@dataclass(frozen=True)
class ScoreSummary:
    """One reward over all completions, beside what the file says."""

    name: str
    """Reward key, or 'total'."""
    num_completions: int
    """All of them."""
    num_scored: int
    """With a score now; the others abstained."""
    mean: float
    """Of the scores now; nan where there is none."""
    largest_difference: float
    """Largest |now - then| where both are scores; 0.0 where there are none."""
    num_failed: int
    """Completions that the plug-in failed on now; of the total: that any of them failed on."""
    num_unmatched: int
    """Completions that have a score now and had none, or the other way round."""

    @property
    def is_exact(self) -> bool:
        """Whether every score is what it was."""
        return self.largest_difference == 0.0 and self.num_unmatched == 0


def rescore(reward: CompositeReward, files: Sequence[Path], prompts: PromptSet) -> Rescored:
    """Score files of completions, each like the step that it is.

    Args:
        reward: What to score with.
        files: What `write_completions` wrote.
        prompts: The corpus that the completions answer.

    Raises:
        DataError: If a file is broken or does not belong to the corpus.
    """
    records = {record.prompt_id: record for record in prompts.records}
    stored: list[ScoredGroup] = []
    scored: list[ScoredGroup] = []
    advantages: list[tuple[float, ...]] = []
    for path in files:
        found = read_completions(path, records, prompts.vocabulary)
        stored += found.scored
        scored += reward.score([one.group for one in found.scored], keeps_failures=True)
        advantages += found.advantages
    return Rescored(tuple(stored), tuple(scored), tuple(advantages))


def summaries(rescored: Rescored) -> list[ScoreSummary]:
    """Compare every reward, and the total, with what the files say."""
    return [
        _summary(name, _column(rescored.scored, name), _column(rescored.stored, name), failed)
        for name, failed in _failures(rescored.scored).items()
    ]


def _column(scored: Sequence[ScoredGroup], name: str) -> list[float | None]:
    """[B] scores of one reward; None throughout where it is not there."""
    columns = [
        one.rewards_G if name == TOTAL else one.components.get(name, (None,) * len(one.rewards_G))
        for one in scored
    ]
    return [score for column_G in columns for score in column_G]


def _failures(scored: Sequence[ScoredGroup]) -> dict[str, int]:
    """Completions that each reward, and any of them, failed on; all names, in order."""
    names = dict.fromkeys(name for one in scored for name in one.components)
    counts = {
        name: sum(words is not None for one in scored for words in one.failures.get(name, ()))
        for name in names
    }
    any_failed = sum(
        any(words) for one in scored for words in zip(*one.failures.values(), strict=True)
    )
    return {**counts, TOTAL: any_failed}


def _summary(
    name: str, now: Sequence[float | None], then: Sequence[float | None], num_failed: int
) -> ScoreSummary:
    pairs = list(zip(now, then, strict=True))
    scores = [score for score in now if score is not None]
    differences = [abs(n - t) for n, t in pairs if n is not None and t is not None]
    return ScoreSummary(
        name,
        num_completions=len(now),
        num_scored=len(scores),
        mean=math.fsum(scores) / len(scores) if scores else math.nan,
        largest_difference=max(differences, default=0.0),
        num_failed=num_failed,
        num_unmatched=sum((n is None) != (t is None) for n, t in pairs),
    )
