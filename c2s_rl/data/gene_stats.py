"""Quality control and highly variable genes: what one pass over the cells has to count.

A cell passes by its own row alone, so it can be judged in any chunk. A gene needs all cells that
pass: `survey_chunk` counts them in integers, which add up to the same bits in any order, and
`choose_genes` decides. The order is scanpy's: `filter_cells`, then `filter_genes` on the cells
that are left, then `highly_variable_genes`. One pass is enough because cells are normalised to
their whole library (`values.py`), genes that are left out later included; scanpy gives the same
genes where `normalize_total` comes before `filter_genes`. Left out: flavor seurat_v3, whose loess
fit needs a package (scikit-misc) that is not in the environment.

Shapes: C cells, N genes of the vocabulary, Z stored entries, B batches.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from pydantic import Field

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray
from c2s_rl.config import FrozenConfig
from c2s_rl.data.cell_table import TextArray
from c2s_rl.data.h5ad_matrix import CsrChunk
from c2s_rl.data.values import ExpressionChunk, Values
from c2s_rl.errors import ConfigError, DataError
from c2s_rl.types import BoolArray, FloatArray, IntArray

# A number x is kept as two integers: floor(4 x), and the rest of 4 x in units of 2^-32. Together
# they are exact to 2^-35, a 10^-8th of the square of a single count in a cell of 100,000.
HIGH_PER_ONE = 4.0
LOW_PER_HIGH = 2.0**32
UNITS_PER_ONE = 2**34
# Above a million counts a cell (CPM). Squares then overflow only after 2 million cells of which
# one gene is all.
MAX_EXPRESSION = 2.0**20

DETECTED, VALUE_HIGH, VALUE_LOW, SQUARE_HIGH, SQUARE_LOW = range(5)


class Flavor(StrEnum):
    """Which of scanpy's rankings of variable genes."""

    SEURAT = "seurat"
    CELL_RANGER = "cell_ranger"


class QcConfig(FrozenConfig):
    """Cells and genes with too little in them; null switches a rule off."""

    min_cells_per_gene: int | None = Field(
        3, ge=1, description="Leave out genes that fewer cells express, of the cells that are kept"
    )
    min_counts_per_cell: int | None = Field(
        50, ge=1, description="Leave out cells with fewer counts over all genes of the file"
    )
    min_genes_per_cell: int | None = Field(
        None, ge=1, description="Leave out cells with fewer expressed genes of the file"
    )


class VariableGenesConfig(FrozenConfig):
    """Keep the genes that vary most between cells, as scanpy.pp.highly_variable_genes does."""

    num_genes: int = Field(5000, ge=1, description="How many; more where the last ones are equal")
    flavor: Flavor = Field(Flavor.SEURAT, description="seurat or cell_ranger")
    batch_column: str | None = Field(
        None, description="Rank within each value of this obs column, then join the rankings"
    )


@dataclass(frozen=True)
class SurveyRules:
    """What is the same for every chunk of a survey."""

    values: Values
    """What the matrix holds."""
    num_genes: int
    """N."""
    qc: QcConfig | None
    """Which cells count; None counts all."""
    variable_genes: VariableGenesConfig | None
    """What moments are needed for; None needs none."""
    log_base: float = math.e
    """Base of the logarithm of (1 + expression)."""


