"""Which measured cells belong to which prompts: the material of baselines, ceiling and pictures.

Prompts name their cells by id; here the ids are found in the cell shards. Only cells that occur
in a prompt are used, so training and held-out sides are exactly those of the corpus.

Shape suffix: V vocabulary.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.cell_table import CellTable
from c2s_rl.errors import DataError
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.types import PromptRecord, Split


@dataclass(frozen=True, eq=False)
class RealCells:
    """Rows of a cell table by their part in the prompts."""

    cells: CellTable
    """Measured cells, ranked, with log1p(CP10k) values."""
    num_vocabulary: int
    """V."""
    train_rows: tuple[int, ...]
    """Every cell of a training prompt, target or control."""
    target_rows: Mapping[Split, Mapping[str, tuple[int, ...]]]
    """Side, then condition, to the rows of its target cells."""
    control_rows: Mapping[Split, Mapping[str, tuple[int, ...]]]
    """Side, then condition, to the rows of the control cells in its prompts."""
    row_of: Mapping[str, int]
    """Cell id to row."""

    def sibling_rows(self, record: PromptRecord) -> list[int]:
        """Rows of the condition's target cells on the prompt's side, without its own."""
        own = self.row_of.get(record.target_id)
        rows = self.target_rows[record.split].get(record.condition, ())
        return [row for row in rows if row != own]

    def other_rows(self, record: PromptRecord) -> list[int]:
        """Rows of the target cells of all other conditions, on either side."""
        return [
            row
            for by_condition in self.target_rows.values()
            for condition, rows in by_condition.items()
            if condition != record.condition
            for row in rows
        ]

    def mean(self, rows: Sequence[int]) -> DoubleArray:
        """Return [V] mean log1p(CP10k) of some cells; zeros when there are none."""
        total_V = np.zeros(self.num_vocabulary)
        for row in rows:
            total_V[self.cells.genes_of(row)] += self.cells.values_of(row)
        return total_V / max(len(rows), 1)


def gather_real_cells(
    records: Sequence[PromptRecord], cells: CellTable, num_vocabulary: int
) -> RealCells:
    """Find the cells of prompts.

    Args:
        records: All prompts of the corpus, both sides.
        cells: The cell shards that the corpus was made from.
        num_vocabulary: V.

    Returns:
        Rows in the order of the cell ids, so that the order of the prompts has no influence.

    Raises:
        DataError: If a prompt names a cell that the shards do not hold.
    """
    row_of = {cell_id: row for row, cell_id in enumerate(cells.cell_ids)}
    named = {cell_id for r in records for cell_id in (r.target_id, r.context_id)} - {""}
    missing = sorted(named - row_of.keys())
    if missing:
        raise DataError(f"cells of prompts must be in the cell shards, got no {shown(missing)}")
    train = [r for r in records if r.split is Split.TRAIN]
    train_ids = {cell_id for r in train for cell_id in (r.target_id, r.context_id)} - {""}
    return RealCells(
        cells=cells,
        num_vocabulary=num_vocabulary,
        train_rows=tuple(row_of[cell_id] for cell_id in sorted(train_ids)),
        target_rows=_by_condition(((r, r.target_id) for r in records), row_of),
        control_rows=_by_condition(((r, r.context_id) for r in records), row_of),
        row_of=row_of,
    )


def _by_condition(
    named: Iterable[tuple[PromptRecord, str]], row_of: Mapping[str, int]
) -> dict[Split, dict[str, tuple[int, ...]]]:
    """Rows of the named cells by side and condition, in the order of their ids."""
    ids: dict[Split, defaultdict[str, set[str]]] = {split: defaultdict(set) for split in Split}
    for record, cell_id in named:
        if cell_id:
            ids[record.split][record.condition].add(cell_id)
    return {
        split: {
            condition: tuple(row_of[cell_id] for cell_id in sorted(cells))
            for condition, cells in sorted(by_condition.items())
        }
        for split, by_condition in ids.items()
    }
