"""Differential expression of populations, by hand and against scipy."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from c2s_rl.evaluation.expression_change import (
    EffectKind,
    as_leave_one_out,
    cell_effects,
    changed_genes,
    effects_without_each,
    mean_effect,
    recovered_change,
    separation,
    sign_match,
    top_overlap,
)

# genes 0 and 1 rise by 4 and 2, genes 4 and 5 fall by 3 and 1, genes 2 and 3 stay
REAL = changed_genes(np.array([4.0, 2.0, 0.0, 0.0, -3.0, -1.0]), top_k=2)


def test_changed_genes_are_the_strongest_of_either_direction():
    assert (REAL.up_M.tolist(), REAL.down_M.tolist()) == ([0, 1], [4, 5])
    # unmoved genes are neither, so there may be fewer than asked for
    few = changed_genes(np.array([0.0, 1.0, 0.0]), top_k=2)
    assert (few.up_M.tolist(), few.down_M.tolist()) == ([1], [])


def test_equal_populations_change_nothing():
    cells = np.float32(np.random.default_rng(0).random((11, 40)))
    for kind in EffectKind:
        assert not mean_effect(cell_effects(cells, cells, kind)).any()


def test_mean_effect_is_the_difference_of_means():
    cells, controls = np.float32([[3.0, 1.0], [5.0, 1.0]]), np.float32([[1.0, 1.0], [2.0, 4.0]])
    effects = cell_effects(cells, controls, EffectKind.MEAN)
    np.testing.assert_allclose(effects, [[1.5, -1.5], [3.5, -1.5]])


@given(st.integers(0, 2**32 - 1))
def test_wilcoxon_effect_is_the_rank_sum_statistic(seed):
    rng = np.random.default_rng(seed)
    cells, controls = (rng.integers(0, 4, size=(n, 3)).astype(np.float32) for n in (5, 7))
    effect_N = mean_effect(cell_effects(cells, controls, EffectKind.WILCOXON))
    statistic_N = scipy.stats.mannwhitneyu(cells, controls, axis=0).statistic
    np.testing.assert_allclose(effect_N, statistic_N.astype(float) / 35 - 0.5, atol=1e-9)


def test_effects_without_each_are_those_of_the_other_cells():
    effects = np.random.default_rng(0).normal(size=(5, 3))
    result = effects_without_each(effects)
    np.testing.assert_allclose(result[0], effects.mean(axis=0), atol=1e-9)
    for g in range(5):
        np.testing.assert_allclose(
            result[1 + g], np.delete(effects, g, axis=0).mean(axis=0), atol=1e-9
        )
    assert as_leave_one_out(np.array([1.0, 2.0, 3.0])).without_G.tolist() == [2.0, 3.0]


def test_overlap_counts_genes_of_the_right_direction():
    effects = np.array(
        [
            [9.0, 8.0, 0.0, 0.0, -1.0, -2.0],  # all four
            [9.0, 0.0, 8.0, 0.0, -1.0, -2.0],  # 0 | 4 5, and 2 in place of 1
            [-9.0, -8.0, 0.0, 0.0, 1.0, 2.0],  # every direction reversed
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],  # nothing changes
        ]
    )
    np.testing.assert_allclose(top_overlap(effects, REAL), [1.0, 0.75, 0.0, 0.0])
    np.testing.assert_allclose(sign_match(effects, REAL), [1.0, 0.875, 0.0, 0.5])


def test_separation_is_the_auroc_of_up_against_down():
    effects = np.random.default_rng(1).integers(-2, 3, size=(20, 6)).astype(float)
    up, down = np.isin(np.arange(6), REAL.up_M), np.isin(np.arange(6), REAL.down_M)
    expected = [
        roc_auc_score(up, effect) + roc_auc_score(down, -effect) - 1.0 for effect in effects
    ]
    np.testing.assert_allclose(separation(effects, REAL), expected, atol=1e-12)
    np.testing.assert_allclose(separation(np.stack([REAL.effect_N, np.zeros(6)]), REAL), [1.0, 0.0])


def test_separation_with_one_direction_only():
    rising = changed_genes(np.array([2.0, 0.0, 0.0]), top_k=1)
    effects = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    np.testing.assert_allclose(separation(effects, rising), [1.0, -1.0])
    everything = changed_genes(np.array([2.0, 1.0]), top_k=2)
    np.testing.assert_allclose(separation(np.array([[1.0, 2.0]]), everything), [0.0])


def test_recovered_change_is_a_capped_share():
    # 2/4, 4/2 -> 1, 3/-3 = -1, -3/-1 = 3 -> 1
    effects = np.array([[2.0, 4.0, 7.0, 7.0, 3.0, -3.0], REAL.effect_N, np.zeros(6)])
    np.testing.assert_allclose(recovered_change(effects, REAL), [(0.5 + 1 - 1 + 1) / 4, 1.0, 0.0])


@pytest.mark.parametrize("measure", [top_overlap, separation, sign_match, recovered_change])
def test_the_real_change_has_the_best_value(measure):
    assert measure(REAL.effect_N[None], REAL)[0] == pytest.approx(1.0)
