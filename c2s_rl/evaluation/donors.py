"""What a bootstrap draws again: prompts and cells, or the donors that they come from.

Cells of one donor are alike for reasons that have nothing to do with a policy. Where donors are
known and there are several, an interval that is to hold for a new donor must draw donors.

Shape suffixes: P prompts, C cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.data.cell_table import TextArray
from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.real_cells import RealCells
from c2s_rl.types import PromptRecord

AUTO, CELL = "auto", "cell"
# Fewer donors than this give draws that repeat each other, and intervals that are far too narrow.
MIN_DONORS = 5


@dataclass(frozen=True, eq=False)
class Units:
    """What each prompt and each real cell is drawn together with."""

    units_P: tuple[str, ...]
    """[P] of each prompt: its id, or the donor of its cell."""
    labels_C: TextArray | None
    """[C] donor of every measured cell; None draws cells by themselves."""
    column: str | None
    """obs column of the donors; None draws prompts and cells."""
    note: str
    """Why, where it needs saying; '' otherwise."""

    def of_cell(self, row: int) -> str:
        """Unit of a measured cell; one without a donor is drawn by itself."""
        donor = "" if self.labels_C is None else str(self.labels_C[row])
        return donor or f"cell {row}"


def donor_column(choice: str, corpus_column: str | None, known: Sequence[str]) -> str | None:
    """Resolve the setting `bootstrap.by` to an obs column, before any cell is read.

    Args:
        choice: 'auto', 'cell' or an obs column.
        corpus_column: The corpus's donor column, which 'auto' takes.
        known: obs columns of the cell shards.

    Returns:
        The column; None to draw prompts and cells.

    Raises:
        ConfigError: If the cells have no such column.
    """
    if choice == CELL:
        return None
    if choice == AUTO:
        return corpus_column if corpus_column in known else None
    if choice not in known:
        choices = [AUTO, CELL, *known]
        raise ConfigError(unknown_name("bootstrap.by", choice, choices, "the cell shards"))
    return choice


def choose_units(
    choice: str, column: str | None, records_P: Sequence[PromptRecord], real: RealCells
) -> Units:
    """Name the unit of every prompt.

    Args:
        choice: 'auto', 'cell' or an obs column.
        column: What `donor_column` made of it; a column of the real cells' obs.
        records_P: [P] held-out prompts.
        real: Measured cells.

    Raises:
        ConfigError: If a column that was asked for by name has one donor only.
    """
    prompts = tuple(record.prompt_id for record in records_P)
    if column is None:
        return Units(prompts, None, None, "")
    labels_C = real.cells.obs[column]
    donors = []
    for record in records_P:
        row = real.row_of.get(record.target_id or record.context_id)
        donors.append("" if row is None else str(labels_C[row]))
    num = len(set(donors) - {""})
    if choice == AUTO and num < MIN_DONORS:
        note = f"by prompt and not by {column}: {num} in the held-out prompts, {MIN_DONORS} needed"
        return Units(prompts, None, None, note)
    if num < 2:
        raise ConfigError(
            f"bootstrap.by must name a column with 2 values or more in the held-out prompts, got "
            f"{num} of {column!r}"
        )
    units = tuple(donor or prompt for donor, prompt in zip(donors, prompts, strict=True))
    note = f"{num} of {column} in the held-out prompts"
    if num < MIN_DONORS:
        note += "; with so few the intervals are too narrow"
    return Units(units, labels_C, column, note)
