"""What the numbers of a matrix mean: refuse what cannot be expression, then bring it to one unit.

Counts become log1p(CP10k), or another library size or base of the logarithm. L1000 intensities are
log2 already and have a floor instead of a zero: what is kept is the height above it, so that, as in
counts, 0 is "not expressed" and has no rank of its own. Every value is checked once, here. Choosing
genes and cells is in `gene_stats.py`; batch correction is left out: a cell sentence is of the cell
as measured.

Shapes: C cells, N genes, Z stored entries.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import sparse

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.vocabulary import GeneColumns
from c2s_rl.config import FrozenConfig
from c2s_rl.data.h5ad_matrix import CsrChunk, DoubleArray, ValueArray
from c2s_rl.data.text_column import TextColumn
from c2s_rl.errors import DataError
from c2s_rl.types import FloatArray, IntArray

MAX_LOG2 = 64.0  # above any detector's range: intensities themselves, not their logarithms
MAX_LOG1P = 89.0  # above log(largest float32): no logarithm of a count that exists


class Values(StrEnum):
    """What a matrix holds."""

    COUNTS = "counts"
    LINEAR = "linear"
    """No logarithms and no whole numbers: TPM, CPM, counts that were corrected or estimated."""
    LOG1P = "log1p"
    LOG2 = "log2"
    """Quantile-normalised log2 intensities of a full matrix: L1000 level 3."""
    RANKS = "ranks"
    """No expression: pseudo-values of the ranks in sentences, see `c2s_io.py`."""

    @property
    def limit(self) -> float:
        """What values must stay below."""
        if self.is_linear:
            return math.inf
        return MAX_LOG2 if self is Values.LOG2 else MAX_LOG1P

    @property
    def is_linear(self) -> bool:
        """Whether a cell's values are shares of its library, so that they are scaled to its sum."""
        return self in (Values.COUNTS, Values.LINEAR)


class LogBase(StrEnum):
    """Which logarithm of (1 + counts per library size)."""

    LOG1P = "log1p"
    LOG10 = "log10"

    @property
    def base(self) -> float:
        """Of the logarithm."""
        return 10.0 if self is LogBase.LOG10 else math.e

    @property
    def divisor(self) -> float:
        """What to divide natural logarithms by."""
        return math.log(10.0) if self is LogBase.LOG10 else 1.0


class Scale(FrozenConfig):
    """The unit that expression is brought to."""

    target_sum: float = Field(
        10_000.0, gt=0, allow_inf_nan=False, description="Counts of a cell after normalisation"
    )
    log: LogBase = Field(
        LogBase.LOG1P, description="log1p: ln(1 + x); log10: log10(1 + x), for spatial data"
    )

    def unit(self, values: Values) -> str:
        """Name what `normalise` makes of values."""
        if values is Values.RANKS:
            return "1 - log10(rank) / log10(genes + 1)"
        if values is Values.LOG2:
            return "log2 above the profile's lowest"
        size = "10k" if self.target_sum == 10_000 else f"{self.target_sum:.10g}"
        return f"{'log1p(' if self.log is LogBase.LOG1P else 'log10(1+'}CP{size})"


DEFAULT_SCALE = Scale()


@dataclass(frozen=True)
class ValueFlags:
    """What was met among values; what only the whole matrix can show."""

    has_value: bool = False
    """A value above 0."""
    has_fraction: bool = False
    """A value that is not whole."""

    def __or__(self, other: "ValueFlags") -> "ValueFlags":
        """Return what either has met."""
        return ValueFlags(
            self.has_value or other.has_value, self.has_fraction or other.has_fraction
        )


@dataclass(frozen=True, eq=False)
class ExpressionChunk:
    """Consecutive cells in `Scale.unit`, by vocabulary index."""

    indptr: IndexArray
    """[C + 1]"""
    genes: IntArray
    """[Z] vocabulary index of each entry, once a cell."""
    values: FloatArray
    """[Z] in `Scale.unit`, not negative; may hold explicit zeros."""
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
        self.flags = ValueFlags()

    def check(self, chunk: CsrChunk) -> None:
        """Check one chunk.

        Raises:
            DataError: If a value is not a number, infinite, negative, or contradicts what the
                matrix is said to hold; names cell and gene.
        """
        is_good, flags = _look_at(chunk.values, self._values)
        self.flags |= flags
        if not is_good:
            self._refuse(chunk)

    def _refuse(self, chunk: CsrChunk) -> None:
        """Find the value that is wrong."""
        values = chunk.values
        self._require(chunk, ~np.isnan(values), "expression must be a number")
        self._require(chunk, np.isfinite(values), "expression must be finite")
        self._require(
            chunk,
            values >= 0,
            "expression must not be negative",
            "the matrix looks scaled or centred: use raw counts or log1p values",
        )
        if self._values is Values.COUNTS:
            rule = "counts must be whole numbers"
            is_whole = values == np.rint(values)
            advice = "if these are log1p values, set values: log1p; if TPM or alike, values: linear"
            self._require(chunk, is_whole, rule, advice)
        else:
            limit = self._values.limit
            rule = f"{self._values} values must be below {limit:g}"
            self._require(chunk, values < limit, rule, self._advice)

    def finish(self, flags: ValueFlags | None = None) -> None:
        """Check what only the whole matrix can show.

        Args:
            flags: What was met in all of it; None takes what this checker met.

        Raises:
            DataError: If log1p values are all whole numbers, as only counts are. L1000 profiles may
                be rounded; what is no logarithm there is beyond `Values.limit`.
        """
        flags = self.flags if flags is None else flags
        if self._values is Values.LOG1P and flags.has_value and not flags.has_fraction:
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


