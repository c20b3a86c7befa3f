"""Credit by leave-one-out equals leaving one out."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2s_rl.evaluation.distances import energy_distance, mmd, rbf_kernel, wasserstein
from c2s_rl.evaluation.frechet import frechet_distance, moments
from c2s_rl.evaluation.leave_one_out import (
    LeaveOneOut,
    energy_without_each,
    mean_distance,
    mean_kernel,
    mmd_without_each,
    scfid_without_each,
    wasserstein_without_each,
)


def frechet(real, generated, shrinkage=0.0):
    # not scfid: one generated cell may be left, and has no covariance
    return frechet_distance(
        moments(real, shrinkage=shrinkage), moments(generated, shrinkage=shrinkage)
    )


WIDTHS = (0.5, 2.0)
PAIRS = {
    "mmd": (partial(mmd_without_each, bandwidths=WIDTHS),
            partial(mmd, bandwidths=WIDTHS, is_unbiased=False)),
    "energy": (energy_without_each, partial(energy_distance, is_unbiased=False)),
    "w1": (partial(wasserstein_without_each, order=1), partial(wasserstein, order=1)),
    "w2": (partial(wasserstein_without_each, order=2), partial(wasserstein, order=2)),
    "scfid": (scfid_without_each, frechet),
    "shrunk scfid": (partial(scfid_without_each, shrinkage=0.2), partial(frechet, shrinkage=0.2)),
}  # fmt: skip
each = pytest.mark.parametrize("name", PAIRS)


@each
@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(2, 9), st.integers(1, 12))
def test_without_each_is_the_distance_of_the_others(name, seed, num_real, num, num_dimensions):
    without_each, distance = PAIRS[name]
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(num_real, num_dimensions))
    generated = rng.normal(0.5, 2.0, size=(num, num_dimensions))
    generated[-1] = generated[0]  # equal cells happen
    result = without_each(real, generated)
    expected = [distance(real, np.delete(generated, g, axis=0)) for g in range(num)]
    np.testing.assert_allclose(result.without_G, expected, rtol=1e-9, atol=1e-9)
    assert result.of_all == pytest.approx(distance(real, generated), rel=1e-9, abs=1e-9)


@each
def test_credit_follows_the_cell_and_not_its_place(name):
    rng = np.random.default_rng(3)
    real, generated = rng.normal(size=(8, 4)), rng.normal(size=(7, 4))
    order = rng.permutation(7)
    straight = PAIRS[name][0](real, generated).credit_G(is_distance=True)
    permuted = PAIRS[name][0](real, generated[order]).credit_G(is_distance=True)
    np.testing.assert_allclose(permuted, straight[order], atol=1e-9)


@each
def test_cells_of_a_kind_that_is_not_real_have_less_credit_and_copies_share_theirs(name):
    rng = np.random.default_rng(4)
    real = rng.normal(size=(30, 3))
    near, far = rng.normal(size=(6, 3)), rng.normal(4.0, size=(6, 3))
    credit_G = PAIRS[name][0](real, np.vstack([near, far, near[:1]])).credit_G(is_distance=True)
    assert credit_G[:6].min() > credit_G[6:12].max()
    assert credit_G[0] == pytest.approx(credit_G[12], abs=1e-9)


def test_mmd_credit_is_the_witness_function_and_a_constant():
    rng = np.random.default_rng(6)
    real, generated = rng.normal(size=(8, 3)), rng.normal(1.0, size=(7, 3))
    credit_G = mmd_without_each(real, generated, bandwidths=WIDTHS).credit_G(is_distance=True)
    to_others = rbf_kernel(generated, generated, WIDTHS)
    np.fill_diagonal(to_others, 0.0)
    witness_G = rbf_kernel(generated, real, WIDTHS).mean(axis=1) - to_others.sum(axis=1) / 6
    np.testing.assert_allclose(
        credit_G - credit_G.mean(), 2 * (witness_G - witness_G.mean()), atol=1e-12
    )


def test_credit_of_a_mean_is_the_difference_to_the_mean():
    # values 1, 2, 6 (mean 3): without each 4, 3.5, 1.5; a score's credit is v - mean, times no n
    values = np.array([1.0, 2.0, 6.0])
    result = LeaveOneOut(3.0, np.array([4.0, 3.5, 1.5]))
    np.testing.assert_allclose(result.credit_G(is_distance=False), values - 3.0)
    np.testing.assert_allclose(result.credit_G(is_distance=True), 3.0 - values)


def test_the_size_of_credits_does_not_depend_on_the_number_of_cells():
    rng = np.random.default_rng(5)
    real = rng.normal(size=(50, 3))
    spread = [
        energy_without_each(real, rng.normal(1.0, size=(num, 3))).credit_G(is_distance=True).std()
        for num in (40, 400)
    ]
    assert spread[0] == pytest.approx(spread[1], rel=0.4)


@each
def test_one_cell_cannot_be_left_out(name):
    with pytest.raises(ValueError, match=r"at least 2 (generated )?cells, got .*1"):
        PAIRS[name][0](np.eye(3), np.ones((1, 3)))


def test_what_is_known_of_the_real_cells_need_not_be_computed_again():
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(9, 4)), rng.normal(size=(5, 4))
    assert mean_distance([[0.0, 0.0], [3.0, 4.0]]) == 2.5  # 0, 5, 5 and 0
    anew, known = (
        energy_without_each(real, generated),
        energy_without_each(real, generated, within_real=mean_distance(real)),
    )
    assert known.of_all == anew.of_all
    assert energy_without_each(real, generated, within_real=0.0).of_all > anew.of_all
    within = mean_kernel(real, WIDTHS)
    known = mmd_without_each(real, generated, bandwidths=WIDTHS, within_real=within)
    assert known.of_all == mmd_without_each(real, generated, bandwidths=WIDTHS).of_all


@pytest.mark.parametrize("without_each", [energy_without_each, PAIRS["mmd"][0]])
def test_genes_that_no_cell_names_change_nothing(without_each):
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(9, 4)), rng.normal(size=(5, 4))
    empty = ((0, 0), (3, 2))
    wide = without_each(np.pad(real, empty), np.pad(generated, empty))
    np.testing.assert_array_equal(wide.without_G, without_each(real, generated).without_G)
