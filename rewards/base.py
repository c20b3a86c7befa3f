"""What a reward is: a class with a `scope` and one method, `score`.

Shape suffixes: G completions of one prompt, B = all completions of a batch, group after group.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.types import Group, ParsedCell, PromptRecord


class RewardScope(StrEnum):
    """How much of a step one call must see."""

    GROUP = "group"
    """Whole groups; the score of a completion depends on its own group at most."""
    CONDITION = "condition"
    """All groups of the step that share a condition."""


@dataclass(frozen=True)
class RewardSample:
    """One completion beside the prompt it answers."""

    record: PromptRecord
    """Prompt, target, condition and control cell."""
    text: str
    """The completion as sampled."""
    cell: ParsedCell
    """The completion as genes."""


@dataclass(frozen=True, eq=False)
class RewardBatch:
    """What a reward is given: whole groups and the vocabulary their genes index."""

    groups: tuple[Group, ...]
    """Whole groups, in the order that the scores must keep."""
    vocabulary: Vocabulary
    """Gene symbols by index."""

    def samples(self) -> Iterator[RewardSample]:
        """Iterate over all B completions, group after group."""
        for group in self.groups:
            for completion, cell in zip(group.completions_G, group.cells_G, strict=True):
                yield RewardSample(group.record, completion.text, cell)

    def __len__(self) -> int:
        """B, the number of completions."""
        return sum(len(group.completions_G) for group in self.groups)


@dataclass(frozen=True)
class RewardResult:
    """What a reward gives back."""

    scores: tuple[float | None, ...]
    """[B] one finite score per completion in the order of `samples()`; None abstains."""
    diagnostics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Name to [B] figures that explain the scores; logged, never trained on."""


class Reward(Protocol):
    """A reward plug-in."""

    scope: RewardScope

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion of the batch; bad answers score low, they do not raise."""
