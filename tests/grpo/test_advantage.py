"""Group-relative advantages."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.grpo.advantage import STD_EPS, group_advantages


def test_advantages_are_centred_and_scaled():
    # mean 2, deviations -1 0 1, sample std 1: -1/(1 + 1e-4), 0, 1/(1 + 1e-4)
    expected = 1.0 / (1.0 + STD_EPS)
    assert group_advantages([1.0, 2.0, 3.0], scale_by_std=True) == pytest.approx(
        [-expected, 0.0, expected]
    )
    assert group_advantages([1.0, 2.0, 6.0], scale_by_std=False) == pytest.approx([-2, -1, 3])


def test_equal_rewards_give_no_signal():
    # 0.1 + 0.1 + 0.1 is not 3 x 0.1 in floating point: the result must still be exactly 0
    assert group_advantages([0.1] * 3, scale_by_std=True) == [0.0, 0.0, 0.0]


def test_abstention_takes_no_part():
    # mean of 1 and 3 is 2; the abstainer gets 0
    assert group_advantages([1.0, None, 3.0], scale_by_std=False) == [-1.0, 0.0, 1.0]
    assert group_advantages([None, None, 3.0], scale_by_std=True) == [0.0, 0.0, 0.0]


def test_single_completion_is_refused():
    with pytest.raises(ValueError, match="at least 2 completions to compare, got 1"):
        group_advantages([1.0], scale_by_std=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_reward_that_is_no_number_is_refused(bad):
    with pytest.raises(ValueError, match="a reward must be finite, got"):
        group_advantages([1.0, bad], scale_by_std=True)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=32), st.floats(-100, 100))
def test_a_constant_added_to_all_rewards_changes_nothing(rewards, shift):
    before = group_advantages(rewards, scale_by_std=False)
    after = group_advantages([r + shift for r in rewards], scale_by_std=False)
    assert after == pytest.approx(before, abs=1e-8)
    assert math.fsum(before) == pytest.approx(0.0, abs=1e-8)
