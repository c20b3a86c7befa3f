"""Results of methods, and the paired comparison."""

import pytest

from c2s_rl.evaluation.bootstrap import Interval
from c2s_rl.evaluation.cell_metrics import Metric
from c2s_rl.evaluation.methods import Method
from c2s_rl.evaluation.result import MethodKind
from c2s_rl.evaluation.summary import Resampling, compare, score_methods, summarise

RESAMPLING = Resampling(num_draws=200, seed=0)


@pytest.fixture
def scored(record, answer, yardstick):
    """Two B prompts and one NK prompt; the good policy is perfect, the bad one reversed on B."""
    records = [record("1", "B"), record("2", "B"), record("3", "NK")]
    right, reversed_ = [answer(0, 1, 2, 3)], [answer(3, 2, 1, 0)]
    methods = [
        Method("SFT", MethodKind.POLICY, "bad", [reversed_, reversed_, right]),
        Method("GRPO", MethodKind.POLICY, "good", [right, right, [answer(7)]]),
    ]
    return records, score_methods(methods, records, yardstick)


def test_conditions_weigh_the_same(scored):
    records, by_name = scored
    result = summarise(by_name["SFT"], records, RESAMPLING)
    # B: tau -1 twice; NK: 1. Mean over conditions 0, over prompts it would be -1/3.
    assert result.metrics[Metric.PROGRAM_TAU] == Interval(0.0, 0.0, 0.0, 3, 2)
    assert result.per_condition["B"][Metric.PROGRAM_TAU] == Interval(-1.0, -1.0, -1.0, 2, 1)
    assert result.per_condition["NK"][Metric.PROGRAM_TAU] == Interval(1.0, None, None, 1, 1)


def test_flat_answers_are_reported(scored):
    records, by_name = scored
    result = summarise(by_name["GRPO"], records, RESAMPLING)
    assert result.num_flat == {Metric.PROGRAM_TAU: 1, Metric.PROGRAM_PEARSON: 1}
    assert result.num_answers == 3


def test_the_comparison_is_paired_by_prompt(scored):
    records, by_name = scored
    difference = compare(by_name["GRPO"], by_name["SFT"], records, RESAMPLING)
    # B: 1 - (-1) = 2 twice; NK: 0 - 1 = -1. Mean over conditions 0.5.
    assert difference.metrics[Metric.PROGRAM_TAU].mean == pytest.approx(0.5)
    assert difference.per_condition["B"][Metric.PROGRAM_TAU].mean == pytest.approx(2.0)
    assert (difference.candidate, difference.baseline) == ("GRPO", "SFT")
