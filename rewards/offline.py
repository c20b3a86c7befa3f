"""Scoring completions that lie on disk, with the code that scored them in training.

The same plug-ins, the same `Combiner`, the same groups and real cells give the same numbers, to the
last bit. Where a reward compares all groups of a condition, that holds for synchronous runs, whose
files hold all groups of a step; an asynchronous one may have scored some of them a step earlier.

Left out: retries and failures of single completions: here a plug-in that fails is an error.
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
        RewardError: If a plug-in fails.
    """
    records = {record.prompt_id: record for record in prompts.records}
    stored: list[ScoredGroup] = []
    scored: list[ScoredGroup] = []
    advantages: list[tuple[float, ...]] = []
    for path in files:
        found = read_completions(path, records, prompts.vocabulary)
        stored += found.scored
        scored += reward.score([one.group for one in found.scored])
        advantages += found.advantages
    return Rescored(tuple(stored), tuple(scored), tuple(advantages))


def summaries(rescored: Rescored) -> list[ScoreSummary]:
    """Compare every reward, and the total, with what the files say."""
    names = list(dict.fromkeys(name for one in rescored.scored for name in one.components))
    pairs = list(zip(rescored.scored, rescored.stored, strict=True))
    columns = {
        name: [
            (now, then)
            for new, old in pairs
            for now, then in zip(
                new.components[name],
                old.components.get(name, (None,) * len(old.rewards_G)),
                strict=True,
            )
        ]
        for name in names
    }
    columns[TOTAL] = [
        both for new, old in pairs for both in zip(new.rewards_G, old.rewards_G, strict=True)
    ]
    return [_summary(name, column) for name, column in columns.items()]


def _summary(name: str, pairs: Sequence[tuple[float | None, float | None]]) -> ScoreSummary:
    scores = [now for now, _ in pairs if now is not None]
    differences = [abs(n - t) for n, t in pairs if n is not None and t is not None]
    return ScoreSummary(
        name,
        num_completions=len(pairs),
        num_scored=len(scores),
        mean=math.fsum(scores) / len(scores) if scores else math.nan,
        largest_difference=max(differences, default=0.0),
        num_unmatched=sum((now is None) != (then is None) for now, then in pairs),
    )
