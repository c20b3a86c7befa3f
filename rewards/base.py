"""What a reward is: a class with a `scope`, `Options` and one method, `score`.

Left out: checking what a plug-in gives back (`checking.py`), where it runs (`actors/reward*.py`).
Shape suffixes: G completions of one prompt, B = all completions of a batch, group after group.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Protocol

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.types import Group, ParsedCell, PromptRecord


class RewardScope(StrEnum):
    """How much of a step one call must see."""

    GROUP = "group"
    """Whole groups; the score of a completion depends on its own group at most: to the last bit it
    is the same whichever other groups are in the call. Where padding or a batched kernel makes it
    differ, `workers.max_groups: 1` gives every group a call of its own. After a failure a group may
    be cut down to one completion, which then has no siblings to be compared with."""
    CONDITION = "condition"
    """All groups of the step that share a condition; after a failure without the completions that
    caused it."""


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
    """What a reward is given: groups, the vocabulary their genes index, and real cells."""

    groups: tuple[Group, ...]
    """Whole groups, in the order that the scores must keep."""
    vocabulary: Vocabulary
    """Gene symbols by index."""
    material: RewardMaterial = field(default_factory=RewardMaterial)
    """Real cells to compare with, and where encodings are kept."""

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
    """Name to [B] figures that explain the scores, nan where there is none; logged, never trained
    on."""


class FailureKind(StrEnum):
    """What went wrong in a plug-in; none of these is ever a number."""

    RAISED = "raised"
    NOT_FINITE = "not_finite"
    """NaN or infinite."""
    NOT_A_NUMBER = "not_a_number"
    """Some other object in place of a score."""
    WRONG_LENGTH = "wrong_length"
    """Not one value per completion, or no RewardResult at all."""
    DEADLINE = "deadline"
    """Took longer than it may; its process was ended."""
    MEMORY = "memory"
    """Took more memory than it may; its process was ended."""
    CRASHED = "crashed"
    """Its process died."""


@dataclass(frozen=True)
class RewardFailure:
    """Why a completion has no score from a reward."""

    kind: FailureKind
    """What went wrong."""
    message: str
    """Rule, value and place, in one line."""

    def __str__(self) -> str:
        """Kind and message, as `ScoredGroup.failures` holds them."""
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True)
class CheckedResult:
    """What came back from a plug-in, checked: B completions in the order of the batch."""

    scores: tuple[float | None, ...]
    """[B] finite scores; None abstained or failed."""
    diagnostics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Name to [B] figures; nan where the completion failed."""
    failures: Mapping[int, RewardFailure] = field(default_factory=dict)
    """Place in the batch to what went wrong there; such a completion gets no total."""


class Reward(Protocol):
    """A reward, ready to score. `score` may be `async def`; then it is awaited."""

    scope: ClassVar[RewardScope]

    def score(self, batch: RewardBatch) -> RewardResult:
        """Score every completion of the batch; bad answers score low, they do not raise."""


class RewardPlugin(Reward, Protocol):
    """A reward's class: what `load_reward` needs to build it from YAML."""

    Options: ClassVar[type[FrozenConfig]]

    def __init__(self, options: FrozenConfig) -> None:
        """Take the validated options; files are read and models loaded here, not in `score`."""
