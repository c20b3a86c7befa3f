"""Reading generated text as a cell sentence, once, for every reward and metric.

A repeated gene or an invented word is counted and earns nothing. Nothing is corrected: no case
folding, no nearest symbol, because a policy would learn to lean on the correction.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.reading import TEXTS_AT_ONCE, UNKNOWN, WordTable, reader_of
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.types import IntArray, ParsedCell


def parse_cell(text: str, vocabulary: Vocabulary, *, is_truncated: bool) -> ParsedCell:
    """Read a completion as gene symbols separated by white space.

    Args:
        text: The completion; one full stop at its end is not part of the last symbol.
        vocabulary: The symbols that count as genes, in the exact case of the prompts.
        is_truncated: The sampler stopped at its length limit. A last word that is then not a
            symbol, and is not followed by white space, was cut: it is left out of every count.

    Returns:
        Known genes in the order of their first occurrence, with the counts of repeats and of
        unknown words.
    """
    words = text.split()
    if words and words[-1].endswith(".") and vocabulary.index_of(words[-1]) is None:
        words[-1] = words[-1][:-1]
        words = [word for word in words if word]  # "A B ." ends with a full stop of its own
    if is_truncated and words and not text[-1].isspace() and not _is_known(words[-1], vocabulary):
        words.pop()
    genes: dict[int, None] = {}
    unknown: list[str] = []
    for word in words:
        index = vocabulary.index_of(word)
        if index is None:
            unknown.append(word)
        else:
            genes[index] = None
    return ParsedCell(
        genes_K=np.fromiter(genes, dtype=np.int32, count=len(genes)),
        num_words=len(words),
        num_duplicates=len(words) - len(unknown) - len(genes),
        unknown=tuple(unknown),
        is_truncated=is_truncated,
    )


def parse_cells(
    texts: Sequence[str], vocabulary: Vocabulary, *, is_truncated_C: Sequence[bool]
) -> list[ParsedCell]:
    """Read many completions; equal to `parse_cell` text by text, and about four times as fast.

    Args:
        texts: [C] completions.
        vocabulary: The symbols that count as genes; its hash table is made on the first call.
        is_truncated_C: [C] whether the sampler stopped at its length limit.

    Raises:
        ValueError: If the two differ in number.
    """
    if len(texts) != len(is_truncated_C):
        raise ValueError(
            "every text must say whether it is truncated, "
            f"got {len(texts)} texts and {len(is_truncated_C)} flags"
        )
    reader, size = reader_of(vocabulary), TEXTS_AT_ONCE
    cells: list[ParsedCell] = []
    for start in range(0, len(texts), size):
        flags = is_truncated_C[start : start + size]
        table = reader.read(texts[start : start + size], flags)
        cells += _parsed(table, flags, len(vocabulary))
    return cells


def _parsed(
    table: WordTable, is_truncated_C: Sequence[bool], num_vocabulary: int
) -> Iterator[ParsedCell]:
    indptr, genes, unknown_indptr, unknown = _split(table.indptr, table.genes, num_vocabulary)
    unknown_words = [table.word(index) for index in unknown.tolist()]
    bounds, unknown_bounds = indptr.tolist(), unknown_indptr.tolist()
    num_words = np.diff(table.indptr).tolist()
    for i, is_truncated in enumerate(is_truncated_C):
        start, stop = bounds[i], bounds[i + 1]
        first, last = unknown_bounds[i], unknown_bounds[i + 1]
        yield ParsedCell(
            genes_K=genes[start:stop],
            num_words=num_words[i],
            num_duplicates=num_words[i] - (stop - start) - (last - first),
            unknown=tuple(unknown_words[first:last]),
            is_truncated=is_truncated,
        )


def _is_known(word: str, vocabulary: Vocabulary) -> bool:
    return vocabulary.index_of(word) is not None


@kernel
def _split(
    indptr: IndexArray, words: IntArray, num_genes: int
) -> tuple[IndexArray, IntArray, IndexArray, IndexArray]:
    """Return bounds and genes, first occurrences only, and bounds and numbers of other words."""
    last_seen = np.full(num_genes, -1, dtype=np.int64)  # text in which a gene was seen last
    gene_bounds = np.zeros(len(indptr), dtype=np.int64)
    unknown_bounds = np.zeros(len(indptr), dtype=np.int64)
    genes = np.empty(len(words), dtype=np.int32)
    unknown = np.empty(len(words), dtype=np.int64)
    num_genes_read = 0
    num_unknown = 0
    for text in range(len(indptr) - 1):
        for entry in range(indptr[text], indptr[text + 1]):
            gene = words[entry]
            if gene == UNKNOWN:
                unknown[num_unknown] = entry
                num_unknown += 1
            elif last_seen[gene] != text:
                last_seen[gene] = text
                genes[num_genes_read] = gene
                num_genes_read += 1
        gene_bounds[text + 1] = num_genes_read
        unknown_bounds[text + 1] = num_unknown
    return gene_bounds, genes[:num_genes_read], unknown_bounds, unknown[:num_unknown]
