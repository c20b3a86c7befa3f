"""What the numbers of a matrix mean: refuse what cannot be expression, then bring it to one unit.

Counts become log1p(CP10k). L1000 intensities are log2 already and have a floor instead of a zero:
what is kept is the height above it, so that, as in counts, 0 is "not expressed" and has no rank of
its own. Every value is checked once, here. Choosing highly variable genes, batch correction and
other filters are left out: a cell sentence is of the cell as measured.

Shapes: C cells, N genes, Z stored entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import sparse

from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.vocabulary import GeneColumns
from c2s_rl.data.h5ad_matrix import CsrChunk, DoubleArray
from c2s_rl.data.text_column import TextColumn
from c2s_rl.errors import DataError
from c2s_rl.types import FloatArray, IntArray

MAX_LOG2 = 64.0  # above any detector's range: intensities themselves, not their logarithms
LIBRARY_SIZE = 10_000.0  # counts per cell after normalisation (C2S-Scale, section 4.2)
MAX_LOG1P = 89.0  # above log(largest float32): no logarithm of a count that exists


class Values(StrEnum):
    """What a matrix holds."""

    COUNTS = "counts"
    LOG1P = "log1p"
    LOG2 = "log2"
    """Quantile-normalised log2 intensities of a full matrix: L1000 level 3."""
    RANKS = "ranks"
    """No expression: pseudo-values of the ranks in sentences, see `c2s_io.py`."""

    @property
    def unit(self) -> str:
        """What `normalise` makes of them."""
        if self is Values.RANKS:
            return "1 - log10(rank) / log10(genes + 1)"
        return "log2 above the profile's lowest" if self is Values.LOG2 else "log1p(CP10k)"

    @property
    def limit(self) -> float:
        """What the logarithms must stay below."""
        return MAX_LOG2 if self is Values.LOG2 else MAX_LOG1P


@dataclass(frozen=True, eq=False)
class ExpressionChunk:
    """Consecutive cells in `Values.unit`, by vocabulary index."""

    indptr: IndexArray
    """[C + 1]"""
    genes: IntArray
    """[Z] vocabulary index of each entry, once a cell."""
    values: FloatArray
    """[Z] in `Values.unit`, not negative; may hold explicit zeros."""
    floors_C: DoubleArray
    """[C] log2 intensity that 0 stands for; 0 in other units."""


class ValueChecker:
    """Checks the values of one matrix, chunk by chunk, against what they are said to be."""

    def __init__(
        self,
        values: Values,
        *,
        place: str,
        alternatives: Sequence[str],
        cell_ids: TextColumn,
        var_names: Sequence[str],
    ) -> None:
        self._values = values
        self._place = place
        others = ", ".join(alternatives)
        self._hint = f"; this file also has matrix: {others}" if others else ""
        self._cell_ids = cell_ids
        self._var_names = var_names
        self._has_fraction = False
        self._has_value = False

    def check(self, chunk: CsrChunk) -> None:
        """Check one chunk.

        Raises:
            DataError: If a value is not a number, infinite, negative, or contradicts what the
                matrix is said to hold; names cell and gene.
        """
        values = chunk.values
        self._require(chunk, ~np.isnan(values), "expression must be a number")
        self._require(chunk, np.isfinite(values), "expression must be finite")
        self._require(
            chunk,
            values >= 0,
            "expression must not be negative",
            "the matrix looks scaled or centred: use raw counts or log1p values",
        )
        is_whole = values == np.rint(values)
        if self._values is Values.COUNTS:
            rule = "counts must be whole numbers"
            self._require(chunk, is_whole, rule, "if these are log1p values, set values: log1p")
        else:
            limit = self._values.limit
            rule = f"{self._values} values must be below {limit:g}"
            self._require(chunk, values < limit, rule, self._advice)
        self._has_value |= bool(np.any(values > 0))
        self._has_fraction |= not bool(np.all(is_whole))

    def finish(self) -> None:
        """Check what only the whole matrix can show.

        Raises:
            DataError: If logarithms are all whole numbers, as only counts are.
        """
        is_log = self._values in (Values.LOG1P, Values.LOG2)
        if is_log and self._has_value and not self._has_fraction:
            raise DataError(
                f"{self._values} values must not all be whole numbers, got only whole numbers in "
                f"{self._place}; {self._advice}{self._hint}"
            )

    @property
    def _advice(self) -> str:
        if self._values is Values.LOG2:
            return "if these are intensities, take log2 of them first"
        return "if these are counts, set values: counts"

    def _require(
        self, chunk: CsrChunk, is_good: npt.NDArray[np.bool_], rule: str, advice: str = ""
    ) -> None:
        if is_good.all():
            return
        entry = int(np.argmin(is_good))
        row = int(np.searchsorted(chunk.indptr, entry, side="right")) - 1
        cell = str(self._cell_ids.read(chunk.start + row, chunk.start + row + 1)[0])
        gene = self._var_names[chunk.columns[entry]]
        raise DataError(
            f"{rule}, got {chunk.values[entry]:g} at cell {cell!r}, gene {gene!r} in {self._place}"
            + (f"; {advice}" if advice else "")
            + self._hint
        )


def normalise(chunk: CsrChunk, values: Values, genes: GeneColumns) -> ExpressionChunk:
    """Turn a checked chunk into one unit by vocabulary index.

    counts:  log1p(10,000 * count / all counts of the cell), those of left-out columns included
    log1p:   as they are
    ranks:   as they are
    log2:    less the lowest value of the profile, that of left-out columns included

    Columns of the same symbol are added before the logarithm; log1p values go back through expm1.

    Args:
        chunk: Rows as stored.
        values: What the matrix holds.
        genes: The gene of each column; no two columns of log2 values or ranks are added.

    Source: C2S-Scale section 4.2 (genes at the floor of an L1000 profile share the last rank).
    """
    floors_C = np.zeros(len(chunk.indptr) - 1)
    indptr, gene_Z, kept = chunk.indptr, chunk.columns, chunk.values
    if values is Values.LOG2:
        floors_C = _floors(chunk, len(genes.gene_of_column))
        kept = kept - np.repeat(floors_C, np.diff(indptr))
    elif values is Values.COUNTS:
        kept = _cp10k(chunk)
    elif values is Values.LOG1P and genes.num_duplicate_columns:
        kept = np.expm1(kept)
    if not genes.is_one_to_one:
        indptr, gene_Z, kept = _merge_columns(replace(chunk, values=kept), genes)
    if values is Values.COUNTS or (values is Values.LOG1P and genes.num_duplicate_columns):
        kept = np.log1p(kept)
    return ExpressionChunk(indptr, gene_Z, kept.astype(np.float32), floors_C)


def _floors(chunk: CsrChunk, num_columns: int) -> DoubleArray:
    """Return [C] the lowest value of each profile; 0 where the matrix left zeros out."""
    lengths = np.diff(chunk.indptr)
    floors_C = np.zeros(len(lengths))
    has_entries = lengths > 0
    if has_entries.any():
        # An empty row ends where it starts, so the next row with entries begins its own segment.
        starts = chunk.indptr[:-1][has_entries]
        floors_C[has_entries] = np.minimum.reduceat(chunk.values, starts)
    return np.where(lengths == num_columns, floors_C, 0.0)


def _cp10k(chunk: CsrChunk) -> DoubleArray:
    """Scale each cell's counts to a sum of 10,000; exact sums, because counts are whole."""
    num_cells = len(chunk.indptr) - 1
    cell_Z = np.repeat(np.arange(num_cells), np.diff(chunk.indptr))
    totals = np.bincount(cell_Z, weights=chunk.values, minlength=num_cells)
    factors = LIBRARY_SIZE / np.where(totals > 0, totals, 1.0)  # an empty cell stays empty
    return chunk.values * factors[cell_Z]


def _merge_columns(chunk: CsrChunk, genes: GeneColumns) -> tuple[IndexArray, IntArray, DoubleArray]:
    """Add up columns of the same gene, leave out those without one: new bounds, genes, sums."""
    shape = (len(chunk.indptr) - 1, len(genes.vocabulary))
    cell_Z = np.repeat(np.arange(shape[0]), np.diff(chunk.indptr))
    gene_Z = genes.gene_of_column[chunk.columns]
    is_kept = gene_Z >= 0
    entries = (chunk.values[is_kept], (cell_Z[is_kept], gene_Z[is_kept]))
    merged = sparse.coo_array(entries, shape=shape).tocsr()
    return merged.indptr.astype(np.int64), merged.indices.astype(np.int32), merged.data
