"""The benchmark runs; its figures are read by people, not tested."""

from tests.benchmarks import scgpt


def test_all_sides_run_and_come_to_the_same_embeddings():
    measured = scgpt.results(quick=True)
    assert [result.what for result in measured]
    assert all(result.ratio > 0 for result in measured)
