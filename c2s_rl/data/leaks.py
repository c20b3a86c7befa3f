"""The proof that nothing crosses the held-out line: one check of prompts, for every stage.

The stage `corpus` checks what it writes. Whoever reads prompts (SFT, rewards, evaluation) may check
them again from the shards alone, without knowing the rules: no cell is on both sides. Records are
taken one at a time and only names are kept, so that a corpus need not fit in memory. Left out: how
the line is drawn (`splits.py`) and leaks of texts (`qa_drafts.py`, `interaction_drafts.py`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from c2s_rl.cells.vocabulary import shown
from c2s_rl.errors import DataError
from c2s_rl.types import Split


class HasCells(Protocol):
    """What the check needs to know of a prompt: a record or its draft."""

    @property
    def split(self) -> Split:
        """Its side."""

    @property
    def condition(self) -> str:
        """Population that the answer belongs to."""

    @property
    def context_id(self) -> str:
        """The first cell shown, or ''."""

    @property
    def target_id(self) -> str:
        """The first cell of the answer, or ''."""

    @property
    def context_ids(self) -> tuple[str, ...]:
        """All cells shown."""

    @property
    def target_ids(self) -> tuple[str, ...]:
        """All cells of the answer."""


@dataclass(frozen=True)
class HeldOut:
    """What must stay out of training prompts."""

    cells: frozenset[str] = frozenset()
    """Ids of the cells that a held-out value, tier or line keeps from training."""
    conditions: frozenset[str] = frozenset()
    """Conditions that are held out as a whole."""
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Cell id to the groups (donor, spatial block) that are on one side as a whole."""


class LeakCheck:
    """Takes in prompts, then says whether training and test share what they must not."""

    def __init__(self, held_out: HeldOut | None = None) -> None:
        self._held_out = held_out or HeldOut()
        self._contexts: dict[Split, set[str]] = {split: set() for split in Split}
        self._targets: dict[Split, set[str]] = {split: set() for split in Split}
        self._train_conditions: set[str] = set()

    def add(self, record: HasCells) -> None:
        """Take in one prompt."""
        self._contexts[record.split].update((record.context_id, *record.context_ids))
        self._targets[record.split].update((record.target_id, *record.target_ids))
        if record.split is Split.TRAIN:
            self._train_conditions.add(record.condition)

    def verify(self) -> None:
        """Prove that nothing taken in so far leaks.

        Raises:
            DataError: Naming the kind of leak and the cells, groups or conditions.
        """
        contexts, targets, held_out = self._contexts, self._targets, self._held_out
        train, test = Split.TRAIN, Split.TEST
        _refuse("a context cell", contexts[train] & contexts[test])
        _refuse("a target cell", targets[train] & targets[test])
        _refuse("a target cell and a context cell", targets[train] & contexts[test])
        _refuse("a context cell and a target cell", contexts[train] & targets[test])
        _refuse("a held-out cell", (contexts[train] | targets[train]) & held_out.cells)
        _refuse("a held-out condition", self._train_conditions & held_out.conditions)
        groups = {
            split: {
                group
                for cell in contexts[split] | targets[split]
                for group in held_out.groups.get(cell, ())
            }
            for split in Split
        }
        _refuse("a group of cells", groups[train] & groups[test])


def check_leaks(records: Iterable[HasCells], held_out: HeldOut | None = None) -> None:
    """Prove that training and test prompts share neither cells, groups nor held-out conditions.

    Args:
        records: Prompts of both sides, or their drafts.
        held_out: What the rules of the split keep from training; None checks the cells alone.

    Raises:
        DataError: Naming the kind of leak and the cells, groups or conditions.
    """
    check = LeakCheck(held_out)
    for record in records:
        check.add(record)
    check.verify()


def _refuse(what: str, shared: set[str] | frozenset[str]) -> None:
    shared = shared - {""}  # '' stands for no cell
    if shared:
        raise DataError(
            f"training and test prompts must not share {what}, got {shown(sorted(shared))}"
        )
