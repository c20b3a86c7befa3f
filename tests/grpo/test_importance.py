"""Importance weights by hand, and statistics taken before anything is cut off."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from c2s_rl.grpo.importance import mismatch_weights
from c2s_rl.grpo.loss_config import ImportanceConfig

# Ratios learner / sampler: 2, 1, 1/4 | 4, (padding); products 1/2 and 4
RATIOS = torch.tensor([[2.0, 1.0, 0.25], [4.0, 1.0, 1.0]], dtype=torch.float64)
IS_REAL = torch.tensor([[True, True, True], [True, False, False]])
ROLLOUT = torch.full_like(RATIOS, -3.0)


def weights_of(level, mode, low=0.4, high=3.0):
    config = ImportanceConfig(level=level, mode=mode, low=low, high=high)
    return mismatch_weights(
        config, learner=ROLLOUT + RATIOS.log(), rollout=ROLLOUT, is_real=IS_REAL
    )


def numbers(tensors):
    return {name: value.item() for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("level", "mode", "expected"),
    [
        ("token", "truncate", [[2, 1, 0.4], [3, 1, 1]]),
        ("token", "mask", [[2, 1, 0], [0, 1, 1]]),
        ("sequence", "truncate", [[0.5, 0.5, 0.5], [3, 3, 3]]),
        ("sequence", "mask", [[0.5, 0.5, 0.5], [0, 0, 0]]),
    ],
)
def test_ratios_outside_the_band(level, mode, expected):
    weights = weights_of(level, mode).weights
    torch.testing.assert_close(weights, torch.tensor(expected, dtype=torch.float64))


def test_one_edge_leaves_the_other_side_alone():
    upper = weights_of("token", "truncate", low=None, high=3.0).weights
    lower = weights_of("token", "mask", low=0.5, high=None).weights
    torch.testing.assert_close(upper[IS_REAL], torch.tensor([2, 1, 0.25, 3.0]).double())
    torch.testing.assert_close(lower[IS_REAL], torch.tensor([2, 1, 0.0, 4.0]).double())


@pytest.mark.parametrize("mode", ["truncate", "mask"])
def test_statistics_of_tokens_before_truncation(mode):
    # k1 = -log w: -log 2 - 0 + log 4 - log 4 = -log 2
    # k3 = w - 1 - log w: (1 - log 2) + 0 + (-3/4 + log 4) + (3 - log 4) = 3.25 - log 2
    stats = weights_of("token", mode).stats
    assert numbers(stats.sums) == pytest.approx(
        {
            "mismatch_k1": -math.log(2),
            "mismatch_k3": 3.25 - math.log(2),
            "mismatch_abs": 5 * math.log(2),
            "mismatch_ratios": 4.0,
            "mismatch_ratio": 7.25,
            "mismatch_outside": 2.0,
        }
    )
    assert numbers(stats.maxima) == pytest.approx(
        {"mismatch_ratio_max": 4.0, "mismatch_max": math.log(4)}
    )


def test_statistics_of_completions_count_completions():
    stats = weights_of("sequence", "mask", low=0.6).stats
    sums = numbers(stats.sums)
    assert sums["mismatch_ratios"] == 2.0
    assert sums["mismatch_ratio"] == pytest.approx(4.5)
    assert sums["mismatch_outside"] == 2.0


def test_without_a_band_there_are_statistics_and_no_weights():
    mismatch = mismatch_weights(
        None, learner=ROLLOUT + RATIOS.log(), rollout=ROLLOUT, is_real=IS_REAL
    )
    assert mismatch.weights is None
    assert mismatch.stats.sums["mismatch_ratio"].item() == pytest.approx(7.25)
    assert mismatch.stats.sums["mismatch_outside"].item() == 0.0


def test_flat_tokens_have_no_completions():
    config = ImportanceConfig(level="sequence", mode="mask")
    flat = torch.zeros(3)
    with pytest.raises(ValueError, match=r"given \[B, T\] log-probabilities, got shape \[3\]"):
        mismatch_weights(config, learner=flat, rollout=flat, is_real=flat == 0)


def test_the_ratio_of_a_long_completion_stays_finite():
    # a gap of 1 a token over 200 tokens: e^200 is no float32
    config = ImportanceConfig(level="sequence", mode="truncate")
    learner = torch.zeros(1, 200)
    mismatch = mismatch_weights(
        config, learner=learner, rollout=learner - 1.0, is_real=learner == 0
    )
    assert (mismatch.weights == 3.0).all()
    assert math.isfinite(mismatch.stats.sums["mismatch_ratio"].item())


def test_weights_carry_no_gradient():
    learner = torch.zeros(2, requires_grad=True)
    config = ImportanceConfig(level="token", mode="truncate")
    mismatch = mismatch_weights(
        config, learner=learner, rollout=torch.zeros(2), is_real=torch.ones(2, dtype=torch.bool)
    )
    assert not mismatch.weights.requires_grad


@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=6),
    st.floats(0.01, 0.9),
    st.floats(1.1, 9.0),
    st.sampled_from(["token", "sequence"]),
)
def test_weights_stay_in_the_band_and_equal_policies_weigh_one(gaps, low, high, level):
    gap = torch.tensor([gaps])
    is_real = torch.ones_like(gap, dtype=torch.bool)
    weights = {
        mode: mismatch_weights(
            ImportanceConfig(level=level, mode=mode, low=low, high=high),
            learner=gap,
            rollout=torch.zeros_like(gap),
            is_real=is_real,
        ).weights
        for mode in ("truncate", "mask")
    }
    assert ((weights["truncate"] >= low - 1e-6) & (weights["truncate"] <= high + 1e-6)).all()
    kept = weights["mask"] > 0
    torch.testing.assert_close(weights["mask"][kept], weights["truncate"][kept])
    same = mismatch_weights(
        ImportanceConfig(level=level, mode="mask", low=low, high=high),
        learner=gap,
        rollout=gap,
        is_real=is_real,
    )
    assert (same.weights == 1.0).all()
    assert same.stats.sums["mismatch_k3"].item() == 0.0
