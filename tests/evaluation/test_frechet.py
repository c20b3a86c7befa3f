"""scFID against closed forms and against the formula with scipy's matrix root."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from c2s_rl.evaluation.frechet import frechet_distance, moments, scfid

RNG = np.random.default_rng(0)
REAL, GENERATED = RNG.normal(size=(40, 5)), RNG.normal(0.3, 1.5, size=(30, 5))


def printed_formula(real, generated, shrinkage=0.0):
    covariances = []
    for cells in (real, generated):
        sample = np.cov(cells, rowvar=False)
        sphere = np.trace(sample) / len(sample) * np.eye(len(sample))
        covariances.append((1 - shrinkage) * sample + shrinkage * sphere)
    first, second = covariances
    root = sqrtm(first @ second).real
    shift = ((real.mean(axis=0) - generated.mean(axis=0)) ** 2).sum()
    return shift + np.trace(first + second - 2 * root)


def with_moments(cells, mean, covariance):
    """Cells with exactly this sample mean and covariance."""
    centred = cells - cells.mean(axis=0)
    whitened = centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_scfid_of_two_gaussians_has_a_closed_form():
    # commuting covariances diag(4, 9) and diag(1, 1): (2 - 1)^2 + (3 - 1)^2 = 5; shift 3^2 + 4^2
    first = with_moments(RNG.normal(size=(50, 2)), [0.0, 0.0], np.diag([4.0, 9.0]))
    second = with_moments(RNG.normal(size=(60, 2)), [3.0, 4.0], np.eye(2))
    assert scfid(first, second) == pytest.approx(25 + 5)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_scfid_is_the_printed_formula_with_scipys_root(shrinkage):
    expected = printed_formula(REAL, GENERATED, shrinkage)
    assert scfid(REAL, GENERATED, shrinkage=shrinkage) == pytest.approx(expected, rel=1e-9)


def test_scfid_with_fewer_cells_than_dimensions_is_the_formula_on_what_the_cells_span():
    # a rotation into 60 dimensions adds nothing but zeros; sqrtm of the singular 60 x 60 product
    # is what breaks down, so the formula is evaluated in the 5 dimensions
    rotation = np.linalg.qr(RNG.normal(size=(60, 5)))[0]
    expected = printed_formula(REAL, GENERATED)
    assert scfid(REAL @ rotation.T, GENERATED @ rotation.T) == pytest.approx(expected, rel=1e-9)


def test_equal_populations_are_at_distance_zero():
    assert scfid(REAL, REAL[::-1]) == pytest.approx(0.0, abs=1e-9)
    wide = RNG.normal(size=(6, 300))
    assert scfid(wide, wide) == pytest.approx(0.0, abs=1e-9)


def test_one_cell_has_no_covariance_but_a_mean():
    single, pair = moments(np.array([[3.0]])), moments(np.array([[0.0], [2.0]]))
    # means 3 and 1: 4; covariances 0 and 2: 0 + 2 - 0
    assert frechet_distance(single, pair) == pytest.approx(6.0)


def test_scfid_needs_two_cells_a_side_and_a_share():
    with pytest.raises(ValueError, match="at least 2 cells, got 40 real and 1 generated"):
        scfid(REAL, GENERATED[:1])
    with pytest.raises(ValueError, match="share from 0 to 1, got 2"):
        scfid(REAL, GENERATED, shrinkage=2.0)
