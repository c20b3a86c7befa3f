"""Program activity against gseapy, scipy and the formula by hand."""

import gseapy
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.evaluation.program import rank_activity, ssgsea

RNG = np.random.default_rng(0)
# distinct values: no ties
CELLS = np.stack([RNG.permutation(60) for _ in range(4)]).astype(float)
PROGRAM = np.array([3, 8, 21, 40, 59], dtype=np.int32)


def gseapy_es(cells, program, weight):
    names = [f"GENE{n}" for n in range(cells.shape[1])]
    table = pd.DataFrame(cells.T, index=names, columns=[f"c{c}" for c in range(len(cells))])
    result = gseapy.ssgsea(
        table, {"set": [names[n] for n in program]}, outdir=None, sample_norm_method="rank",
        weight=weight, min_size=1, max_size=1000, threads=1, no_plot=True,
    )  # fmt: skip
    return result.res2d.set_index("Name")["ES"].loc[list(table.columns)].astype(float).to_numpy()


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_ssgsea_is_gseapys_score_over_half_the_genes(weight):
    expected = gseapy_es(CELLS, PROGRAM, weight) / 30
    np.testing.assert_allclose(ssgsea(CELLS, PROGRAM, weight=weight), expected, atol=1e-9)


def test_ssgsea_without_weight_is_a_difference_of_mean_ranks():
    ranks = scipy.stats.rankdata(-CELLS, axis=1)
    others = np.setdiff1d(np.arange(60), PROGRAM)
    expected = (ranks[:, others].mean(axis=1) - ranks[:, PROGRAM].mean(axis=1)) / 30
    np.testing.assert_allclose(ssgsea(CELLS, PROGRAM), expected, atol=1e-9)


def test_program_at_the_top_is_one_and_at_the_bottom_minus_one():
    cells = np.array([[9.0, 8.0, 3.0, 2.0, 1.0], [1.0, 2.0, 7.0, 8.0, 9.0]])
    np.testing.assert_allclose(ssgsea(cells, np.array([0, 1])), [1.0, -1.0], atol=1e-12)


def test_tied_genes_have_their_mean_rank_wherever_they_stand():
    # ranks of the others' 4 zeros are (2 + 3 + 4 + 5) / 4 = 3.5; program genes 0 and k:
    # ranks 1 and 3.5, mean 2.25; others 3.5: (3.5 - 2.25) / 2.5 = 0.5
    cell = np.array([[5.0, 0.0, 0.0, 0.0, 0.0]])
    scores = [ssgsea(cell, np.array([0, k]))[0] for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(scores, 0.5, atol=1e-12)


def test_many_cells_keep_their_order():
    # names of cells sort as text in gseapy's table: c10 before c2
    cells = np.stack([RNG.permutation(20) for _ in range(25)]).astype(float)
    program = np.array([0, 1, 2])
    expected = [ssgsea(cell[None], program)[0] for cell in cells]
    np.testing.assert_allclose(ssgsea(cells, program), expected, atol=1e-12)


def test_no_cell_has_no_activity():
    assert ssgsea(np.zeros((0, 5)), np.array([1])).shape == (0,)
    assert rank_activity(np.zeros((0, 5)), np.array([1])).z_C.shape == (0,)


def test_z_without_ties_is_the_textbook_formula():
    # var of the mean of M of N ranks without replacement: (N + 1) (N - M) / (12 M)
    ranks = scipy.stats.rankdata(-CELLS, axis=1)
    spread = np.sqrt(61 * 55 / (12 * 5))
    expected = (30.5 - ranks[:, PROGRAM].mean(axis=1)) / spread
    np.testing.assert_allclose(rank_activity(CELLS, PROGRAM).z_C, expected, atol=1e-12)


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_z_with_ties_is_the_rank_sum_statistic_of_scipy(seed):
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, 4, size=(1, 30)).astype(float)
    cells[0, 0] = 9.0  # never all tied
    program = rng.permutation(30)[:6]
    activity = rank_activity(cells, program)
    inside, outside = cells[0, program], np.delete(cells[0], program)
    plain = scipy.stats.mannwhitneyu(
        inside, outside, alternative="greater", method="asymptotic", use_continuity=False
    )
    assert activity.z_C[0] == pytest.approx(scipy.stats.norm.isf(plain.pvalue), abs=1e-8)
    exact = scipy.stats.mannwhitneyu(inside, outside, alternative="greater", method="asymptotic")
    assert activity.p_C[0] == pytest.approx(exact.pvalue)


def test_a_cell_whose_genes_all_tie_says_nothing():
    activity = rank_activity(np.zeros((1, 5)), np.array([1, 2]))
    assert (activity.z_C[0], activity.p_C[0]) == (0.0, 1.0)
    np.testing.assert_allclose(ssgsea(np.zeros((1, 5)), np.array([1, 2])), 0.0, atol=1e-12)


@pytest.mark.parametrize("score", [ssgsea, rank_activity])
@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([], "some but not all of the 60 genes, each once, got 0 genes"),
        ([1, 1], "got 2 genes, 1 of them different"),
        (range(60), "got 60 genes"),
        ([2, 60], "columns from 0 to 59, got 2 to 60"),
    ],
)
def test_a_program_is_a_part_of_the_genes(score, program, message):
    with pytest.raises(ValueError, match=message):
        score(CELLS, np.array(program, dtype=np.int32))


def test_cells_are_finite():
    with pytest.raises(ValueError, match="finite matrix"):
        ssgsea(np.full((2, 60), np.nan), PROGRAM)