@dataclass(frozen=True, eq=False)
class GeneSurvey:
    """What is known of the genes of some cells; adds up exactly."""

    flavor: Flavor | None
    """What the moments are for; None where there are none."""
    num_cells_B: Mapping[str, int]
    """Batch to the cells that pass; one batch '' where batches do not matter."""
    sums_B: Mapping[str, IndexArray]
    """Batch to [5, N]: cells that express the gene, and value and square in two parts each."""
    num_failed_cells: int
    """Cells that do not pass."""

    def __add__(self, other: "GeneSurvey") -> "GeneSurvey":
        """Return the survey of the cells of both."""
        if self.flavor is not other.flavor:
            raise ValueError(f"surveys must be of one kind, got {self.flavor} and {other.flavor}")
        batches = sorted({*self.sums_B, *other.sums_B})
        return GeneSurvey(
            self.flavor,
            {b: self.num_cells_B.get(b, 0) + other.num_cells_B.get(b, 0) for b in batches},
            {b: _added(self.sums_B.get(b), other.sums_B.get(b)) for b in batches},
            self.num_failed_cells + other.num_failed_cells,
        )

    @property
    def num_cells(self) -> int:
        """Cells that pass."""
        return sum(self.num_cells_B.values())

    @property
    def num_detected(self) -> IndexArray:
        """[N] cells that express each gene, of those that pass."""
        total: IndexArray = np.sum([sums[DETECTED] for sums in self.sums_B.values()], axis=0)
        return total


def require_qc_of_values(qc: QcConfig, values: Values) -> None:
    """Refuse rules that ask for what the values do not tell.

    Raises:
        ConfigError: If counts are asked of logarithms, or expressed genes of intensities.
    """
    if qc.min_counts_per_cell is not None and values is not Values.COUNTS:
        raise ConfigError(
            "qc.min_counts_per_cell needs values: counts, "
            f"got {qc.min_counts_per_cell} with values: {values}; set it to null"
            + ("" if values is Values.LOG2 else ", or use min_genes_per_cell")
        )
    if qc.min_genes_per_cell is not None and values is Values.LOG2:
        raise ConfigError(
            "qc.min_genes_per_cell needs values of which 0 is not expressed, "
            f"got {qc.min_genes_per_cell} with values: {values}; use min_genes"
        )


def passing_cells(raw: CsrChunk, qc: QcConfig | None, values: Values) -> BoolArray:
    """Tell which cells have enough in them, as scanpy.pp.filter_cells does.

    Args:
        raw: Rows as stored: all columns of the file, those without a gene included.
        qc: The rules; None lets all cells pass.
        values: What the matrix holds.

    Returns:
        [C]

    Raises:
        ConfigError: If a rule asks for what the values do not tell.
    """
    num_cells = len(raw.indptr) - 1
    is_passing = np.ones(num_cells, dtype=np.bool_)
    if qc is None:
        return is_passing
    require_qc_of_values(qc, values)
    cell_Z = np.repeat(np.arange(num_cells), np.diff(raw.indptr))
    if qc.min_counts_per_cell is not None:
        totals = np.bincount(cell_Z, weights=raw.values, minlength=num_cells)
        is_passing &= totals >= qc.min_counts_per_cell
    if qc.min_genes_per_cell is not None:
        num_expressed = np.bincount(cell_Z[raw.values > 0], minlength=num_cells)
        is_passing &= num_expressed >= qc.min_genes_per_cell
    return is_passing


def survey_chunk(
    raw: CsrChunk,
    expression: ExpressionChunk,
    rules: SurveyRules,
    batches_C: TextArray | None = None,
) -> GeneSurvey:
    """Count the genes of the cells of one chunk that pass.

    Args:
        raw: Rows as stored.
        expression: The same rows, normalised.
        rules: What is the same for all chunks.
        batches_C: [C] batch of each cell; needed where `variable_genes` names a column.

    Raises:
        ConfigError: If a rule asks for what the values do not tell.
        DataError: If expression is too high to be summed exactly.
    """
    is_passing = passing_cells(raw, rules.qc, rules.values)
    config = rules.variable_genes
    flavor = None if config is None else config.flavor
    if config is None or config.batch_column is None or batches_C is None:
        batches_C = np.full(len(is_passing), "")
    names, batch_C = np.unique(batches_C[is_passing], return_inverse=True)
    code_C = np.full(len(is_passing), -1, dtype=np.int64)
    code_C[is_passing] = batch_C
    sums = np.zeros((len(names), 5, rules.num_genes), dtype=np.int64)
    numbers = _numbers(expression.values, flavor, rules.log_base)
    _sum_genes(expression.indptr, expression.genes, numbers, code_C, sums)
    num_cells_B = np.bincount(batch_C, minlength=len(names))
    return GeneSurvey(
        flavor,
        {str(name): int(num) for name, num in zip(names, num_cells_B, strict=True)},
        {str(name): one for name, one in zip(names, sums, strict=True)},
        int(np.count_nonzero(~is_passing)),
    )


