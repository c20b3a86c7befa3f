"""MMD, energy distance and Wasserstein: by hand, by brute force and against scipy, sklearn, POT."""

import numpy as np
import pytest
import scipy.stats
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.pairwise import rbf_kernel as sklearn_kernel

from c2s_rl.evaluation.distances import (
    energy_distance,
    median_bandwidths,
    mmd,
    rbf_kernel,
    sliced_wasserstein,
    transport_cost,
    wasserstein,
)

RNG = np.random.default_rng(0)
SHIFT = np.array([3.0, 0.0, 4.0, 0.0])  # of length 5
REAL, GENERATED = RNG.normal(size=(23, 4)), RNG.normal(0.5, 1.3, size=(17, 4))
EVERY = [mmd, energy_distance, wasserstein]


def test_kernel_is_sklearns_with_gamma_from_the_width():
    # exp(-d^2 / (2 b^2)) = exp(-gamma d^2) with gamma = 1 / (2 b^2)
    expected = np.mean([sklearn_kernel(REAL, GENERATED, gamma=1 / (2 * b**2)) for b in (1, 3)], 0)
    np.testing.assert_allclose(rbf_kernel(REAL, GENERATED, (1.0, 3.0)), expected, atol=1e-12)


def test_mmd_of_single_points_by_hand():
    # k(0, 0) + k(1, 1) - 2 k(0, 1) = 2 - 2 exp(-1 / 2) with width 1
    value = mmd([[0.0]], [[1.0]], bandwidths=(1.0,), is_unbiased=False)
    assert value == pytest.approx(2 - 2 * np.exp(-0.5))


def test_unbiased_mmd_is_the_printed_sum():
    widths = (0.7, 2.0)

    def mean(first, second, *, skips_own):
        return np.mean(
            [
                np.mean([np.exp(-np.sum((x - y) ** 2) / (2 * b**2)) for b in widths])
                for i, x in enumerate(first)
                for j, y in enumerate(second)
                if not (skips_own and i == j)
            ]
        )

    expected = (
        mean(REAL, REAL, skips_own=True)
        + mean(GENERATED, GENERATED, skips_own=True)
        - 2 * mean(REAL, GENERATED, skips_own=False)
    )
    assert mmd(REAL, GENERATED, bandwidths=widths) == pytest.approx(expected, abs=1e-12)


def test_unbiased_forms_are_zero_on_average_for_equal_distributions_and_biased_ones_are_not():
    draws = [np.random.default_rng(seed).normal(size=(2, 5, 3)) for seed in range(400)]
    for measure in (mmd, energy_distance):
        unbiased = np.array([measure(x, y) for x, y in draws])
        biased = np.array([measure(x, y, is_unbiased=False) for x, y in draws])
        assert abs(unbiased.mean()) < 3 * unbiased.std() / 20
        assert biased.min() > 0


def test_bandwidths_are_scales_of_the_median_distance_between_different_cells():
    cells = [[0.0], [0.0], [1.0], [3.0]]
    # pairs: 0 (equal cells, left out), 1, 3, 1, 3, 2; the median of 1 1 2 3 3 is 2
    assert median_bandwidths(cells) == pytest.approx((0.5, 1.0, 2.0, 4.0, 8.0))
    with pytest.raises(ValueError, match="real cells that differ, got"):
        median_bandwidths([[1.0], [1.0]])


def test_energy_distance_is_the_square_of_scipys_in_one_dimension():
    x, y = REAL[:, :1], GENERATED[:, :1]
    expected = scipy.stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    assert energy_distance(x, y, is_unbiased=False) == pytest.approx(expected, abs=1e-12)


def test_energy_distance_by_hand():
    # across: mean of 2, 3, 1, 2 = 2, doubled 4; within: 1 and 1 unbiased, 1/2 and 1/2 biased
    x, y = [[0.0], [1.0]], [[2.0], [3.0]]
    assert energy_distance(x, y) == pytest.approx(4 - 1 - 1)
    assert energy_distance(x, y, is_unbiased=False) == pytest.approx(4 - 0.5 - 0.5)


def test_wasserstein_is_scipys_in_one_dimension():
    expected = scipy.stats.wasserstein_distance(REAL[:, 0], GENERATED[:, 0])
    assert wasserstein(REAL[:, :1], GENERATED[:, :1], order=1) == pytest.approx(expected)


@pytest.mark.parametrize("order", [1, 2])
def test_wasserstein_of_equal_sizes_is_the_best_assignment(order):
    costs = np.linalg.norm(REAL[:17, None] - GENERATED[None], axis=2) ** order
    rows, columns = linear_sum_assignment(costs)
    expected = costs[rows, columns].mean() ** (1 / order)
    assert wasserstein(REAL[:17], GENERATED, order=order) == pytest.approx(expected)


def test_w2_of_a_shift_is_the_length_of_the_shift():
    assert wasserstein(REAL, REAL + SHIFT) == pytest.approx(5.0)
    assert wasserstein(REAL, REAL) == pytest.approx(0.0, abs=1e-7)


def test_sliced_wasserstein_of_a_shift_is_smaller_by_the_root_of_the_dimension():
    # E <u, s>^2 = |s|^2 / D for a random direction u, so 5 / sqrt(4) = 2.5
    shifted = REAL + SHIFT
    value = sliced_wasserstein(REAL, shifted, seed=1, num_projections=4000)
    assert value == pytest.approx(2.5, rel=0.05)
    assert sliced_wasserstein(REAL, GENERATED, seed=1) == sliced_wasserstein(
        REAL, GENERATED, seed=1
    )


def test_a_transport_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr("c2s_rl.evaluation.distances.MAX_PIVOTS", 1)
    with (
        pytest.warns(UserWarning, match="numItermax"),
        pytest.raises(RuntimeError, match="converge"),
    ):
        transport_cost(RNG.random((40, 40)))


@pytest.mark.parametrize("measure", EVERY)
def test_order_of_the_cells_has_no_influence(measure):
    permuted = measure(RNG.permutation(REAL), RNG.permutation(GENERATED))
    assert permuted == pytest.approx(measure(REAL, GENERATED), abs=1e-12)


@pytest.mark.parametrize("measure", EVERY)
def test_bad_populations_are_named(measure):
    with pytest.raises(ValueError, match="vectors of one length, got 4 and 3"):
        measure(REAL, GENERATED[:, :3])
    with pytest.raises(ValueError, match=r"at least \d cells, got 23 real and 0 generated"):
        measure(REAL, GENERATED[:0])
    with pytest.raises(ValueError, match="generated cells must have finite vectors"):
        measure(REAL, np.full((3, 4), np.nan))
    with pytest.raises(ValueError, match=r"must be a matrix \[cells, dimensions\], got \(4,\)"):
        measure(REAL[0], GENERATED)


def test_order_of_wasserstein_is_one_or_two():
    with pytest.raises(ValueError, match="must be 1 or 2, got 3"):
        wasserstein(REAL, GENERATED, order=3)
