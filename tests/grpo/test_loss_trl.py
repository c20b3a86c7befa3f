"""Losses, advantages and importance weights against TRL's own methods on the same tensors."""

import pytest
import torch

from c2s_rl.grpo.advantage import AdvantageScale, step_advantages
from c2s_rl.grpo.importance import mismatch_weights
from c2s_rl.grpo.loss import grpo_loss
from c2s_rl.grpo.loss_config import ImportanceConfig, LossName
from tests.grpo.loss_cases import ALL, config_of, loss_and_gradient, make_inputs, make_step
from tests.grpo.trl_oracle import trl_args, trl_loss, trl_scored

# gspo is TRL's grpo over one ratio a completion; cispo's epsilon_high is the cap itself.
IN_TRL = {
    LossName.GSPO: {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    LossName.CISPO: {"loss_type": "cispo", "epsilon_high": 5.0},
}


def assert_equal_to_trl(config, step, *, name, parts=(slice(None),), **settings):
    loss, gradient = loss_and_gradient(config, step)
    policy = step.policy.clone().requires_grad_()
    settings = {"loss_type": name, "beta": config.beta} | IN_TRL.get(name, {}) | settings
    theirs = sum(
        trl_loss(step, policy, rows=rows, accumulation=len(parts), **settings) for rows in parts
    )
    theirs.backward()
    torch.testing.assert_close(loss, theirs.detach(), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(gradient, policy.grad, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_trl(name, beta, seed):
    assert_equal_to_trl(config_of(name, beta=beta), make_step(seed), name=name)


@pytest.mark.parametrize("name", sorted(set(ALL) - {LossName.BNPO}))
def test_the_step_equals_trls_accumulation_of_micro_batches(name):
    # not bnpo: TRL divides it by the tokens of a micro-batch, here it is divided by the step's
    assert_equal_to_trl(config_of(name), make_step(5), name=name, parts=(slice(0, 2), slice(2, 4)))


@pytest.mark.parametrize("name", sorted(set(ALL) - {LossName.CISPO, LossName.SAPO}))
def test_clip_widths_and_largest_ratio_equal_trl(name):
    # seed 3: the third completion's ratio is 1.62 with a negative advantage, so max_ratio acts too
    config = config_of(name, clip_low=0.05, clip_high=0.1, max_ratio=1.15)
    step = make_step(3)
    unbounded = config_of(name, clip_low=0.05, clip_high=0.1)
    assert loss_and_gradient(config, step)[0] != loss_and_gradient(unbounded, step)[0]
    args = trl_args(delta=1.15)
    assert_equal_to_trl(config, step, name=name, epsilon_low=0.05, epsilon_high=0.1, args=args)


def test_cispo_cap_and_sapo_temperatures_equal_trl():
    capped = config_of(LossName.CISPO, cispo_max_ratio=0.9)
    assert_equal_to_trl(capped, make_step(2), name=LossName.CISPO, epsilon_high=0.9)
    gated = config_of(LossName.SAPO, sapo_temperature_positive=2.0, sapo_temperature_negative=3.0)
    args = trl_args(sapo_temperature_pos=2.0, sapo_temperature_neg=3.0)
    assert_equal_to_trl(gated, make_step(2), name=LossName.SAPO, args=args)


@pytest.mark.parametrize("name", sorted(set(ALL) - {LossName.GSPO}))
def test_kl_correction_equals_trl(name):
    # not gspo: TRL multiplies a token's KL by the completion's ratio there, which is not unbiased
    args = trl_args(use_bias_correction_kl=True)
    assert_equal_to_trl(config_of(name, kl_correction=True), make_step(3), name=name, args=args)


@pytest.mark.parametrize("name", [LossName.BNPO, LossName.DAPO, LossName.CISPO])
def test_entropy_bonus_equals_trl_where_the_loss_is_a_mean_over_tokens(name):
    step = make_step(4)
    step.entropy.requires_grad_()
    config = config_of(name, entropy_bonus=0.3)
    loss, _ = loss_and_gradient(config, step)
    ours, step.entropy.grad = step.entropy.grad, None
    theirs = trl_loss(
        step,
        step.policy,
        loss_type=name,
        beta=config.beta,
        _entropy_bonus_enabled=True,
        entropy_coef=0.3,
        **({"epsilon_high": 5.0} if name == LossName.CISPO else {}),
    )
    theirs.backward()
    torch.testing.assert_close(loss, theirs.detach(), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(ours, step.entropy.grad, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_importance_weights_enter_the_loss_as_in_trl(name):
    config = config_of(name, importance={"level": "token", "mode": "truncate"})
    step = make_step(6)
    policy = step.policy.clone().requires_grad_()
    loss = grpo_loss(config, make_inputs(config, step, policy, importance=step.importance)).loss
    theirs = trl_loss(
        step,
        step.policy,
        **({"loss_type": name, "beta": config.beta, "use_vllm": True} | IN_TRL.get(name, {})),
    )
    torch.testing.assert_close(loss.detach(), theirs, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("mode", ["truncate", "mask"])
@pytest.mark.parametrize(("low", "high"), [(None, 1.3), (0.5, None), (0.5, 1.3)])
def test_importance_weights_equal_trl(level, mode, low, high):
    step = make_step(7, dtype=torch.float32)
    rewards = [[0.0, 1.0, 2.0, 3.0]]
    scored = trl_scored(
        rewards,
        learner=step.sampling,
        rollout=step.rollout,
        lengths=[7, 3, 1, 5],
        vllm_importance_sampling_mode=f"{level}_{mode}",
        vllm_importance_sampling_clip_min=low,
        vllm_importance_sampling_clip_max=high,
    )
    ours = mismatch_weights(
        ImportanceConfig(level=level, mode=mode, low=low, high=high),
        learner=step.sampling,
        rollout=step.rollout,
        is_real=step.mask > 0,
    )
    theirs = scored["importance_sampling_ratio"].expand_as(step.mask)
    torch.testing.assert_close(ours.weights * step.mask, theirs * step.mask)
    # the completions' ratios are 0.26, 1.23, 0.68 and 4.07: each band leaves some and holds some
    assert 0 < ours.stats.sums["mismatch_outside"] < ours.stats.sums["mismatch_ratios"]


REWARDS = [[0.1, 0.5, 0.9, 0.7], [1.0, 1.0, 1.0, 1.0], [3.0, float("nan"), 2.0, 2.5]]


@pytest.mark.parametrize("scale", list(AdvantageScale))
def test_advantages_equal_trl(scale):
    theirs = trl_scored(REWARDS, scale_rewards=str(scale))["advantages"].view(3, 4)
    ours = step_advantages(
        [[None if r != r else r for r in rewards] for rewards in REWARDS],  # noqa: PLR0124 (NaN)
        scale=scale,
    )
    torch.testing.assert_close(torch.tensor(ours), theirs, atol=1e-6, rtol=1e-5)
