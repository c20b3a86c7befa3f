"""Ranked cells as scGPT reads them: a token a gene, and the bin of its expression.

scGPT's own preprocessing draws at random: genes that tie in a bin edge are spread over the bins,
and a cell of more genes than fit is subsampled. A cell sentence has neither problem, for its ranks
are distinct: bins follow from the ranks alone, and the highest genes are the ones that are kept.

Shape suffixes: N genes of the data's vocabulary, K genes of one cell, T tokens of one cell.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from c2s_rl.cells.renames import shipped_renames
from c2s_rl.cells.vocabulary import Vocabulary, shown
from c2s_rl.errors import DataError
from c2s_rl.types import IntArray

logger = logging.getLogger(__name__)


class BinScope(StrEnum):
    """Which genes of a cell share out the bins, where only some genes are looked at."""

    SENTENCE = "sentence"
    """All genes of the sentence, as in scGPT's pretraining: bins first, then a part of the genes.
    A gene keeps its level in the cell."""
    SUBSET = "subset"
    """Only the genes that are looked at: their order among each other is all that counts."""


def rank_bins(num_genes: int, num_bins: int) -> IntArray:
    """Bins of the genes of one cell by rank.

    scGPT cuts the values of a cell at their quantiles j / (num_bins - 2), j = 0 .. num_bins - 2,
    and a value's bin is the number of cuts at or below it. Where values fall strictly with the
    rank (any rank model does that), the gene at place i from below lies on the quantile
    i / (K - 1), whatever the values are, so that

        bin = 1 + floor(i (num_bins - 2) / (K - 1))

    A single gene gets the highest bin, where scGPT draws one of all.

    Args:
        num_genes: K.
        num_bins: Bins with the one of zero, which no written gene gets.

    Returns:
        [K] bins in 1 .. num_bins - 1, for the highest gene first.

    Source:
        scGPT (Cui et al., Nature Methods 2024), value binning; `scgpt.preprocess.binning`.
    """
    if num_genes == 1:
        return np.array([num_bins - 1], dtype=np.int32)
    place_K = np.arange(num_genes - 1, -1, -1, dtype=np.int64)
    return (1 + place_K * (num_bins - 2) // max(num_genes - 1, 1)).astype(np.int32)


@dataclass(frozen=True, eq=False)
class CellTokens:
    """One cell as scGPT reads it, the token <cls> in front not counted."""

    genes_T: IntArray
    """[T] scGPT's rows, highest expression first."""
    bins_T: IntArray
    """[T]"""


@dataclass(frozen=True, eq=False)
class CellTokenizer:
    """Turns vocabulary indices into scGPT's tokens."""

    row_N: IntArray
    """[N] scGPT's row of each gene; -1 for a gene that it does not know."""
    is_seen_N: np.ndarray[tuple[int], np.dtype[np.bool_]]
    """[N] whether a gene is looked at."""
    scope: BinScope
    """Which genes share out the bins."""
    num_bins: int
    max_genes: int
    """Most tokens of a cell without <cls>; further, lower genes are left out."""

    def tokens(self, genes_K: IntArray) -> CellTokens:
        """Read one cell: [K] vocabulary indices, highest first; K may be 0."""
        known_K = genes_K[self.row_N[genes_K] >= 0]
        seen_K = self.is_seen_N[known_K]
        if self.scope is BinScope.SUBSET:
            known_K = known_K[seen_K]
            seen_K = np.ones(len(known_K), dtype=bool)
        bins_K = rank_bins(len(known_K), self.num_bins)
        genes_T = self.row_N[known_K[seen_K]][: self.max_genes]
        return CellTokens(genes_T, bins_K[seen_K][: self.max_genes])


def scgpt_rows(vocabulary: Vocabulary, token_ids: Mapping[str, int]) -> IntArray:
    """Look every gene of a vocabulary up in scGPT's.

    A symbol is looked up as it is written; where that fails, in upper case, unless another gene
    of the vocabulary is written so.

    Args:
        vocabulary: Genes of the data.
        token_ids: scGPT's tokens.

    Returns:
        [N] rows, -1 where scGPT does not know the gene.
    """
    rows = [
        next((token_ids[name] for name in spellings(s, vocabulary) if name in token_ids), -1)
        for s in vocabulary.symbols
    ]
    return np.array(rows, dtype=np.int32)


def spellings(symbol: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Names under which scGPT may know a gene, best first."""
    others = (*shipped_renames().other_names(symbol), symbol.upper())
    # a name of another gene of the data stands for that one
    return (symbol, *(name for name in others if vocabulary.index_of(name) is None))


def check_coverage(row_N: IntArray, wanted: IntArray, vocabulary: Vocabulary, place: str) -> int:
    """Count the genes that are looked at and known to scGPT, and tell how many are not.

    Args:
        row_N: scGPT's row of each gene.
        wanted: Indices of the genes that are looked at.
        vocabulary: Genes of the data.
        place: The folder, for the message.

    Raises:
        DataError: If scGPT knows none of them.
    """
    unknown = [vocabulary.symbols[gene] for gene in wanted.tolist() if row_N[gene] < 0]
    num_known = len(wanted) - len(unknown)
    if num_known == 0:
        raise DataError(
            f"scGPT must know a gene of those that are looked at, got none of {len(wanted)} "
            f"({shown(unknown)}) in {place}; check the organism and gene_case"
        )
    logger.info(
        "scGPT knows %d of %d genes that are looked at%s",
        num_known,
        len(wanted),
        f", not {shown(unknown)}" if unknown else "",
    )
    return num_known
