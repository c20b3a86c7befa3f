"""Which options go together, and what a config asks of the learner."""

import pytest

from c2s_rl.config import validate
from c2s_rl.errors import ConfigError
from c2s_rl.grpo.loss_config import (
    ImportanceConfig,
    LossConfig,
    LossName,
    can_learn_while_generating,
    is_on_policy,
    needs_whole_sequences,
)

SEQUENCE = {"level": "sequence", "mode": "truncate"}
TOKEN = {"level": "token", "mode": "truncate"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cispo", "clip_low": 0.2}, "clip_low must be set only for bnpo, dapo, dr_grpo"),
        ({"name": "sapo", "max_ratio": 3.0}, "max_ratio must be set only for .*got name=sapo"),
        ({"cispo_max_ratio": 4.0}, "cispo_max_ratio must be set only for cispo, got name=grpo"),
        ({"name": "dapo", "sapo_temperature_positive": 1.0}, "only for sapo, got name=dapo"),
        ({"name": "dapo", "sapo_temperature_negative": 1.0}, "only for sapo, got name=dapo"),
        ({"max_ratio": 1.1}, r"max_ratio must be above 1 \+ clip_high=1\.2, got 1\.1"),
        ({"kl": "k2", "kl_correction": True}, "must go with k1 or k3 .* got kl=k2"),
        (
            {"sampling_logprobs": "rollout", "importance": TOKEN},
            "importance must go with sampling_logprobs=learner .* got sampling_logprobs=rollout",
        ),
        ({"importance": TOKEN | {"high": None}}, "must have low or high, got neither"),
        ({"importance": TOKEN | {"low": 1.0}}, r"less than 1, got 1\.0 at 'importance\.low'"),
        ({"importance": TOKEN | {"high": 0.9}}, r"greater than 1, got 0\.9 at 'importance\.high"),
        ({"scale_by_std": True}, "must be known, got 'scale_by_std' .* did you mean 'scale'"),
        ({"name": "ppo"}, "'grpo', 'dr_grpo', .*got 'ppo' at 'name'"),
    ],
)
def test_options_that_do_nothing_or_contradict_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        validate(LossConfig, options, "run.yaml")


def test_existing_keys_of_yaml_files_stay_valid():
    config = validate(LossConfig, {"beta": 0.02, "clip_low": 0.1, "clip_high": 0.3}, "run.yaml")
    assert (config.name, config.beta, config.clip_low, config.clip_high) == ("grpo", 0.02, 0.1, 0.3)


def test_a_default_of_another_loss_is_no_setting():
    assert LossConfig(name="cispo").clip_low == 0.2


def test_upper_edge_is_trls():
    assert (ImportanceConfig(**TOKEN).low, ImportanceConfig(**TOKEN).high) == (None, 3.0)


def test_ratio_is_one_for_one_update_over_the_learners_own():
    assert is_on_policy(LossConfig())
    assert not is_on_policy(LossConfig(updates_per_batch=2))
    assert not is_on_policy(LossConfig(sampling_logprobs="rollout"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, False),
        ({"importance": TOKEN}, False),
        ({"importance": SEQUENCE}, True),
        ({"importance": SEQUENCE, "updates_per_batch": 2}, False),
        ({"name": "gspo"}, False),
        ({"name": "gspo", "updates_per_batch": 2}, True),
        ({"name": "gspo", "sampling_logprobs": "rollout"}, True),
        ({"name": "gspo", "importance": SEQUENCE, "updates_per_batch": 2}, True),
    ],
)
def test_whole_completions_where_the_policy_is_summed_over_them(options, expected):
    assert needs_whole_sequences(LossConfig(**options)) is expected


def test_learning_may_start_where_normalisers_are_planned_counts():
    early = {name for name in LossName if can_learn_while_generating(LossConfig(name=name))}
    assert early == {"grpo", "dr_grpo", "gspo", "sapo"}
    assert not can_learn_while_generating(LossConfig(scale="batch"))
