"""The benchmark runs; its figure is read by people, not tested."""

from tests.benchmarks import kendall


def test_all_sides_run_and_agree():
    lines = kendall.results(quick=True)
    assert [line.ratio > 0 for line in lines] == [True, True]
    assert lines[0].workload.startswith("32 completions of 900 genes x 40 program genes")
