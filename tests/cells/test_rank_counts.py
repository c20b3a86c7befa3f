"""Counts rank as other values do: the same genes, in the same order."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.cells.rank import rank_rows
from c2s_rl.cells.rank_counts import (
    MAX_COUNT,
    CountRows,
    CountRules,
    RankedInto,
    fits,
    rank_counts,
)
from c2s_rl.cells.rank_model import RankSteps, RankSums, rank_sums
from c2s_rl.data.values import log_one_plus

TARGET_SUM = 10_000.0


def hashes(num, seed):
    return np.random.default_rng(seed).integers(0, 2**63, num).astype(np.uint64)


@dataclass
class Ranked:
    """What was written, cell after cell."""

    lengths: np.ndarray
    num_expressed: np.ndarray
    genes: np.ndarray
    values: np.ndarray
    sums: RankSums


def rank(rows, top_k=None, *, num_genes=400, gene_of_column=None, min_genes=1, passes=None,
         has_values=True):  # fmt: skip
    """Rank rows of (column, count) pairs; counts in the order of the row."""
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    columns = np.array([c for row in rows for c, _ in row], dtype=np.int32)
    counts = np.array([n for row in rows for _, n in row], dtype=np.float32)
    genes = columns if gene_of_column is None else gene_of_column[columns]
    passes = np.ones(len(rows), dtype=np.bool_) if passes is None else np.array(passes)
    into = RankedInto(
        np.full(len(columns), -7, dtype=np.int32),
        np.full(len(columns) if has_values else 0, -7, dtype=np.float32),
    )
    steps = RankSteps()
    num_expressed, lengths = rank_counts(
        CountRows(indptr, genes, counts, hashes(len(rows), 1), passes),
        hashes(num_genes, 2),
        CountRules(top_k, min_genes, TARGET_SUM, divisor=2.0),
        into,
        steps,
    )
    num = lengths.sum()
    assert (into.genes[num:] == -7).all()
    genes, values = into.genes[:num], into.values[:num]
    return Ranked(lengths, num_expressed, genes, values, steps.sums())


def expression(counts, totals):
    """The unit of `rank`, from the definition."""
    return log_one_plus(np.array(counts) * (TARGET_SUM / np.array(totals)), 2.0)


def test_the_highest_count_comes_first_and_zeros_are_not_expressed():
    ranked = rank([[(3, 1), (5, 70), (7, 0), (1, 9)], [], [(2, 4)]])
    assert ranked.genes.tolist() == [5, 1, 3, 2]
    assert ranked.values.tolist() == expression([70, 9, 1, 4], [80, 80, 80, 4]).tolist()
    assert ranked.lengths.tolist() == ranked.num_expressed.tolist() == [3, 0, 1]


def test_a_column_without_gene_is_left_out_and_the_head_is_kept():
    gene_of_column = np.array([0, -1, 1, 2], dtype=np.int32)
    ranked = rank([[(0, 5), (1, 99), (2, 7), (3, 1)]], 2, gene_of_column=gene_of_column)
    assert ranked.genes.tolist() == [1, 0]
    assert ranked.num_expressed.tolist() == [3]
    # What has no gene is part of the library.
    assert ranked.values.tolist() == expression([7, 5], [112, 112]).tolist()


def test_cells_that_are_not_kept_leave_nothing_behind():
    rows = [[(0, 1), (1, 2)], [(2, 3)], [(3, 9), (4, 5)]]
    ranked = rank(rows, min_genes=2, passes=[True, True, False])
    assert ranked.lengths.tolist() == [2, 0, 0]
    assert ranked.num_expressed.tolist() == [2, 1, 2]
    assert ranked.genes.tolist() == [1, 0]
    assert ranked.sums.counts_R.tolist() == [1, 1]


counts = st.one_of(st.integers(0, 3), st.integers(0, MAX_COUNT))
rows = st.lists(
    st.dictionaries(st.integers(0, 399), counts, max_size=300).map(lambda row: list(row.items())),
    max_size=4,
)


@given(rows, st.one_of(st.none(), st.integers(1, 50)), st.booleans())
def test_order_values_and_sums_are_those_of_other_values(rows, top_k, has_values):
    ranked = rank(rows, top_k, has_values=has_values)
    expected = rank_rows(
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        np.array([c for row in rows for c, _ in row], dtype=np.int32),
        np.array([n for row in rows for _, n in row], dtype=np.float32),
        cell_hashes=hashes(len(rows), 1),
        gene_hashes=hashes(400, 2),
        top_k=top_k,
    )
    lengths = np.diff(expected.indptr)
    np.testing.assert_array_equal(ranked.lengths, lengths)
    np.testing.assert_array_equal(ranked.genes, expected.genes)
    totals = np.array([max(sum(n for _, n in row), 1) for row in rows])
    values = expression(expected.values.astype(np.float64), np.repeat(totals, lengths))
    np.testing.assert_array_equal(ranked.values, values if has_values else values[:0])
    for name, sums in vars(rank_sums(expected.indptr, values)).items():
        np.testing.assert_array_equal(vars(ranked.sums)[name], sums)


@pytest.mark.parametrize("spread", [2, 2_047, 2_048, 2_049, 5_000])
def test_many_ties_are_ordered_like_other_values(spread):
    # 11 bits of hash leave many of 3,001 equal; the insertion pass must mend them. Counts that are
    # 2,048 apart or more take two passes.
    counts = [1 if gene % 3 else 1 + gene * spread // 3_000 for gene in range(3_001)]
    ranked = rank([list(enumerate(counts))], num_genes=3_001)
    expected = rank_rows(
        np.array([0, 3_001]),
        np.arange(3_001, dtype=np.int32),
        np.array(counts, dtype=np.float32),
        cell_hashes=hashes(1, 1),
        gene_hashes=hashes(3_001, 2),
        top_k=None,
    )
    assert max(counts) - min(counts) == spread
    np.testing.assert_array_equal(ranked.genes, expected.genes)
    total = np.repeat(sum(counts), 3_001)
    assert ranked.values.tolist() == expression(expected.values.astype(float), total).tolist()


@pytest.mark.parametrize(
    ("count", "length", "is_fitting"), [(65_535, 3, True), (65_536, 3, False), (1, 65_537, False)]
)
def test_what_does_not_fit_a_word_is_told(count, length, is_fitting):
    assert fits(np.array([0, length]), np.full(length, count, dtype=np.float32)) is is_fitting
