"""FOSCTTM and the discrimination score, by hand and by brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.evaluation.matching import (
    MATCHING_METRICS,
    Closeness,
    MatchingMetric,
    closer_shares,
    discrimination_score,
    foscttm,
)

RNG = np.random.default_rng(0)


def test_foscttm_by_hand():
    # second = 0, 1, 9 for first = 0, 6, 8. From the first side: 0 -> 0 is nearest (0 closer);
    # 6 -> own 1 at 5, 9 at 3 is closer (1); 8 -> own 9 at 1 (0). From the second side:
    # 0 -> own at 0 (0); 1 -> own 6 at 5, 0 at 1 closer (1); 9 -> own 8 (0). (1 + 1) / (6 * 2)
    first, second = [[0.0], [6.0], [8.0]], [[0.0], [1.0], [9.0]]
    assert foscttm(first, second, closeness=Closeness.EUCLIDEAN) == pytest.approx(2 / 12)


def test_foscttm_is_zero_for_equal_views_and_half_for_views_that_know_nothing():
    view = RNG.normal(size=(30, 4))
    assert foscttm(view, view) == 0.0
    assert foscttm(np.ones((30, 4)), view) == pytest.approx(0.5, abs=0.1)
    assert foscttm(np.ones((30, 4)), np.ones((30, 4))) == 0.5
    assert foscttm(view, RNG.normal(size=(30, 4))) == pytest.approx(0.5, abs=0.15)


def by_counting(first, second):
    """Pair by pair; vectors of few digits, so that equal distances are equal."""

    def cosine(a, b):
        return 1 - a @ b / np.sqrt((a @ a) * (b @ b))

    shares = []
    for one, other in ((first, second), (second, first)):
        for i in range(len(one)):
            own = cosine(one[i], other[i])
            rest = [cosine(one[i], other[j]) for j in range(len(one)) if j != i]
            closer = sum(d < own - 1e-9 for d in rest)
            equal = sum(abs(d - own) <= 1e-9 for d in rest)
            shares.append((closer + equal / 2) / len(rest))
    return np.mean(shares)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
def test_foscttm_is_counted_pair_by_pair_and_ties_count_half(seed, num):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(1, 4, size=(2, num, 2)).astype(float)
    assert foscttm(first, second) == pytest.approx(by_counting(first, second), abs=1e-12)


def test_foscttm_does_not_depend_on_the_size_of_chunks():
    first, second = RNG.normal(size=(2, 23, 3))
    first[5] = second[7]
    whole = closer_shares(first, second, chunk_rows=100)
    np.testing.assert_array_equal(closer_shares(first, second, chunk_rows=4), whole)


def test_cosine_does_not_see_the_length_of_vectors():
    view = RNG.normal(size=(30, 4))
    assert foscttm(view, view * RNG.uniform(1, 9, size=(30, 1))) == 0.0


def test_views_must_hold_the_same_samples():
    with pytest.raises(ValueError, match="the same samples, got 3 and 2"):
        foscttm(np.ones((3, 1)), np.ones((2, 1)))
    with pytest.raises(ValueError, match="at least 2 cells, got 1 real"):
        foscttm([[1.0]], [[1.0]])


def by_sorting(real, generated):
    """The challenge's definition: place of the true effect in the sorted distances."""
    scores = []
    for p, effect in enumerate(generated):
        distances = np.abs(real - effect).sum(axis=1)
        place = np.flatnonzero(np.argsort(distances) == p)[0]
        scores.append(1 - place / len(real))
    return scores


@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_discrimination_is_the_place_among_sorted_distances(seed, num):
    rng = np.random.default_rng(seed)
    real, generated = rng.normal(size=(2, num, 5))
    np.testing.assert_allclose(discrimination_score(real, generated), by_sorting(real, generated))


def test_one_effect_for_every_perturbation_is_chance():
    # equal real effects tie with the true one: (P - 1) / 2 of P are ahead, here 1 - 1.5 / 4
    real = np.ones((4, 3))
    np.testing.assert_allclose(discrimination_score(real, real), 1 - 1.5 / 4)
    # one prediction for all: places 0..P-1 are taken once each, so 0.5 + 1 / (2 P) on average
    real = RNG.normal(size=(8, 3))
    mean = discrimination_score(real, np.tile(real[:1], (8, 1))).mean()
    assert mean == pytest.approx(0.5 + 1 / 16)


def test_the_target_gene_is_left_out_of_the_distances():
    # gene 0 alone would tell the first perturbation; without it the second is as near
    real = np.array([[-5.0, 1.0], [0.0, 1.0]])
    generated = np.array([[-5.0, 1.0], [0.0, 1.0]])
    np.testing.assert_allclose(discrimination_score(real, generated), [1.0, 1.0])
    scores = discrimination_score(real, generated, target_columns_P=[0, None])
    np.testing.assert_allclose(scores, [0.75, 1.0])


def test_sides_of_discrimination_must_match():
    with pytest.raises(ValueError, match="got 3, 2 and 3"):
        discrimination_score(np.ones((3, 1)), np.ones((2, 1)))


def test_every_metric_says_what_is_best():
    assert MATCHING_METRICS.keys() == set(MatchingMetric)
    assert MATCHING_METRICS[MatchingMetric.FOSCTTM].best == 0.0
    assert MATCHING_METRICS[MatchingMetric.DISCRIMINATION].best == 1.0
