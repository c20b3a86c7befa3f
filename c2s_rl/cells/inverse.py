"""The way back for many cells at once: words of sentences to sparse expression.

`rank_model.sentence_to_expression` is the definition for one sentence without repeats. Here the
words may repeat and may be unknown, as a model writes them, by one of two rules.

Shapes: C cells, W words of all sentences, Z genes that get a value, N genes of the vocabulary.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.rank_model import RankModel
from c2s_rl.cells.reading import UNKNOWN
from c2s_rl.types import FloatArray, IntArray


class RepeatRule(StrEnum):
    """Where a gene stands that a sentence names more than once."""

    FIRST = "first"
    """At its first place. Repeats and unknown words take no rank (`parse_cell`)."""
    MEAN = "mean"
    """At the mean of its places, rounded down; unknown words keep theirs (cell2sentence)."""


@dataclass(frozen=True, eq=False)
class ExpressionRows:
    """Sparse expression of C cells in compressed-row form."""

    indptr: IndexArray
    """[C + 1] cell i holds entries indptr[i] to indptr[i + 1]."""
    genes: IntArray
    """[Z] vocabulary indices, once a cell, in the order of the sentence."""
    values: FloatArray
    """[Z] in the unit of the rank model, above 0."""
    num_below_zero_C: IndexArray
    """[C] known genes left out because the line is not above 0 at their rank."""


def sentences_to_expression(
    indptr: IndexArray,
    words: IntArray,
    rank_model: RankModel,
    *,
    num_genes: int,
    repeats: RepeatRule,
) -> ExpressionRows:
    """Turn sentences into expression.

    Args:
        indptr: [C + 1] bounds of the sentences.
        words: [W] vocabulary index of each word, highest expression first; UNKNOWN for others.
        rank_model: The line of the data set.
        num_genes: N.
        repeats: Where a gene that is named twice stands. With `mean`, genes and values are those
            of cell2sentence 1.2.0 (`post_process_generated_cell_sentences`, then
            `reconstruct_expression_from_cell_sentence`), but for values that are not above 0.

    Returns:
        Known genes once a cell, with the value of the line at their rank.
    """
    place = first_places if repeats is RepeatRule.FIRST else _mean_places
    bounds, genes, ranks = place(indptr, words, num_genes)
    values = rank_model.expression(int(ranks.max(initial=0)))[ranks - 1]
    is_kept = values > 0
    num_kept = np.concatenate([[0], np.cumsum(is_kept)])[bounds]
    return ExpressionRows(
        num_kept, genes[is_kept], values[is_kept], np.diff(bounds) - np.diff(num_kept)
    )


@kernel
def first_places(
    indptr: IndexArray, words: IntArray, num_genes: int
) -> tuple[IndexArray, IntArray, IndexArray]:
    """Rank known genes by their first occurrence: [C + 1] bounds, [Z] genes, [Z] ranks from 1."""
    last_seen = np.full(num_genes, -1, dtype=np.int64)
    bounds = np.zeros(len(indptr), dtype=np.int64)
    genes = np.empty(len(words), dtype=np.int32)
    ranks = np.empty(len(words), dtype=np.int64)
    num = 0
    for cell in range(len(indptr) - 1):
        for entry in range(indptr[cell], indptr[cell + 1]):
            gene = words[entry]
            if gene != UNKNOWN and last_seen[gene] != cell:
                last_seen[gene] = cell
                genes[num] = gene
                ranks[num] = num - bounds[cell] + 1
                num += 1
        bounds[cell + 1] = num
    return bounds, genes[:num], ranks[:num]


@kernel
def _mean_places(
    indptr: IndexArray, words: IntArray, num_genes: int
) -> tuple[IndexArray, IntArray, IndexArray]:
    """Rank known genes at the mean of their places: bounds, genes, ranks from 1.

    Repeated genes are moved one after another, in the order of their first occurrence, each in the
    sentence as the earlier moves left it: that is what the package does.
    """
    counts = np.zeros(num_genes, dtype=np.int64)
    bounds = np.zeros(len(indptr), dtype=np.int64)
    genes = np.empty(len(words), dtype=np.int32)
    ranks = np.empty(len(words), dtype=np.int64)
    longest = 0
    for cell in range(len(indptr) - 1):
        longest = max(longest, indptr[cell + 1] - indptr[cell])
    sentence = np.empty(longest, dtype=np.int32)
    num = 0
    for cell in range(len(indptr) - 1):
        start, stop = indptr[cell], indptr[cell + 1]
        length = stop - start
        for entry in range(start, stop):
            sentence[entry - start] = words[entry]
            if words[entry] != UNKNOWN:
                counts[words[entry]] += 1
        for entry in range(start, stop):
            gene = words[entry]
            if gene != UNKNOWN and counts[gene] > 1:
                counts[gene] = 1
                length = _move_to_mean(sentence, length, gene)
        for position in range(length):
            gene = sentence[position]
            if gene != UNKNOWN:
                counts[gene] = 0
                genes[num] = gene
                ranks[num] = position + 1
                num += 1
        bounds[cell + 1] = num
    return bounds, genes[:num], ranks[:num]


@kernel
def _move_to_mean(sentence: IntArray, length: int, gene: int) -> int:
    """Take all of a gene out of a sentence and put it in once; return the new length."""
    total = 0
    kept = 0
    for position in range(length):
        if sentence[position] == gene:
            total += position
        else:
            sentence[kept] = sentence[position]
            kept += 1
    target = min(total // (length - kept), kept)
    for position in range(kept, target, -1):
        sentence[position] = sentence[position - 1]
    sentence[target] = gene
    return kept + 1
