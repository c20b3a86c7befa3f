"""An open file of cells, whatever its format: who they are and how to read their expression.

Left out: opening (`anndata_io.py`, `l1000_io.py`) and what the numbers mean (`values.py`).

Shape suffixes: C cells, N genes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from c2s_rl.cells.vocabulary import shown
from c2s_rl.data.h5ad_frame import Labels
from c2s_rl.data.h5ad_matrix import CsrChunk, RowMatrix, hdf5_errors
from c2s_rl.errors import DataError


@dataclass(frozen=True, eq=False)
class CellFile:
    """Cells of an open file, checked: one row a cell, one column a gene, unique ids."""

    path: Path
    place: str
    """Matrix and file, for error messages."""
    cell_ids: tuple[str, ...]
    """[C] unique."""
    var_names: tuple[str, ...]
    """[N] gene symbols, as the file or a table of the user's writes them."""
    obs: dict[str, Labels]
    """The columns asked for."""
    matrix: RowMatrix
    alternatives: tuple[str, ...] = ()
    """The other matrices of the file, as a config would name them."""
    most_rows: int | None = None
    """Rows that may be read at once where rows are long and full; None leaves it to the reader."""
    num_unnamed_genes: int = 0
    """Genes of the file that were left out, because the gene table has no symbol for them."""

    def __post_init__(self) -> None:
        """Check sizes and ids.

        Raises:
            DataError: If the matrix has another shape than names and ids say, or an id repeats.
        """
        named = (len(self.cell_ids), len(self.var_names))
        if self.matrix.shape != named:
            raise DataError(
                f"a matrix must have a row a cell and a column a gene, got {self.matrix.shape} for "
                f"{named[0]} cells and {named[1]} genes in {self.place}"
            )
        if len(set(self.cell_ids)) != len(self.cell_ids):
            repeated = [cell for cell, num in Counter(self.cell_ids).items() if num > 1]
            raise DataError(
                f"cell ids must be unique, got {shown(repeated)} more than once in {self.place}"
            )

    def rows_at_once(self, wanted: int) -> int:
        """Return how many rows a chunk has when `wanted` are asked for."""
        return wanted if self.most_rows is None else min(wanted, self.most_rows)

    def chunks(self, num_rows: int) -> Iterator[CsrChunk]:
        """Read the matrix in chunks of `rows_at_once(num_rows)` rows.

        Raises:
            DataError: If the matrix is damaged.
        """
        step = self.rows_at_once(num_rows)
        for start in range(0, len(self.cell_ids), step):
            with hdf5_errors(self.path):
                chunk = self.matrix.read_rows(start, min(start + step, len(self.cell_ids)))
            yield chunk
