"""The benchmark runs; its figure is read by people, not tested."""

from tests.benchmarks import convert


def test_both_sides_run_and_write_the_same_genes(data_dir):
    result = convert.compare(data_dir / convert.KANG, num_cells=20, rounds=1)
    assert result.ratio > 0
    assert result.workload.startswith("20 cells, ")
