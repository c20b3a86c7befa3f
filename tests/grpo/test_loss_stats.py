"""Sums and maxima of a step, and the figures made of them."""

import pytest
import torch

from c2s_rl.grpo.loss_stats import LossStats, largest, loss_figures, total

SUMS = {"tokens": 4.0, "ratio": 6.0, "clipped_low": 1.0, "clipped_high": 2.0, "neg_logprob": 8.0}


def test_sums_add_up_and_maxima_take_the_largest():
    a = LossStats({"x": torch.tensor(1.0)}, {"m": torch.tensor(5.0)})
    b = LossStats({"x": torch.tensor(2.0), "y": torch.tensor(4.0)}, {"m": torch.tensor(3.0)})
    both = a + b
    assert {k: v.item() for k, v in both.sums.items()} == {"x": 3.0, "y": 4.0}
    assert {k: v.item() for k, v in both.maxima.items()} == {"m": 5.0}
    assert a.sums["x"].item() == 1.0


def test_figures_by_hand():
    figures = loss_figures(SUMS, {"ratio_max": 3.5})
    assert figures == {
        "ratio_mean": 1.5,
        "clip_low_share": 0.25,
        "clip_high_share": 0.5,
        "clip_share": 0.75,
        "entropy": 2.0,  # -log p of the tokens drawn, for want of the exact one
        "ratio_max": 3.5,
    }


def test_exact_entropy_and_mismatch_where_they_were_measured():
    sums = SUMS | {"entropy": 4.0, "kl": 1.0}
    sums |= {"mismatch_k1": 0.4, "mismatch_k3": 0.8, "mismatch_abs": 2.0}
    # one ratio a completion: two of them
    sums |= {"mismatch_ratios": 2.0, "mismatch_ratio": 3.0, "mismatch_outside": 1.0}
    figures = loss_figures(sums, {})
    assert (figures["entropy"], figures["kl"]) == (1.0, 0.25)
    assert figures["mismatch_k1"] == pytest.approx(0.1)
    assert figures["mismatch_mean"] == pytest.approx(-0.1)  # learner - sampler
    assert figures["mismatch_k3"] == pytest.approx(0.2)
    assert figures["mismatch_abs"] == 0.5
    assert figures["mismatch_ratio_mean"] == 1.5
    assert figures["mismatch_outside"] == 0.5


def test_entries_that_are_not_real_count_for_nothing():
    values = torch.tensor([1.0, float("nan"), 2.0, float("inf")])
    is_real = torch.tensor([True, False, True, False])
    assert total(values, is_real).item() == 3.0
    assert largest(values, is_real).item() == 2.0
    assert largest(values[:0], is_real[:0]).item() == 0.0
