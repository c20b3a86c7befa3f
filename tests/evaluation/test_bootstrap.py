"""Stratified bootstrap intervals."""

import numpy as np
import pytest

from c2s_rl.evaluation.bootstrap import (
    Interval,
    clustered_interval,
    mean_over_conditions,
    paired_interval,
    standard_error_ends,
    stratified_interval,
)

NAN = float("nan")


def test_conditions_weigh_the_same_whatever_their_size():
    # Condition a: mean of 0, 0, 0, 0 = 0. Condition b: mean of 1, 1 = 1. Mean of both = 0.5,
    # where the mean over prompts would be 2 / 6. No spread within a stratum: interval of width 0.
    interval = stratified_interval([0, 0, 0, 0, 1, 1], list("aaaabb"), num_draws=100, seed=0)
    assert interval == Interval(0.5, 0.5, 0.5, num_prompts=6, num_conditions=2)


def test_the_interval_is_that_of_the_binomial():
    # 100 prompts, half 0 and half 1: a draw's mean is Binomial(100, 0.5) / 100, whose 2.5 % and
    # 97.5 % quantiles are 0.40 and 0.60.
    values = [0.0, 1.0] * 50
    interval = stratified_interval(values, ["a"] * 100, num_draws=4000, seed=1)
    assert interval.mean == 0.5
    assert interval.low == pytest.approx(0.40, abs=0.011)
    assert interval.high == pytest.approx(0.60, abs=0.011)


def test_coverage_of_the_mean_is_near_its_name():
    # 300 samples of 25 normal values in each of 2 conditions with means 0 and 2 (truth: 1.0). The
    # percentile interval of n = 25 covers slightly less than 95 %.
    rng = np.random.default_rng(0)
    conditions = ["a"] * 25 + ["b"] * 25
    hits = 0
    for trial in range(300):
        values = np.concatenate([rng.normal(0, 1, 25), rng.normal(2, 1, 25)])
        interval = stratified_interval(values, conditions, num_draws=400, seed=trial)
        hits += interval.low <= 1.0 <= interval.high
    assert 0.89 <= hits / 300 <= 0.98


def test_the_same_seed_gives_the_same_interval():
    values, conditions = np.arange(20.0), ["a", "b"] * 10
    first = stratified_interval(values, conditions, num_draws=200, seed=3)
    assert first == stratified_interval(values, conditions, num_draws=200, seed=3)
    assert first != stratified_interval(values, conditions, num_draws=200, seed=4)


def test_a_missing_value_is_left_out_and_shown_in_the_count():
    interval = stratified_interval([1, NAN, 3, NAN], list("aabb"), num_draws=50, seed=0)
    # Single prompts remain in both conditions: a mean, but nothing to draw from.
    assert interval == Interval(2.0, None, None, num_prompts=2, num_conditions=2)


def test_no_value_at_all_gives_no_mean():
    interval = stratified_interval([NAN, NAN], ["a", "b"], num_draws=50, seed=0)
    assert interval == Interval(None, None, None, num_prompts=0, num_conditions=0)


def test_pairing_removes_the_spread_between_prompts():
    # Prompts differ by up to 10, the candidate is better by exactly 0.5 on each.
    baseline = np.linspace(0, 10, 12)
    interval = paired_interval(baseline + 0.5, baseline, ["a"] * 12, num_draws=100, seed=0)
    assert (interval.low, interval.mean, interval.high) == pytest.approx((0.5, 0.5, 0.5))
    alone = stratified_interval(baseline, ["a"] * 12, num_draws=100, seed=0)
    assert alone.high - alone.low > 2


def test_values_and_conditions_must_match():
    with pytest.raises(ValueError, match="got 2 values and 1 conditions"):
        stratified_interval([1, 2], ["a"], num_draws=10, seed=0)


def test_donors_are_drawn_with_all_their_prompts():
    # Two donors with 10 prompts each, 0 and 1: a draw of two donors has mean 0 (1/4), 0.5 (1/2) or
    # 1 (1/4), so the 2.5 % and 97.5 % quantiles are 0 and 1, however many prompts there are.
    donors = ["d0"] * 10 + ["d1"] * 10
    values = [0.0] * 10 + [1.0] * 10
    interval = clustered_interval(values, ["a"] * 20, donors, num_draws=500, seed=0)
    assert interval == Interval(0.5, 0.0, 1.0, 20, 1, num_units=2)
    by_prompt = stratified_interval(values, ["a"] * 20, num_draws=500, seed=0)
    assert by_prompt.low > 0.2


def test_a_donor_counts_in_every_condition_it_has_prompts_in():
    # d0 has condition a (0) and b (2), d1 only a (4). Mean: ((0 + 4) / 2 + 2) / 2 = 2. Draws: d0
    # twice: (0 + 2) / 2 = 1; one of each: 2; d1 twice: b has no prompt, 4.
    draws = {
        clustered_interval([0, 2, 4], list("aba"), ["d0", "d0", "d1"], num_draws=1, seed=s).low
        for s in range(20)
    }
    assert draws == {1.0, 2.0, 4.0}
    whole = clustered_interval([0, 2, 4], list("aba"), ["d0", "d0", "d1"], num_draws=9, seed=0)
    assert whole.mean == 2.0


def test_many_donors_of_one_prompt_are_the_plain_bootstrap_of_one_condition():
    values = np.random.default_rng(0).normal(size=60)
    donors = [f"d{i:02d}" for i in range(60)]
    by_donor = clustered_interval(values, ["a"] * 60, donors, num_draws=4000, seed=0)
    by_prompt = stratified_interval(values, ["a"] * 60, num_draws=4000, seed=1)
    assert by_donor.low == pytest.approx(by_prompt.low, abs=0.03)
    assert by_donor.high == pytest.approx(by_prompt.high, abs=0.03)


def test_one_donor_gives_a_mean_without_interval():
    assert clustered_interval([1, 3, NAN], list("aab"), ["d"] * 3, num_draws=9, seed=0) == Interval(
        2.0, None, None, 2, 1, num_units=1
    )
    assert clustered_interval([NAN], ["a"], ["d"], num_draws=9, seed=0).mean is None
    with pytest.raises(ValueError, match="got 2 values, 1 conditions and 2 units"):
        clustered_interval([1, 2], ["a"], ["d", "d"], num_draws=9, seed=0)


def test_ends_by_standard_error_stay_around_the_value():
    # Draws 3 and 5: standard deviation sqrt(2) with one degree of freedom; nan is left out.
    low, high = standard_error_ends(1.0, np.array([3.0, NAN, 5.0]))
    assert (low, high) == pytest.approx((1 - 1.959964 * 2**0.5, 1 + 1.959964 * 2**0.5))
    assert standard_error_ends(1.0, np.array([3.0, 5.0]), lowest=0.0)[0] == 0.0
    assert standard_error_ends(1.0, np.array([3.0, NAN])) == (None, None)


def test_mean_over_conditions_leaves_missing_values_out():
    assert mean_over_conditions([1, 3, 5, NAN], list("aabc")) == 3.5
    assert mean_over_conditions([NAN], ["a"]) is None