def _look_at(values: ValueArray, kind: Values) -> tuple[bool, ValueFlags]:
    """Return whether all values may stand, and what is met among them, in one pass."""
    is_good, num_positive, num_fractions = _scan(values, kind.limit)
    is_good = is_good and not (kind is Values.COUNTS and num_fractions)
    return is_good, ValueFlags(num_positive > 0, num_fractions > 0)


@kernel
def _scan(values: ValueArray, limit: float) -> tuple[bool, int, int]:
    """Return whether all are in [0, limit), how many are above 0 and how many are not whole."""
    bound = values.dtype.type(limit)
    # Only counted, by index and without a branch or a flag: the compiler takes several at a time.
    num_good, num_positive, num_fractions = 0, 0, 0
    for i in range(len(values)):
        value = values[i]
        num_good += (value >= 0) & (value < bound)  # false for what is not a number
        num_positive += value > 0
        num_fractions += value != np.rint(value)
    return num_good == len(values), num_positive, num_fractions


def normalise(
    chunk: CsrChunk, values: Values, genes: GeneColumns, scale: Scale = DEFAULT_SCALE
) -> ExpressionChunk:
    """Turn a checked chunk into one unit by vocabulary index.

    counts:  log(1 + target_sum * count / all counts of the cell), left-out columns included
    linear:  the same
    log1p:   as they are, or divided by ln(10)
    ranks:   as they are
    log2:    less the lowest value of the profile, that of left-out columns included

    Columns of the same symbol are added before the logarithm; log1p values go back through expm1.

    Args:
        chunk: Rows as stored.
        values: What the matrix holds.
        genes: The gene of each column; no two columns of log2 values or ranks are added.
        scale: Library size and base of the logarithm.

    Source: C2S-Scale section 4.2 (genes at the floor of an L1000 profile share the last rank).
    """
    floors_C = np.zeros(len(chunk.indptr) - 1)
    kept: ValueArray = chunk.values.astype(np.float64, copy=False)
    is_linear = values.is_linear
    if values is Values.LOG2:
        floors_C = _floors(chunk, len(genes.gene_of_column))
        kept = kept - np.repeat(floors_C, np.diff(chunk.indptr))
    elif is_linear:
        factors_C = library_factors(chunk.indptr, kept, scale.target_sum)
        kept = kept * np.repeat(factors_C, np.diff(chunk.indptr))
    elif values is Values.LOG1P and genes.adds_columns:
        kept, is_linear = np.expm1(kept), True
    indptr, gene_Z, kept = _by_gene(replace(chunk, values=kept), genes)
    if is_linear:
        result = log_one_plus(kept, scale.log.divisor)
    else:
        divisor = scale.log.divisor if values is Values.LOG1P else 1.0
        result = (kept / divisor).astype(np.float32)
    return ExpressionChunk(indptr, gene_Z, result, floors_C)


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


@kernel
def library_factors(indptr: IndexArray, counts: ValueArray, target_sum: float) -> DoubleArray:
    """Return [C] what scales each cell's counts to `target_sum`; sums are exact: counts are whole.

    An empty cell stays empty.
    """
    factors_C = np.empty(len(indptr) - 1, dtype=np.float64)
    for cell in range(len(factors_C)):
        total = 0.0
        for entry in range(indptr[cell], indptr[cell + 1]):
            total += counts[entry]
        factors_C[cell] = target_sum / total if total > 0 else target_sum
    return factors_C


@kernel
def log_one_plus(numbers: ValueArray, divisor: float) -> FloatArray:
    """Return ln(1 + x) / divisor, rounded to 32 bits.

    A kernel, because `rank_counts` must take the same logarithm to the last bit.
    """
    logarithms = np.empty(len(numbers), dtype=np.float32)
    for i in range(len(numbers)):
        logarithms[i] = math.log1p(numbers[i]) / divisor
    return logarithms


def _by_gene(chunk: CsrChunk, genes: GeneColumns) -> tuple[IndexArray, IntArray, ValueArray]:
    """Name entries by gene: columns of the same gene added up, those without one left out."""
    if genes.is_one_to_one:
        return chunk.indptr, chunk.columns, chunk.values
    num_cells = len(chunk.indptr) - 1
    cell_Z = np.repeat(np.arange(num_cells), np.diff(chunk.indptr))
    gene_Z = genes.gene_of_column[chunk.columns]
    is_kept = gene_Z >= 0
    if not genes.adds_columns:
        lengths = np.bincount(cell_Z[is_kept], minlength=num_cells)
        indptr = np.cumsum([0, *lengths], dtype=np.int64)
        return indptr, gene_Z[is_kept], chunk.values[is_kept]
    entries = (chunk.values[is_kept], (cell_Z[is_kept], gene_Z[is_kept]))
    shape = (num_cells, len(genes.vocabulary))
    merged = sparse.coo_array(entries, shape=shape).tocsr()
    return merged.indptr.astype(np.int64), merged.indices.astype(np.int32), merged.data
