"""Drawing cells again gives what measuring the drawn cells gives."""

import numpy as np
import pytest

from c2s_rl.evaluation.distances import median_bandwidths, mmd
from c2s_rl.evaluation.distribution import DistributionMetric, distribution_metrics
from c2s_rl.evaluation.population_draws import draw_rows, fewer_dimensions, resampled_distances


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return rng.normal(2.0, 1.0, size=(12, 40)), rng.normal(2.3, 1.4, size=(9, 40))


def test_no_drawing_gives_the_distances_themselves(pair):
    rows = [np.arange(12)], [np.arange(9)]
    drawn = resampled_distances(*pair, *rows)
    for metric, value in distribution_metrics(*pair, 0).items():
        assert drawn[metric][0] == pytest.approx(value, rel=1e-9)


def test_a_draw_is_measured_as_if_its_cells_had_been(pair):
    real, generated = pair
    rng = np.random.default_rng(1)
    rows = (
        [rng.integers(12, size=12) for _ in range(3)],
        [rng.integers(9, size=7) for _ in range(3)],
    )
    drawn = resampled_distances(real, generated, *rows)
    widths = median_bandwidths(real)  # of all real cells, in every draw
    for s, (first, second) in enumerate(zip(*rows, strict=True)):
        direct = distribution_metrics(real[first], generated[second], 0)
        direct[DistributionMetric.MMD] = mmd(real[first], generated[second], bandwidths=widths)
        for metric, value in direct.items():
            assert drawn[metric][s] == pytest.approx(value, rel=1e-7, abs=1e-9)


def test_a_draw_without_cells_has_no_distance(pair):
    rows = [np.arange(12)] * 2, [np.zeros(0, dtype=np.int64), np.array([3])]
    for values_S in resampled_distances(*pair, *rows).values():
        assert np.isnan(values_S).all()


def test_real_cells_that_are_all_equal_have_no_mmd():
    rows = [np.arange(3)]
    drawn = resampled_distances(np.ones((3, 2)), np.zeros((3, 2)), rows, rows)
    assert np.isnan(drawn[DistributionMetric.MMD][0])
    # All cells are moved from (1, 1) to (0, 0).
    assert drawn[DistributionMetric.WASSERSTEIN][0] == pytest.approx(2**0.5)
    assert drawn[DistributionMetric.SCFID][0] == pytest.approx(2.0)


def test_fewer_dimensions_keep_every_distance(pair):
    both = np.concatenate(pair)
    short = fewer_dimensions(both)
    assert short.shape == (21, 21)
    np.testing.assert_allclose(short @ short.T, both @ both.T)
    assert fewer_dimensions(np.ones((5, 2))).shape == (5, 2)


def test_units_are_drawn_with_all_their_cells():
    for rows in draw_rows(["a", "b", "a"], ["a", "b"], num_draws=20, seed=0):
        times = np.bincount(rows, minlength=3)
        assert times[0] == times[2]
        assert times[0] + times[1] == 2


def test_equal_units_are_drawn_alike_whatever_their_cells():
    first = draw_rows(["a", "b"], ["a", "b", "c"], num_draws=30, seed=0)
    second = draw_rows(["b", "a", "a"], ["a", "b", "c"], num_draws=30, seed=0)
    for one, two in zip(first, second, strict=True):
        assert (one == 0).sum() * 2 == (two >= 1).sum()
    # A draw of three c's: no cell at all.
    assert any(len(rows) == 0 for rows in draw_rows(["a"], ["a", "b", "c"], num_draws=30, seed=0))
