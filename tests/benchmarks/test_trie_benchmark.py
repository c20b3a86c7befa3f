"""The benchmark runs; its figures are read by people, not tested."""

from tests.benchmarks import trie


def test_processor_and_replay_are_measured():
    step, replay = trie.measure_processor(300), trie.measure_replay(300)
    assert step["genes"] == replay["genes"] == 300
    assert min(step["ms"], replay["us"]) > 0
