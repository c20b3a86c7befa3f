"""The benchmark runs and both sides agree; its ratio is read by people, not tested."""

from tests.benchmarks import tau


def test_both_sides_compute_the_same_tau():
    kernel = tau.measure_side("kernel", repeats=1)
    assert kernel["difference"] <= tau.MAX_DIFFERENCE
    assert min(kernel["us"], tau.measure_side("scipy", repeats=1)["us"]) > 0
