"""The benchmark runs; its figure is read by people, not tested."""

from tests.benchmarks import parsing


def test_all_sides_run_and_find_the_same_genes():
    lines = parsing.results(quick=True)
    assert [line.ratio > 0 for line in lines] == [True, True]
    assert lines[0].workload.startswith("20 texts of 700 words, 13000 symbols, ")
