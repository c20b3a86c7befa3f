"""All distances of one condition: which have a value, and what the table says of them."""

import math

import numpy as np
import pytest

from c2s_rl.evaluation import distribution
from c2s_rl.evaluation.distribution import (
    DISTRIBUTION_METRICS,
    DistributionMetric,
    distribution_metrics,
    energy_distance,
    mmd,
    scfid,
    wasserstein,
)

RNG = np.random.default_rng(0)
REAL, GENERATED = RNG.normal(size=(20, 3)), RNG.normal(1.0, size=(15, 3))


def test_every_metric_is_there_once_and_is_its_function():
    assert distribution_metrics(REAL, GENERATED, seed=0) == {
        DistributionMetric.MMD: mmd(REAL, GENERATED),
        DistributionMetric.ENERGY: energy_distance(REAL, GENERATED),
        DistributionMetric.WASSERSTEIN: wasserstein(REAL, GENERATED),
        DistributionMetric.SCFID: scfid(REAL, GENERATED),
    }
    assert DISTRIBUTION_METRICS.keys() == set(DistributionMetric)


def test_the_best_value_is_what_equal_populations_get():
    values = distribution_metrics(np.repeat(REAL, 40, axis=0), np.repeat(REAL, 40, axis=0), seed=0)
    for metric, value in values.items():
        assert value == pytest.approx(DISTRIBUTION_METRICS[metric].best, abs=0.02)


@pytest.mark.parametrize("num", [0, 1])
def test_too_few_cells_on_a_side_have_no_value(num):
    for pair in ((REAL[:num], GENERATED), (REAL, GENERATED[:num])):
        values = distribution_metrics(*pair, seed=0)
        assert set(values) == set(DistributionMetric)
        assert all(math.isnan(value) for value in values.values())


def test_equal_real_cells_have_no_kernel_width_but_distances():
    values = distribution_metrics(np.zeros((4, 3)), GENERATED, seed=0)
    missing = {metric for metric, value in values.items() if math.isnan(value)}
    assert missing == {DistributionMetric.MMD}


def test_large_populations_are_drawn_by_the_seed(monkeypatch):
    monkeypatch.setattr(distribution, "MAX_CELLS", 10)
    first, again, other = (distribution_metrics(REAL, GENERATED, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first[DistributionMetric.MMD] != other[DistributionMetric.MMD]
    # scFID sees every cell, so it does not depend on the draw
    assert first[DistributionMetric.SCFID] == other[DistributionMetric.SCFID]