def choose_genes(
    survey: GeneSurvey,
    qc: QcConfig | None,
    variable_genes: VariableGenesConfig | None,
    symbols: Sequence[str],
    *,
    place: str,
) -> IntArray:
    """Choose the genes to keep.

    Args:
        survey: Of all cells.
        qc: Its `min_cells_per_gene` is applied first.
        variable_genes: How many of the rest to keep; None keeps them.
        symbols: [N] names of the genes, which order equal ones.
        place: Where the cells come from, for messages.

    Returns:
        Rising vocabulary indices.

    Raises:
        DataError: If no cell or no gene is left, or the genes cannot be ranked.
    """
    if survey.num_cells == 0:
        raise DataError(
            f"quality control must leave at least one cell, got none of {survey.num_failed_cells} "
            f"in {place}; see qc"
        )
    num_detected = survey.num_detected
    least = 0 if qc is None or qc.min_cells_per_gene is None else qc.min_cells_per_gene
    kept = np.flatnonzero(num_detected >= least)
    if not len(kept):
        raise DataError(
            f"quality control must leave at least one gene, got none of {len(num_detected)} in "
            f"{least} cells or more of {place}; see qc.min_cells_per_gene"
        )
    if variable_genes is not None:
        from c2s_rl.data.variable_genes import most_variable

        kept = kept[most_variable(survey, kept, variable_genes, symbols, place=place)]
    return kept.astype(np.int32)


def exact_sums(sums: IndexArray, high: int) -> list[int]:
    """Return [N] sums in units of 1 / UNITS_PER_ONE; `high` is VALUE_HIGH or SQUARE_HIGH."""
    pairs = zip(sums[high].tolist(), sums[high + 1].tolist(), strict=True)
    return [(above << 32) + below for above, below in pairs]


def _added(ours: IndexArray | None, theirs: IndexArray | None) -> IndexArray:
    if ours is None or theirs is None:
        present = theirs if ours is None else ours
        assert present is not None
        return present
    return ours + theirs


def _numbers(values: FloatArray, flavor: Flavor | None, log_base: float) -> FloatArray:
    """Return [Z] what the moments are of: expression for seurat, its logarithm for cell_ranger."""
    if flavor is not Flavor.SEURAT:
        return values
    scaled = values if log_base == math.e else values * np.float32(math.log(log_base))
    if scaled.max(initial=0) >= math.log1p(MAX_EXPRESSION):
        raise DataError(
            f"variable genes need expression below {MAX_EXPRESSION:g}, "
            f"got exp({scaled.max():g}) - 1; are these values really logarithms?"
        )
    expression: FloatArray = np.expm1(scaled)
    return expression


@kernel
def _sum_genes(
    indptr: IndexArray, genes: IntArray, numbers: FloatArray, code_C: IndexArray, sums: IndexArray
) -> None:
    """Add the entries of each cell to the sums of its batch; cells of batch -1 are left out."""
    for cell in range(len(code_C)):
        batch = code_C[cell]
        if batch < 0:
            continue
        for entry in range(indptr[cell], indptr[cell + 1]):
            number = np.float64(numbers[entry])
            if number > 0:
                gene = genes[entry]
                sums[batch, DETECTED, gene] += 1
                for high, power in ((VALUE_HIGH, number), (SQUARE_HIGH, number * number)):
                    above = np.floor(HIGH_PER_ONE * power)
                    below = np.rint((HIGH_PER_ONE * power - above) * LOW_PER_HIGH)
                    sums[batch, high, gene] += np.int64(above)
                    sums[batch, high + 1, gene] += np.int64(below)
