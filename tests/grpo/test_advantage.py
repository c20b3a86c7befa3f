"""Group-relative advantages."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.grpo.advantage import (
    STD_EPS,
    AdvantageScale,
    group_advantages,
    step_advantages,
    zero_variance_groups,
)

GROUP, BATCH, NONE = AdvantageScale.GROUP, AdvantageScale.BATCH, AdvantageScale.NONE


def test_advantages_are_centred_and_scaled():
    # mean 2, deviations -1 0 1, sample std 1: -1/(1 + 1e-4), 0, 1/(1 + 1e-4)
    expected = 1.0 / (1.0 + STD_EPS)
    assert group_advantages([1.0, 2.0, 3.0], scale=GROUP) == pytest.approx(
        [-expected, 0.0, expected]
    )
    assert group_advantages([1.0, 2.0, 6.0], scale=NONE) == pytest.approx([-2, -1, 3])


def test_batch_scaling_centres_by_group_and_divides_by_the_std_of_the_step():
    # groups centred: -1 1 | -2 2; all of 0 2 4 8: mean 3.5, squares 12.25 + 2.25 + 0.25 + 20.25
    # = 35, std sqrt(35 / 3) = 3.4156503
    (a, b), (c, d) = step_advantages([[0.0, 2.0], [4.0, 8.0]], scale=BATCH)
    divisor = math.sqrt(35 / 3) + STD_EPS
    assert (a, b, c, d) == pytest.approx((-1 / divisor, 1 / divisor, -2 / divisor, 2 / divisor))


def test_batch_std_leaves_abstentions_out_and_counts_groups_without_signal():
    # 1 3 | 2 - | 2 2: std of 1 3 2 2 2 = sqrt(2 / 4)
    rewards = [[1.0, 3.0], [2.0, None], [2.0, 2.0]]
    divisor = math.sqrt(0.5) + STD_EPS
    first, second, third = step_advantages(rewards, scale=BATCH)
    assert first == pytest.approx((-1 / divisor, 1 / divisor))
    assert second == third == (0.0, 0.0)


def test_equal_rewards_give_no_signal():
    # 0.1 + 0.1 + 0.1 is not 3 x 0.1 in floating point: the result must still be exactly 0
    for scale in AdvantageScale:
        assert step_advantages([[0.1] * 3, [0.1] * 3], scale=scale) == ((0.0,) * 3,) * 2


def test_abstention_takes_no_part():
    # mean of 1 and 3 is 2; the abstainer gets 0
    assert group_advantages([1.0, None, 3.0], scale=NONE) == (-1.0, 0.0, 1.0)
    assert group_advantages([None, None, 3.0], scale=GROUP) == (0.0, 0.0, 0.0)
    assert step_advantages([[None, None]], scale=BATCH) == ((0.0, 0.0),)


def test_groups_that_teach_nothing_are_named():
    rewards = [[1.0, 2.0], [0.1, 0.1], [None, 3.0], [None, None], [None, 1.0, 2.0]]
    assert zero_variance_groups(rewards) == [1, 2, 3]


def test_single_completion_is_refused():
    with pytest.raises(ValueError, match="at least 2 completions to compare, got 1"):
        step_advantages([[1.0]], scale=BATCH)


def test_one_group_knows_no_batch():
    with pytest.raises(ValueError, match="must be scaled by 'group' or 'none', got 'batch'"):
        group_advantages([1.0, 2.0], scale=BATCH)


@pytest.mark.parametrize("scale", list(AdvantageScale))
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_reward_that_is_no_number_is_refused(bad, scale):
    with pytest.raises(ValueError, match="a reward must be finite, got"):
        step_advantages([[1.0, bad]], scale=scale)


rewards_of_groups = st.lists(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), min_size=1, max_size=6
)


@given(rewards_of_groups, st.floats(-100, 100))
def test_a_constant_added_to_all_rewards_changes_nothing(rewards, shift):
    before = step_advantages(rewards, scale=NONE)
    after = step_advantages([[r + shift for r in group] for group in rewards], scale=NONE)
    for a, b in zip(before, after, strict=True):
        assert b == pytest.approx(a, abs=1e-8)
        assert math.fsum(a) == pytest.approx(0.0, abs=1e-8)


@given(rewards_of_groups)
def test_zero_variance_groups_are_those_without_advantages(rewards):
    advantages = step_advantages(rewards, scale=NONE)
    silent = [index for index, group in enumerate(advantages) if not any(group)]
    assert zero_variance_groups(rewards) == silent
