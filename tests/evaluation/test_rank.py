"""Kendall's tau, the rank convention and Pearson's r."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.evaluation.rank import (
    kendall_tau,
    pearson,
    pearson_rows,
    program_ranks,
    program_tau,
    programs_tau,
)


def int32(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int32)


# Few distinct values, so that nearly every example has ties on both sides.
tied_pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=60).map(
    np.array
)


@settings(max_examples=300, deadline=None)
@given(tied_pairs)
def test_tau_b_is_scipys_on_ties(pairs):
    ours = kendall_tau(pairs[:, 0], pairs[:, 1], variant="b")
    theirs = scipy.stats.kendalltau(pairs[:, 0], pairs[:, 1], variant="b").statistic
    np.testing.assert_allclose(ours, theirs, atol=1e-12, rtol=0)


@settings(max_examples=300, deadline=None)
@given(tied_pairs)
def test_tau_a_is_the_printed_formula(pairs):
    x, y = pairs[:, 0], pairs[:, 1]
    first, second = np.triu_indices(len(x), k=1)
    products = np.sign(x[first] - x[second]) * np.sign(y[first] - y[second])
    expected = products.sum() / (len(x) * (len(x) - 1) / 2)
    if len(set(x)) == 1 or len(set(y)) == 1:
        expected = np.nan
    np.testing.assert_allclose(kendall_tau(x, y, variant="a"), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("num_genes", [978, 5000])
def test_tau_b_is_scipys_on_long_half_tied_ranks(num_genes):
    rng = np.random.default_rng(0)
    x = np.minimum(rng.permutation(num_genes), num_genes // 2)
    y = np.minimum(rng.permutation(num_genes), num_genes // 3)
    expected = scipy.stats.kendalltau(x, y).statistic
    assert kendall_tau(x, y, variant="b") == pytest.approx(expected, abs=1e-12)


def test_variants_differ_only_by_the_tie_correction():
    # x = 1 2 2 3, y = 1 3 2 4: the pair (2, 3) is tied in x, the other five are concordant.
    # a = 5 / 6; b = 5 / sqrt((6 - 1) * 6) = 0.912870929...
    x, y = [1, 2, 2, 3], [1, 3, 2, 4]
    assert kendall_tau(x, y, variant="a") == pytest.approx(5 / 6)
    assert kendall_tau(x, y, variant="b") == pytest.approx(5 / np.sqrt(30))


@pytest.mark.parametrize("variant", ["a", "b"])
def test_a_constant_side_has_no_order(variant):
    assert np.isnan(kendall_tau([7, 7, 7], [1, 2, 3], variant=variant))
    assert np.isnan(kendall_tau([1, 2, 3], [7, 7, 7], variant=variant))
    assert np.isnan(kendall_tau([1, np.nan, 3], [1, 2, 3], variant=variant))


def test_a_tau_needs_two_paired_values():
    with pytest.raises(ValueError, match=r"at least 2 values, got 1"):
        kendall_tau([1], [1], variant="b")
    with pytest.raises(ValueError, match=r"of one length, got \(2,\) and \(3,\)"):
        kendall_tau([1, 2], [1, 2, 3], variant="b")
    with pytest.raises(ValueError, match="'c' is not a valid TauVariant"):
        kendall_tau([1, 2], [1, 2], variant="c")


def test_genes_not_generated_share_the_rank_after_the_last():
    # Sentence: gene 5 first, gene 2 second, gene 9 third. Program 2, 4, 5, 7: 4 and 7 are absent.
    ranks = program_ranks(int32(5, 2, 9), int32(2, 4, 5, 7), num_vocabulary=10)
    assert ranks.tolist() == [2, 4, 1, 4]


def test_950_of_978_landmarks_leave_28_at_rank_951():
    ranks = program_ranks(np.arange(950, dtype=np.int32), np.arange(978, dtype=np.int32), 978)
    assert ranks[:950].tolist() == list(range(1, 951))
    assert set(ranks[950:].tolist()) == {951}


def test_ranks_refuse_genes_outside_the_vocabulary():
    with pytest.raises(ValueError, match=r"genes of a sentence .* 0 to 9, got 3 to 10"):
        program_ranks(int32(3, 10), int32(1, 2), num_vocabulary=10)
    with pytest.raises(ValueError, match=r"genes of a program .* 0 to 9, got -1 to 2"):
        program_ranks(int32(3), int32(-1, 2), num_vocabulary=10)


sentences = st.permutations(range(12)).flatmap(
    lambda order: st.integers(0, 12).map(lambda k: int32(*order[:k]))
)


@settings(max_examples=150, deadline=None)
@given(st.lists(sentences, max_size=5), sentences, sentences, st.sampled_from(["a", "b"]))
def test_the_batch_equals_one_by_one_in_both_forms(cells, target, control, variant):
    program = int32(1, 3, 4, 8, 11)
    kwargs = {"num_vocabulary": 12, "variant": variant}
    absolute = program_tau(cells, target, program, **kwargs)
    delta = program_tau(cells, target, program, control_genes_K=control, **kwargs)
    target_ranks, control_ranks = (program_ranks(g, program, 12) for g in (target, control))
    for b, cell in enumerate(cells):
        ranks = program_ranks(cell, program, 12)
        expected = kendall_tau(ranks, target_ranks, variant=variant)
        np.testing.assert_equal(absolute[b], expected)
        expected = kendall_tau(ranks - control_ranks, target_ranks - control_ranks, variant=variant)
        np.testing.assert_equal(delta[b], expected)


@settings(max_examples=50, deadline=None)
@given(st.lists(sentences, max_size=4), sentences, st.sampled_from(["a", "b"]))
def test_several_programs_in_one_call_equal_one_by_one(cells, target, variant):
    programs = [int32(1, 3, 4, 8, 11), int32(0, 1), int32(5, 2, 9)]
    kwargs = {"num_vocabulary": 12, "variant": variant}
    together = programs_tau(cells, target, programs, **kwargs)
    for p, program in enumerate(programs):
        np.testing.assert_equal(together.taus_P_B[p], program_tau(cells, target, program, **kwargs))
        written = [np.isin(program, cell).sum() for cell in cells]
        assert together.written_P_B[p].tolist() == written


def test_long_programs_give_the_same_tau_as_short_ones():
    # 200 genes are counted pair by pair and 300 sorted; scipy knows both.
    rng = np.random.default_rng(0)
    for num_genes in (200, 300):
        program = np.arange(num_genes, dtype=np.int32)
        target = rng.permutation(num_genes).astype(np.int32)
        cell = rng.permutation(num_genes).astype(np.int32)[: num_genes // 2]
        ranks = [program_ranks(g, program, num_genes) for g in (cell, target)]
        taus = program_tau([cell], target, program, num_vocabulary=num_genes, variant="b")
        assert taus[0] == pytest.approx(scipy.stats.kendalltau(*ranks).statistic, abs=1e-12)


def test_program_tau_by_hand():
    # Program 0 1 2 3. Target 0 1 2 3 -> ranks 1 2 3 4.
    # Cell 3 2 1 0 -> 4 3 2 1: tau -1. Cell 1 0 -> 2 1 3 3: pairs (0,1) discordant, (2,3) tied,
    # four concordant: (4 - 1) / sqrt(5 * 6). Cell 7 -> no program gene: nan.
    cells = [int32(3, 2, 1, 0), int32(1, 0), int32(7)]
    taus = program_tau(cells, int32(0, 1, 2, 3), int32(0, 1, 2, 3), num_vocabulary=8, variant="b")
    np.testing.assert_allclose(taus, [-1, 3 / np.sqrt(30), np.nan])


def test_copying_the_control_earns_nothing_in_the_delta_form():
    control, target = int32(0, 1, 2, 3), int32(3, 2, 0, 1)
    taus = program_tau(
        [control, target],
        target,
        int32(0, 1, 2, 3),
        num_vocabulary=4,
        variant="b",
        control_genes_K=control,
    )
    np.testing.assert_allclose(taus, [np.nan, 1.0])


def test_a_program_of_one_gene_is_refused():
    with pytest.raises(ValueError, match="at least 2 genes to be ordered, got 1"):
        program_tau([int32(0)], int32(0), int32(0), num_vocabulary=1, variant="b")


def test_no_completions_give_no_taus():
    assert program_tau([], int32(0), int32(0, 1), num_vocabulary=2, variant="b").tolist() == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=30))
def test_pearson_is_numpys(pairs):
    x, y = np.array(pairs, dtype=float).T
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(pearson(x, y))
    else:
        assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-12)


def test_pearson_rows_marks_a_constant_row():
    # 0.1 has no exact mean over three values: the row must still count as constant.
    r = pearson_rows([[1, 2, 3], [3, 2, 1], [0.1, 0.1, 0.1]], [2, 4, 6])
    np.testing.assert_allclose(r, [1.0, -1.0, np.nan])
