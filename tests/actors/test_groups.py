"""Learning rate and figures of the learner group; the pools run in tests/integration."""

import pytest

from actors.groups import LearningRate, learn_figures
from actors.learner import RankStats
from actors.learner_config import LearnerConfig


def test_learning_rate_rises_then_stays():
    rate = LearningRate(LearnerConfig(lr=1.0, warmup_steps=4), num_steps=10)
    assert [rate.at(step) for step in (0, 1, 3, 4, 9)] == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_learning_rate_falls_linearly_after_warm_up():
    # 2 warm-up steps of 6; then 4 steps: 4/4, 3/4, 2/4, 1/4
    config = LearnerConfig(lr=1.0, warmup_steps=2, lr_schedule="linear")
    assert [LearningRate(config, 6).at(step) for step in range(6)] == [
        0.5,
        1.0,
        1.0,
        0.75,
        0.5,
        0.25,
    ]


def test_figures_are_means_over_the_tokens_of_all_ranks():
    names = ("ratio", "clipped_low", "clipped_high", "neg_logprob", "kl")
    stats = [
        RankStats(
            dict.fromkeys(names, 3.0) | {"tokens": 10.0, "loss": 0.25}, {"ratio_max": 1.5}, 2.0
        ),
        RankStats(
            dict.fromkeys(names, 1.0) | {"tokens": 30.0, "loss": 0.5}, {"ratio_max": 1.1}, 2.0
        ),
    ]
    figures = learn_figures(stats)
    assert figures["kl"] == pytest.approx(4.0 / 40.0)
    assert figures["clip_share"] == pytest.approx(8.0 / 40.0)
    assert figures["loss"] == 0.75  # each rank holds its share of the step's loss
    assert figures["ratio_max"] == 1.5
    assert figures["grad_norm"] == 2.0
