"""An open file of cells, whatever its format: who they are and how to read their expression.

Nothing that grows with the cells is held: ids, labels and rows are read a range at a time.
Left out: opening (`source.py`), what the numbers mean (`values.py`), and whether the ids are
unique, which is checked over all files of a conversion.

Shape suffixes: C cells, N genes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from c2s_rl.data.h5ad_matrix import CsrChunk, RowMatrix, hdf5_errors
from c2s_rl.data.text_column import TextColumn
from c2s_rl.errors import DataError


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
