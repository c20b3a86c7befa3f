"""What each cell is (type, perturbation, donor, control or not) and on which side it stands.

Left out: what is made of the cells (`drafts.py`) and how the line is drawn (`splits.py`).

Shape suffix: C cells.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from c2s_rl.cells.rank import IndexArray
from c2s_rl.data.cell_source import CellLabels
from c2s_rl.data.cell_table import TextArray
from c2s_rl.data.corpus_config import CorpusConfig
from c2s_rl.data.leaks import HeldOut
from c2s_rl.data.splits import CellSplit, require_value, split_cells
from c2s_rl.data.tiers import ConditionParts
from c2s_rl.errors import DataError
from c2s_rl.types import Split


@dataclass(frozen=True, slots=True)
class LabelledCell:
    """What drafting needs to know of one cell."""

    row: int
    """Its place in the cell table."""
    cell_id: str
    """Unique id."""
    cell_type: str
    """Its label."""
    perturbation: str
    """Value of the condition column; '' without one."""
    donor: str
    """Value of the donor column; '' without one."""
    split: Split
    """Its side."""
    is_control: bool
    """Untreated; True for all cells without a condition column."""
    exposure: str = ""
    """Value of the exposure column; '' without one, and for controls."""
    match: tuple[str, ...] = ()
    """Values of the columns of control_match, which its control shares."""

    @property
    def condition(self) -> str:
        """Name of the population it belongs to: 'CD14 Mono | IFN-beta | acute'; '' parts left out.

        A cell type alone where there are no perturbations.
        """
        return self.parts.name

    @property
    def treatment(self) -> str:
        """What a prompt says that the cell is exposed to: 'IFN-beta', or 'IFN-beta, acute'."""
        return f"{self.perturbation}, {self.exposure}" if self.exposure else self.perturbation

    @property
    def parts(self) -> ConditionParts:
        """Its condition, taken apart."""
        return _condition_parts(self.cell_type, self.perturbation, self.exposure)


@cache
def _condition_parts(cell_type: str, perturbation: str, exposure: str) -> ConditionParts:
    """Make the parts once for all cells of a condition: there are few of those, and many cells."""
    name = " | ".join(part for part in (cell_type, perturbation, exposure) if part)
    return ConditionParts(cell_type, perturbation, exposure, name)


@dataclass(frozen=True)
class LabelledCells:
    """The cells of a corpus and what must stay out of training."""

    cells: tuple[LabelledCell, ...]
    """Cells that have every label, in the order of the table."""
    held_out: HeldOut
    """What the leak check keeps from training."""
    tier_names: Mapping[str, str]
    """Condition to the name of its tier, where the config gives one; the first that holds it."""
    dropped: Counter[str]
    """Cells left out: 'no_label', 'in_buffer' (of a tested spatial block)."""


def label_cells(table: CellLabels, config: CorpusConfig) -> LabelledCells:
    """Read the labels of all cells and draw the held-out line through them.

    Cells that lack a label (type, condition, donor, split group; exposure, unless they are
    controls) are left out.

    Args:
        table: Ids and the obs columns that `config` names.
        config: Columns, control value and split rules.

    Raises:
        DataError: If no cell has all labels, or a control or held-out value does not occur.
    """
    rows = _labelled_rows(table, config)
    obs = {column: table.obs[column][rows] for column in config.obs_columns}
    if config.condition_column is not None and config.control is not None:
        what = f"the control value of {config.condition_column}"
        require_value(obs[config.condition_column], config.control, what)
    ids = [table.cell_ids[row] for row in rows]
    split = split_cells(ids, obs, config.split, seed=config.seed, labels=config.labels)
    cells = _label(rows.tolist(), ids, obs, config, split)
    tier_names: dict[str, str] = {}
    for tier in split.tiers:
        for i in np.flatnonzero(tier.is_in_C):
            if tier.name is not None:
                tier_names.setdefault(cells[i].condition, tier.name)
    kept = np.flatnonzero(~split.is_left_out_C).tolist()
    return LabelledCells(
        cells=tuple(cells[i] for i in kept),
        held_out=_held_out(cells, split),
        tier_names=tier_names,
        dropped=Counter(no_label=len(table.cell_ids) - len(rows), in_buffer=len(rows) - len(kept)),
    )


def _labelled_rows(table: CellLabels, config: CorpusConfig) -> IndexArray:
    """Return the rows of the cells that have every label."""
    lines = config.split.per_perturbation
    named = (config.cell_type_column, config.condition_column, config.donor_column)
    grouping = (config.split.group_column, None if lines is None else lines.column)
    needed = [column for column in (*named, *grouping) if column is not None]
    has_all_C = np.logical_and.reduce([table.obs[column] != "" for column in needed])
    if config.exposure_column is not None and config.condition_column is not None:
        is_untreated_C = table.obs[config.condition_column] == config.control
        has_all_C &= is_untreated_C | (table.obs[config.exposure_column] != "")
    rows = np.flatnonzero(has_all_C)
    if not len(rows):
        raise DataError(f"cells must have labels, got none with all of {needed}")
    return rows


def _held_out(cells: Sequence[LabelledCell], split: CellSplit) -> HeldOut:
    conditions = {cells[i].condition for i in np.flatnonzero(split.is_condition_held_out_C)}
    groups = {
        cell.cell_id: names
        for cell, *of_cell in zip(cells, *(group.tolist() for group in split.groups), strict=True)
        if (names := tuple(name for name in of_cell if name))
    }
    held_out = (cells[i].cell_id for i in np.flatnonzero(split.is_held_out_C))
    return HeldOut(frozenset(held_out), frozenset(conditions), groups)


def _label(
    rows: Sequence[int],
    ids: Sequence[str],
    obs: Mapping[str, TextArray],
    config: CorpusConfig,
    split: CellSplit,
) -> tuple[LabelledCell, ...]:
    named = (*config.label_columns, config.donor_column, *config.control_match)
    labels = {column: _shared(obs[column]) for column in named if column is not None}
    blank = [""] * len(rows)
    perturbations = labels.get(config.condition_column or "", blank)
    exposures = labels.get(config.exposure_column or "", blank)
    donors = labels.get(config.donor_column or "", blank)
    cell_types = labels[config.cell_type_column]
    matched = [labels[column] for column in config.control_match]
    is_control_C = [config.control is None or value == config.control for value in perturbations]
    return tuple(
        LabelledCell(
            row=row,
            cell_id=ids[i],
            cell_type=cell_types[i],
            perturbation=perturbations[i],
            donor=donors[i],
            split=Split.TEST if split.is_test_C[i] else Split.TRAIN,
            is_control=is_control_C[i],
            exposure="" if is_control_C[i] else exposures[i],
            match=tuple(column[i] for column in matched),
        )
        for i, row in enumerate(rows)
    )


def _shared(column_C: TextArray) -> list[str]:
    """List the labels with one string object for all cells of a label: memory, not looks."""
    names, inverse_C = np.unique(column_C, return_inverse=True)
    known: list[str] = names.tolist()
    return [known[i] for i in inverse_C.tolist()]
