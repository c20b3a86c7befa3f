"""The benchmark runs; its figures are read by people, not tested."""

from tests.benchmarks import attention


def test_all_sides_run_and_compute_the_same_loss():
    time_ratio, memory_share = attention.results(quick=True)
    assert time_ratio.ratio > 0
    assert memory_share.is_upper
