"""An open file of cells, whatever its format: who they are and how to read their expression.

Nothing that grows with the cells is held: ids, labels and rows are read a range at a time.
Left out: opening (`source.py`), what the numbers mean (`values.py`), and whether the ids are
unique, which is checked over all files of a conversion.

Shape suffixes: C cells, N genes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from c2s_rl.cells.vocabulary import Duplicates, GeneCase, GeneColumns, build_vocabulary
from c2s_rl.data.h5ad_matrix import CsrChunk, RowMatrix, hdf5_errors
from c2s_rl.data.symbols import SymbolReport
from c2s_rl.data.text_column import TextColumn
from c2s_rl.errors import DataError
from c2s_rl.types import BoolArray


@dataclass(frozen=True, eq=False)
class CellFile:
    """Cells of an open file, checked: one row a cell, one column a gene."""

    path: Path
    place: str
    """Matrix and file, for error messages."""
    cell_ids: TextColumn
    """[C] names of the rows."""
    var_names: tuple[str, ...]
    """[N] gene symbols, as the file or a table of the user's writes them."""
    obs: dict[str, TextColumn]
    """The columns asked for."""
    matrix: RowMatrix
    alternatives: tuple[str, ...] = ()
    """The other matrices of the file, as a config would name them."""
    most_rows: int | None = None
    """Rows that may be read at once where rows are long and full; None leaves it to the reader."""
    num_unnamed_genes: int = 0
    """Genes of the file that were left out, because the gene table has no symbol for them."""
    gene_ids: tuple[str, ...] = ()
    """[N] ids that the format gives beside the names, '' where missing; empty: it gives none."""
    is_left_out_N: BoolArray | None = None
    """[N] columns that stand for no gene, but count as expression; None: no such column."""
    symbol_report: SymbolReport | None = None
    """How the genes came by their names, where symbols were looked up."""
    num_left_out: Mapping[str, int] = field(default_factory=dict)
    """What opening left out, by what it was."""

    def __post_init__(self) -> None:
        """Check sizes.

        Raises:
            DataError: If the matrix or a column has another size than names and ids say.
        """
        named = (len(self.cell_ids), len(self.var_names))
        if self.matrix.shape != named:
            raise DataError(
                f"a matrix must have a row a cell and a column a gene, got {self.matrix.shape} for "
                f"{named[0]} cells and {named[1]} genes in {self.place}"
            )
        for name, column in self.obs.items():
            if len(column) != named[0]:
                raise DataError(
                    f"an obs column must have a label a cell, got {len(column)} of {name!r} for "
                    f"{named[0]} cells in {self.place}"
                )

    def gene_columns(self, *, gene_case: GeneCase, duplicates: Duplicates) -> GeneColumns:
        """Make the vocabulary of the columns that stand for genes.

        Raises:
            DataError: If the names cannot be one; see `build_vocabulary`.
        """
        names: Sequence[str] = self.var_names
        if self.is_left_out_N is not None:
            pairs = zip(names, self.is_left_out_N.tolist(), strict=True)
            names = [name for name, is_out in pairs if not is_out]
        columns = build_vocabulary(
            names, gene_case=gene_case, duplicates=duplicates, source=self.place
        )
        if self.is_left_out_N is None:
            return columns
        gene_of_column = np.full(len(self.var_names), -1, dtype=np.int32)
        gene_of_column[~self.is_left_out_N] = columns.gene_of_column
        return replace(columns, gene_of_column=gene_of_column)

    def rows_at_once(self, wanted: int) -> int:
        """Return how many rows a chunk has when `wanted` are asked for."""
        return wanted if self.most_rows is None else min(wanted, self.most_rows)

    def chunks(self, num_rows: int, start: int = 0, stop: int | None = None) -> Iterator[CsrChunk]:
        """Read rows start..stop-1, all by default, in chunks of `rows_at_once(num_rows)` rows.

        Raises:
            DataError: If the matrix is damaged.
        """
        end = len(self.cell_ids) if stop is None else stop
        step = self.rows_at_once(num_rows)
        for first in range(start, end, step):
            with hdf5_errors(self.path):
                chunk = self.matrix.read_rows(first, min(first + step, end))
            yield chunk
