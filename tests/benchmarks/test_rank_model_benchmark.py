"""The benchmark runs; its figure is read by people, not tested."""

from tests.benchmarks import convert, rank_model


def test_both_sides_run_and_give_the_same_line_and_expression(data_dir):
    lines = rank_model.compare(data_dir / convert.KANG, num_cells=20, rounds=1)
    assert [line.ratio > 0 for line in lines] == [True, True]
    assert lines[0].workload.startswith("20 Kang cells, ")
