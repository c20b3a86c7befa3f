"""The benchmark runs; its figures are read by people, not tested."""

from tests.benchmarks import head


def test_all_sides_run_and_find_the_same_gradient():
    measured = head.results(quick=True)
    assert len(measured) == 7
    assert all(result.ratio > 0 for result in measured if not result.is_upper)
