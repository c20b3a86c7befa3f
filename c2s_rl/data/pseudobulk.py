"""Pseudobulk: the mean expression profile of a group of cells, ranked like a cell.

The mean is over log1p(CP10k) values, zeros of unexpressed genes included. Left out: sums of raw
counts (the other usual pseudobulk), which cell shards do not keep.

Shape suffixes: C cells, N genes of the vocabulary, K expressed genes of one group.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.rank import UIntArray, rank_rows, stable_hash
from c2s_rl.data.cell_table import CellTable
from c2s_rl.types import FloatArray, IntArray

FIXED_POINT = 2**32


def mean_expression(cells: CellTable, rows: Sequence[int], num_genes: int) -> FloatArray:
    """Average the expression of some cells.

    Args:
        cells: Ranked cells with their values, log1p(CP10k).
        rows: Which cells; at least one. Their order has no influence.
        num_genes: N, size of the vocabulary.

    Returns:
        [N] mean over the cells; 0 for a gene that none of them expresses.
    """
    total = np.zeros(num_genes, dtype=np.float64)
    # Sums of floats depend on their order, so the order is taken from the ids.
    for row in sorted(rows, key=lambda row: cells.cell_ids[row]):
        total[cells.genes_of(row)] += cells.values_of(row)  # a gene stands once in a cell
    return (total / len(rows)).astype(np.float32)


def rank_pseudobulks(
    cells: CellTable,
    rows_of: Mapping[str, Sequence[int]],
    *,
    gene_hashes: UIntArray,
    seed: int,
) -> dict[str, IntArray]:
    """Rank the genes of each group's mean profile; ties break by a hash of (seed, group, gene).

    Args:
        cells: Ranked cells with their values.
        rows_of: Name of a group to the cells in it.
        gene_hashes: [N] `stable_hash` of each symbol under the same seed.
        seed: Seed of the tie-break.

    Returns:
        Name of a group to [K] all expressed genes, highest mean first.
    """
    means = {name: mean_expression(cells, rows, len(gene_hashes)) for name, rows in rows_of.items()}
    return rank_means(means, gene_hashes=gene_hashes, seed=seed)


def rank_means(
    means: Mapping[str, FloatArray], *, gene_hashes: UIntArray, seed: int
) -> dict[str, IntArray]:
    """Rank the genes of mean profiles; ties break by a hash of (seed, group, gene).

    Args:
        means: Name of a group to [N] its mean expression.
        gene_hashes: [N] `stable_hash` of each symbol under the same seed.
        seed: Seed of the tie-break.

    Returns:
        Name of a group to [K] all expressed genes, highest mean first.
    """
    ranked: dict[str, IntArray] = {}
    for name, mean_N in means.items():
        genes = np.flatnonzero(mean_N).astype(np.int32)
        ranked[name] = rank_rows(
            np.array([0, len(genes)], dtype=np.int64),
            genes,
            mean_N[genes],
            cell_hashes=np.array([stable_hash(name, seed)], dtype=np.uint64),
            gene_hashes=gene_hashes,
            top_k=None,
        ).genes
    return ranked


class MeanProfiles:
    """Means of groups of cells that arrive a part at a time, in any order.

    Sums are of integers (expression times 2^32), so their order has no influence; a group may have
    2^27 cells of expression up to 16 before they overflow.
    """

    def __init__(self, num_genes: int) -> None:
        """Start without cells; N is `num_genes`."""
        self._num_genes = num_genes
        self._sums: dict[str, npt.NDArray[np.int64]] = {}
        self._num_cells: Counter[str] = Counter()

    def add(self, cells: CellTable, groups: Sequence[str]) -> None:
        """Add cells with their values, [c] of the groups named."""
        fixed_Z = np.rint(cells.values.astype(np.float64) * FIXED_POINT).astype(np.int64)
        for cell, group in enumerate(groups):
            if group not in self._sums:
                self._sums[group] = np.zeros(self._num_genes, dtype=np.int64)
            first, last = cells.indptr[cell], cells.indptr[cell + 1]
            self._sums[group][cells.genes[first:last]] += fixed_Z[first:last]
            self._num_cells[group] += 1

    def means(self) -> dict[str, FloatArray]:
        """Return the [N] mean expression of every group."""
        return {
            group: (total / self._num_cells[group] / FIXED_POINT).astype(np.float32)
            for group, total in sorted(self._sums.items())
        }
