"""Stratified bootstrap intervals."""

import numpy as np
import pytest

from c2s_rl.evaluation.bootstrap import Interval, paired_interval, stratified_interval

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
