"""Which label a real cell and a prompt have, for rewards and metrics that classify cells.

Labels are conditions, or a column of the cells' obs. Training cells alone are labelled as examples.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from c2s_rl.data.shards import read_cells
from c2s_rl.errors import DataError
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.evaluation.populations import draw_cells
from c2s_rl.evaluation.real_cells import RealCells
from c2s_rl.types import IntArray, PromptRecord, Split


@dataclass(frozen=True, eq=False)
class CellLabels:
    """Labels of real cells by row of the cell table."""

    of_row: Mapping[int, str]
    """Row to label, for every cell that has one."""
    is_condition: bool
    """Whether labels are conditions."""
    real: RealCells
    """The cells."""

    def of_prompt(self, record: PromptRecord) -> str | None:
        """Label that an answer should have; None where nothing tells.

        Conditions label themselves. Else it is the label of the prompt's target cell, and for a
        prompt without one the most frequent among its condition's cells on its side.
        """
        if self.is_condition:
            return record.condition
        own = self.of_row.get(self.real.row_of.get(record.target_id, -1))
        if own is not None:
            return own
        rows = self.real.target_rows[record.split].get(record.condition, ())
        counts = Counter(self.of_row[row] for row in rows if row in self.of_row)
        # Ties by name, so that the order of the cells has no influence.
        return min(counts, key=lambda label: (-counts[label], label)) if counts else None


@dataclass(frozen=True, eq=False)
class Examples:
    """Labelled training cells."""

    cells: list[IntArray]
    """[C] ranked genes, not cut."""
    labels: list[str]
    """[C] label of each."""


def label_cells(material: RewardMaterial, column: str | None) -> CellLabels:
    """Label the cells that occur in prompts.

    Args:
        material: The run's cells.
        column: obs column whose entries are the labels, '' = none; None labels by condition. A
            control cell is then 'control of' all conditions whose prompts it is in.

    Raises:
        DataError: If the run has no cells or no such obs column.
    """
    real = material.reference.real
    if column is None:
        return CellLabels(_by_condition(real), is_condition=True, real=real)
    if material.cells is None:
        raise DataError(f"labels by obs column {column!r} need cell shards, got cells=None")
    named = read_cells(material.cells, [column]).obs[column].tolist()
    return CellLabels(
        {row: label for row, label in enumerate(named) if label}, is_condition=False, real=real
    )


def training_examples(labels: CellLabels, *, num_per_label: int, seed: int) -> Examples:
    """At most `num_per_label` training cells of each label, labels in alphabetical order.

    Frequent types would else be the nearest by their number alone.
    """
    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for row in labels.real.train_rows:
        if row in labels.of_row:
            rows_of[labels.of_row[row]].append(row)
    cells: list[IntArray] = []
    names: list[str] = []
    for label in sorted(rows_of):
        genes = [labels.real.cells.genes_of(row) for row in rows_of[label]]
        drawn = draw_cells(genes, num_per_label, f"label|{label}", seed)
        cells += drawn
        names += [label] * len(drawn)
    return Examples(cells, names)


def _by_condition(real: RealCells) -> dict[int, str]:
    """Training cells by the condition that they are targets of, or controls of."""
    controls: defaultdict[int, list[str]] = defaultdict(list)
    for condition, rows in sorted(real.control_rows[Split.TRAIN].items()):
        for row in rows:
            controls[row].append(condition)
    labels = {row: f"control of {' + '.join(names)}" for row, names in controls.items()}
    for condition, rows in sorted(real.target_rows[Split.TRAIN].items()):
        labels |= dict.fromkeys(rows, condition)
    return labels
