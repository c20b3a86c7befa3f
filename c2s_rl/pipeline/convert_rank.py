"""One chunk of a matrix to ranked cells: check the values, normalise, rank, leave cells out.

Counts go a shorter way than other values (`rank_counts.py`), with the same result. What is left out
of the cells is counted. Reading and writing are in `convert_part.py`.

Shapes: C cells, N genes of the vocabulary, Z stored entries, Y ranked entries.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.cells import rank_counts
from c2s_rl.cells.rank import IndexArray, RankedRows, UIntArray, rank_rows
from c2s_rl.cells.rank_c2s import C2SRanker
from c2s_rl.cells.rank_model import RankSteps, RankSums
from c2s_rl.cells.vocabulary import GeneColumns
from c2s_rl.data.gene_stats import passing_cells
from c2s_rl.data.h5ad_matrix import CsrChunk
from c2s_rl.data.values import Values, normalise
from c2s_rl.pipeline.convert_config import ConvertConfig, TieBreak
from c2s_rl.types import BoolArray

# Floors are summed in units of 2^-32, so that the sum does not depend on the order of the cells.
FLOOR_UNIT = 2.0**-32


@dataclass(frozen=True)
class Dropped:
    """What was left out of some cells, or is nothing to rank."""

    empty: int = 0
    """Cells without an expressed gene."""
    failed_qc: int = 0
    """Other cells that quality control left out."""
    min_genes: int = 0
    """Other cells with fewer genes than `min_genes`."""
    genes: int = 0
    """Genes beyond `max_genes`, of cells that are kept."""
    explicit_zeros: int = 0
    """Stored entries that were 0."""
    floor_units: int = 0
    """Sum of the floors of all cells, in FLOOR_UNIT."""

    def __add__(self, other: "Dropped") -> "Dropped":
        """Return what was left out of the cells of both."""
        return Dropped(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )


@dataclass(frozen=True, eq=False)
class RankedChunk:
    """The cells of a chunk that are kept; their genes are in the room that was given."""

    is_kept: BoolArray
    """[C] cells of the chunk."""
    lengths: IndexArray
    """[kept cells] genes of each."""
    dropped: Dropped


class ChunkRanker:
    """Ranks the chunks of one file."""

    def __init__(
        self,
        config: ConvertConfig,
        values: Values,
        genes: GeneColumns,
        *,
        gene_hashes: UIntArray,
        c2s: C2SRanker | None,
    ) -> None:
        """Prepare what all chunks share.

        Args:
            config: How to rank.
            values: What the file's matrix holds.
            genes: The gene of each of its columns.
            gene_hashes: [N] `stable_hash` of each symbol.
            c2s: The state of the package's shuffling; needed where `tie_break` is c2s.
        """
        self._config = config
        self._values = values
        self._genes = genes
        self._c2s = c2s
        self._gene_hashes = gene_hashes
        self._steps = RankSteps()
        self._rules = rank_counts.CountRules(
            top_k=config.max_genes,
            min_genes=config.min_genes,
            target_sum=config.scale.target_sum,
            divisor=config.scale.log.divisor,
        )

    def rank(
        self, chunk: CsrChunk, cell_hashes: UIntArray, into: rank_counts.RankedInto
    ) -> RankedChunk:
        """Rank a chunk whose values were checked.

        Args:
            chunk: Rows as stored.
            cell_hashes: [C] `stable_hash` of the cells' ids.
            into: Takes the cells that are kept; as long as the chunk, values may be empty.
        """
        is_short = (
            self._values is Values.COUNTS
            and self._config.tie_break is TieBreak.HASH
            and not self._genes.adds_columns
            and rank_counts.fits(chunk.indptr, chunk.values)
        )
        passes = passing_cells(chunk, self._config.qc, self._values)
        way = self._rank_counts if is_short else self._rank_values
        num_genes, lengths, dropped = way(chunk, cell_hashes, passes, into)
        is_kept = passes & (num_genes >= self._config.min_genes)
        num_empty = int(np.count_nonzero(num_genes == 0))
        num_failed = int(np.count_nonzero(~passes & (num_genes > 0)))
        counted = Dropped(
            empty=num_empty,
            failed_qc=num_failed,
            min_genes=int(np.count_nonzero(~is_kept)) - num_empty - num_failed,
            genes=int((num_genes - lengths)[is_kept].sum()),
        )
        return RankedChunk(is_kept, lengths[is_kept], dropped + counted)

    @property
    def sums(self) -> RankSums:
        """Of the cells that were kept so far."""
        return self._steps.sums()

    @property
    def c2s_state(self) -> npt.NDArray[np.uint32]:
        """State of the package's shuffling; empty where it does not matter."""
        return np.zeros(0, dtype=np.uint32) if self._c2s is None else self._c2s.state

    def _rank_counts(
        self,
        chunk: CsrChunk,
        cell_hashes: UIntArray,
        passes: BoolArray,
        into: rank_counts.RankedInto,
    ) -> tuple[IndexArray, IndexArray, Dropped]:
        """Return [C] expressed genes of each cell, [C] genes that are kept, what was left out."""
        genes_Z, num_named = chunk.columns, len(chunk.columns)
        if not self._genes.is_one_to_one:
            genes_Z = self._genes.gene_of_column[genes_Z]
            num_named = int(np.count_nonzero(genes_Z >= 0))
        rows = rank_counts.CountRows(chunk.indptr, genes_Z, chunk.values, cell_hashes, passes)
        num_genes, lengths = rank_counts.rank_counts(
            rows, self._gene_hashes, self._rules, into, self._steps
        )
        return num_genes, lengths, Dropped(explicit_zeros=num_named - int(num_genes.sum()))

    def _rank_values(
        self,
        chunk: CsrChunk,
        cell_hashes: UIntArray,
        passes: BoolArray,
        into: rank_counts.RankedInto,
    ) -> tuple[IndexArray, IndexArray, Dropped]:
        """Do what `_rank_counts` does."""
        expression = normalise(chunk, self._values, self._genes, self._config.scale)
        arrays = expression.indptr, expression.genes, expression.values
        top_k = self._config.max_genes
        if self._c2s is not None:
            ranked = self._c2s.rank(*arrays, top_k=top_k)
        else:
            ranked = rank_rows(
                *arrays, cell_hashes=cell_hashes, gene_hashes=self._gene_hashes, top_k=top_k
            )
        positives = np.concatenate([[0], np.cumsum(expression.values > 0)])
        num_genes: IndexArray = np.diff(positives[expression.indptr])
        kept = _rows_of(ranked, passes & (num_genes >= self._config.min_genes))
        into.genes[: len(kept.genes)] = kept.genes
        if len(into.values):
            into.values[: len(kept.values)] = kept.values
        self._steps.add(kept.indptr, kept.values)
        floors = np.rint(expression.floors_C / FLOOR_UNIT).astype(np.int64)
        dropped = Dropped(
            explicit_zeros=int(np.count_nonzero(expression.values == 0)),
            floor_units=int(floors.sum()),
        )
        return num_genes, np.diff(ranked.indptr), dropped


def _rows_of(ranked: RankedRows, is_kept: BoolArray) -> RankedRows:
    if is_kept.all():
        return ranked
    lengths = np.diff(ranked.indptr)
    entry_is_kept = np.repeat(is_kept, lengths)
    indptr = np.cumsum([0, *lengths[is_kept]], dtype=np.int64)
    return RankedRows(indptr, ranked.genes[entry_is_kept], ranked.values[entry_is_kept])
