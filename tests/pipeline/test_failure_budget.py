"""What failed rewards cost: which groups go on, and when a run stops."""

import pytest

from c2s_rl.errors import BudgetError
from c2s_rl.pipeline.failure_budget import FailureBudget, is_failed, num_failed
from c2s_rl.types import ScoredGroup

NAN = "not_finite: a reward must give finite numbers, got nan"
SLOW = "deadline: a reward must answer, got no answer"


def scored(rewards, **failures):
    named = {name: tuple(messages) for name, messages in failures.items()}
    return ScoredGroup(None, tuple(rewards), {}, {}, named)


def test_only_failures_fail_and_abstaining_does_not():
    abstained = scored([None, None])
    assert (num_failed(abstained), is_failed(abstained)) == (0, False)
    mixed = scored([None, None, 1.0, 2.0], r=[NAN, None, None, None])
    assert (num_failed(mixed), is_failed(mixed)) == (1, False)


def test_a_reward_that_failed_without_a_weight_costs_nothing():
    only_logged = scored([1.0, 2.0], r=[NAN, NAN])
    assert (num_failed(only_logged), is_failed(only_logged)) == (0, False)


def test_a_group_with_fewer_than_two_totals_is_dropped():
    lost = scored([None, 1.0], r=[NAN, None])
    whole = scored([1.0, 2.0])
    budget = FailureBudget(max_groups=1, max_completions=0)
    assert budget.keep([lost, whole], 0) == [whole]
    assert budget.figures() == {"failed_groups": 1.0, "failed_completions": 0.0}
    with pytest.raises(
        BudgetError,
        match=r"max_failed_groups=1 groups .*got 2 by step 3: reward 'r' not_finite 2 \(first: not",
    ):
        budget.keep([lost], 3)


def test_the_error_names_every_reward_kind_and_number():
    group = scored([None, None, 1.0, 2.0], slow=[SLOW, None, None, None], r=[NAN, NAN, None, None])
    budget = FailureBudget(max_groups=0, max_completions=3, num_completions=2)
    with pytest.raises(BudgetError) as caught:
        budget.keep([group], 1)
    message = str(caught.value)
    assert "max_failed_completions=3" in message
    assert "got 4 by step 1" in message
    assert f"reward 'slow' deadline 1 (first: {SLOW})" in message
    assert f"reward 'r' not_finite 2 (first: {NAN})" in message
