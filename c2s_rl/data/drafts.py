"""Which cells, genes and texts make a prompt, before any of it is written.

A family of tasks is one module that turns `Material` and the config into `Draft`s (cells:
`cell_drafts.py`, samples: `sample_drafts.py`, ...); `drafters.py` lists them. Every choice is keyed
by cell ids and the seed, so it does not depend on the order of the cells. Left out: wording and
targets (`record_writer.py`) and the line between training and test (`splits.py`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from c2s_rl.cells.rank import stable_hash
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.data.cell_table import TextArray
from c2s_rl.data.corpus_config import PromptLimits
from c2s_rl.data.labels import LabelledCell
from c2s_rl.data.tiers import ConditionParts
from c2s_rl.types import Split, Task

# One object for all drafts that have none: there may be many millions.
NO_WORDS: Mapping[str, str] = MappingProxyType({})
NO_LINES: Mapping[str, tuple[str, ...]] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A prompt to be written.

    The answer is the cells `answers`, or one text per cell (`answer_lines`), or `answer`.
    """

    prompt_id: str
    """Unique: task, what it is about and number of the draw."""
    task: Task
    """What is asked."""
    condition: str
    """Population that the answer belongs to, or group that results are shown by."""
    split: Split
    """Its side."""
    shown: tuple[LabelledCell, ...] = ()
    """Cells shown in the prompt, in order."""
    answers: tuple[LabelledCell, ...] = ()
    """Cells that are the answer, in order."""
    sentences: tuple[str, ...] = ()
    """Cells shown that are in no shard, as sentences; instead of `shown`."""
    words: Mapping[str, str] = field(default_factory=lambda: NO_WORDS)
    """Placeholder to its text; 'num_genes' too where it is not the length of sentences."""
    lines: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: NO_LINES)
    """Placeholder to a text per cell, to be written in numbered lines."""
    answer: str = ""
    """Text of the answer."""
    answer_lines: tuple[str, ...] = ()
    """A text per cell shown, to be written in numbered lines."""
    target_genes: tuple[int, ...] = ()
    """Vocabulary indices of an answer that is genes but no cell."""
    keywords: tuple[str, ...] = ()
    """Words that a right free-text answer names."""
    parts: ConditionParts | None = None
    """The condition taken apart, for tiers; None where it is not one of cells."""
    is_sample: bool = False
    """Cells may be left out, last first, to fit the token budget."""

    @property
    def context_id(self) -> str:
        """Id of the first cell shown, or ''."""
        return self.shown[0].cell_id if self.shown else ""

    @property
    def target_id(self) -> str:
        """Id of the first cell of the answer, or ''."""
        return self.answers[0].cell_id if self.answers else ""

    @property
    def context_ids(self) -> tuple[str, ...]:
        """Ids of all cells shown."""
        return tuple(cell.cell_id for cell in self.shown)

    @property
    def target_ids(self) -> tuple[str, ...]:
        """Ids of all cells of the answer."""
        return tuple(cell.cell_id for cell in self.answers)

    @property
    def num_cells(self) -> int:
        """Cells shown or asked for."""
        return max(len(self.shown), len(self.sentences), len(self.answers))

    def first_cells(self, num: int) -> "Draft":
        """Return the same sample of its first `num` cells only."""
        return replace(
            self,
            shown=self.shown[:num],
            answers=self.answers[:num],
            lines={name: texts[:num] for name, texts in self.lines.items()},
            answer_lines=self.answer_lines[:num],
        )


@dataclass(frozen=True, eq=False)
class Material:
    """What drafts are made of."""

    cells: tuple[LabelledCell, ...]
    """Cells that have every label, sorted by id."""
    obs: Mapping[str, TextArray]
    """Column name to a label of every cell of the source; see `value`."""
    vocabulary: Vocabulary
    """Symbols of the cells' genes."""

    def value(self, cell: LabelledCell, column: str | None) -> str:
        """Return a cell's label in an obs column; '' where missing, and for no column."""
        return "" if column is None else str(self.obs[column][cell.row])


@dataclass(frozen=True, eq=False)
class Drafted:
    """What a family made of one task."""

    drafts: Sequence[Draft]
    """Prompts to be written."""
    dropped: Counter[str]
    """Reason to number left out, of cells or prompts."""


def limit_drafts(
    drafts: Iterable[Draft], limits: PromptLimits, *, seed: int
) -> tuple[list[Draft], int]:
    """Shuffle drafts by a hash of their id and keep the first so many of each task and condition.

    Args:
        drafts: All drafts of a corpus.
        limits: Most prompts per task, condition and side.
        seed: Seed of the order; the order given has no influence.

    Returns:
        What is kept, in shuffled order, so that any first part is a fair sample; and the number
        that was left out.
    """
    most = {Split.TRAIN: limits.train, Split.TEST: limits.test}
    num: Counter[tuple[Task, str, Split]] = Counter()
    kept: list[Draft] = []
    num_dropped = 0
    for draft in sorted(drafts, key=lambda d: stable_hash(f"order|{d.prompt_id}", seed)):
        key = (draft.task, draft.condition, draft.split)
        limit = most[draft.split]
        if limit is not None and num[key] >= limit:
            num_dropped += 1
            continue
        num[key] += 1
        kept.append(draft)
    return kept, num_dropped
