"""The benchmark runs; its figures are read by people, not tested."""

import pytest

from tests.benchmarks import convert_shards


@pytest.mark.integration
def test_every_line_but_that_of_ray_is_measured():
    lines = convert_shards.results(quick=True)
    assert [line.is_upper for line in lines] == [False, True, True]
    assert all(line.ratio > 0 for line in lines)
