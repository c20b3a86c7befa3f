"""Counts rank as other values do: the same genes, in the same order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.cells.rank import rank_rows
from c2s_rl.cells.rank_counts import MAX_COUNT, fits, rank_counts


def hashes(num, seed):
    return np.random.default_rng(seed).integers(0, 2**63, num).astype(np.uint64)


def rank(rows, top_k=None, num_genes=400, gene_of_column=None):
    """Rank rows of (column, count) pairs; counts in the order of the row."""
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    columns = np.array([c for row in rows for c, _ in row], dtype=np.int32)
    counts = np.array([n for row in rows for _, n in row], dtype=np.float32)
    genes = columns if gene_of_column is None else gene_of_column[columns]
    options = {"cell_hashes": hashes(len(rows), 1), "gene_hashes": hashes(num_genes, 2)}
    return rank_counts(indptr, genes, counts, top_k=top_k, **options), (indptr, columns, counts)


def test_the_highest_count_comes_first_and_zeros_are_not_expressed():
    ranked, _ = rank([[(3, 1), (5, 70), (7, 0), (1, 9)], [], [(2, 4)]])
    assert ranked.genes.tolist() == [5, 1, 3, 2]
    assert ranked.counts.tolist() == [70, 9, 1, 4]
    assert ranked.indptr.tolist() == [0, 3, 3, 4]


def test_a_column_without_gene_is_left_out_and_the_head_is_kept():
    gene_of_column = np.array([0, -1, 1, 2], dtype=np.int32)
    ranked, _ = rank([[(0, 5), (1, 99), (2, 7), (3, 1)]], 2, gene_of_column=gene_of_column)
    assert ranked.genes.tolist() == [1, 0]
    assert ranked.num_expressed.tolist() == [3]


counts = st.one_of(st.integers(0, 3), st.integers(0, MAX_COUNT))
rows = st.lists(
    st.dictionaries(st.integers(0, 399), counts, max_size=300).map(lambda row: list(row.items())),
    max_size=4,
)


@given(rows, st.one_of(st.none(), st.integers(1, 50)))
def test_the_order_is_that_of_other_values(rows, top_k):
    ranked, (indptr, columns, values) = rank(rows, top_k)
    expected = rank_rows(
        indptr,
        columns,
        values,
        cell_hashes=hashes(len(rows), 1),
        gene_hashes=hashes(400, 2),
        top_k=top_k,
    )
    np.testing.assert_array_equal(ranked.indptr, expected.indptr)
    np.testing.assert_array_equal(ranked.genes, expected.genes)
    np.testing.assert_array_equal(ranked.counts, expected.values)


def test_many_ties_are_ordered_like_other_values():
    # 11 bits of hash leave many of 3,000 equal; the insertion pass must mend them.
    row = [(gene, 1 + gene % 2) for gene in range(3000)]
    ranked, (indptr, columns, values) = rank([row], num_genes=3000)
    expected = rank_rows(
        indptr, columns, values, cell_hashes=hashes(1, 1), gene_hashes=hashes(3000, 2), top_k=None
    )
    np.testing.assert_array_equal(ranked.genes, expected.genes)


@pytest.mark.parametrize(
    ("count", "length", "is_fitting"), [(65_535, 3, True), (65_536, 3, False), (1, 65_537, False)]
)
def test_what_does_not_fit_a_word_is_told(count, length, is_fitting):
    assert fits(np.array([0, length]), np.full(length, count, dtype=np.float32)) is is_fitting
