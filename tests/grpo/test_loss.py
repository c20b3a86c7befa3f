"""The GRPO objective, by hand and against TRL on the same tensors."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOTrainer

from c2s_rl.grpo.loss import LossConfig, grpo_loss, k3_kl


def _tensors(seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    policy = -normal(4, 7).abs()
    mask = (torch.arange(7) < torch.tensor([7, 3, 1, 5]).unsqueeze(1)).float()
    return SimpleNamespace(
        policy=policy,
        sampling=policy + 0.3 * normal(4, 7),
        reference=policy + 0.3 * normal(4, 7),
        advantages=normal(4),
        mask=mask,
    )


def _loss(config, t, policy, *, rows=slice(None), num_completions=4):
    return grpo_loss(
        config,
        policy_logprobs_B_T=policy[rows],
        sampling_logprobs_B_T=t.sampling[rows],
        reference_logprobs_B_T=t.reference[rows],
        advantages_B=t.advantages[rows],
        mask_B_T=t.mask[rows],
        num_completions=num_completions,
    )


def test_one_token_by_hand():
    # ratio = e^0.5 = 1.6487, clipped to 1.2; advantage 2: min(3.2974, 2.4) = 2.4
    # k3 with r = log ref - log policy = -0.1: e^-0.1 + 0.1 - 1 = 0.004837418
    # loss = -(2.4 - 0.5 * 0.004837418) = -2.397581291
    terms = grpo_loss(
        LossConfig(beta=0.5),
        policy_logprobs_B_T=torch.tensor([[-1.0]]),
        sampling_logprobs_B_T=torch.tensor([[-1.5]]),
        reference_logprobs_B_T=torch.tensor([[-1.1]]),
        advantages_B=torch.tensor([2.0]),
        mask_B_T=torch.ones(1, 1),
        num_completions=1,
    )
    assert terms.loss.item() == pytest.approx(-2.397581291, abs=1e-6)
    assert terms.kl_sum.item() == pytest.approx(0.004837418, abs=1e-7)
    assert terms.clipped_sum.item() == 1.0
    assert terms.entropy_proxy_sum.item() == 1.0


def test_each_completion_weighs_the_same_whatever_its_length():
    # ratios 1, no KL: -(1/2) (1 x 3 + 1 x (-1)) = -1, though lengths are 3 and 1
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    zeros = torch.zeros(2, 3)
    terms = grpo_loss(
        LossConfig(beta=0.0),
        policy_logprobs_B_T=zeros,
        sampling_logprobs_B_T=zeros,
        reference_logprobs_B_T=None,
        advantages_B=torch.tensor([3.0, -1.0]),
        mask_B_T=mask,
        num_completions=2,
    )
    assert terms.loss.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_trl(seed, beta):
    t = _tensors(seed)
    ours = t.policy.clone().requires_grad_()
    loss = _loss(LossConfig(clip_low=0.2, clip_high=0.28, beta=beta), t, ours).loss
    loss.backward()
    theirs = t.policy.clone().requires_grad_()
    trl_loss = _trl_loss(t, theirs, clip=(0.2, 0.28), beta=beta)
    trl_loss.backward()
    assert loss.item() == pytest.approx(trl_loss.item(), abs=1e-6)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


def test_micro_batches_add_up_to_the_step():
    t = _tensors(0)
    config = LossConfig()
    whole = _loss(config, t, t.policy).loss.item()
    parts = [_loss(config, t, t.policy, rows=rows).loss.item() for rows in ([2], [0, 3], [1])]
    assert sum(parts) == pytest.approx(whole, abs=1e-6)


def test_padding_has_no_influence():
    t = _tensors(1)
    noisy = torch.where(t.mask.bool(), t.policy, torch.tensor(-50.0))
    assert _loss(LossConfig(), t, noisy).loss.item() == pytest.approx(
        _loss(LossConfig(), t, t.policy).loss.item(), abs=1e-6
    )


def test_beta_without_reference_is_refused():
    t = _tensors(0)
    with pytest.raises(ValueError, match=r"needs reference log-probabilities, got beta=0\.005"):
        grpo_loss(
            LossConfig(),
            policy_logprobs_B_T=t.policy,
            sampling_logprobs_B_T=t.sampling,
            reference_logprobs_B_T=None,
            advantages_B=t.advantages,
            mask_B_T=t.mask,
            num_completions=4,
        )


def test_k3_is_zero_for_equal_and_positive_for_other_policies():
    a = torch.tensor([-1.0, -2.0])
    assert k3_kl(a, a).tolist() == [0.0, 0.0]
    assert (k3_kl(a, a + torch.tensor([0.5, -0.5])) > 0).all()


def _trl_loss(t, policy, *, clip, beta):
    """Run the loss method of TRL's trainer itself on given log-probabilities."""
    trainer = object.__new__(GRPOTrainer)
    trainer.__dict__ |= _trl_state(policy, clip, beta)
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long),
        "prompt_mask": torch.ones(4, 1, dtype=torch.long),
        "completion_ids": torch.zeros(4, 7, dtype=torch.long),
        "completion_mask": t.mask.long(),
        "advantages": t.advantages,
        "old_per_token_logps": t.sampling,
        "ref_per_token_logps": t.reference,
    }
    return trainer._compute_loss(None, inputs)


def _trl_state(policy, clip, beta):
    """What `_compute_loss` reads of a trainer that was never set up."""
    return {
        "_get_per_token_logps_and_entropies": lambda *_, **__: (
            policy,
            torch.zeros_like(policy),
            None,
        ),
        "loss_type": "grpo",
        "importance_sampling_level": "token",
        "epsilon_low": clip[0],
        "epsilon_high": clip[1],
        "beta": beta,
        "args": SimpleNamespace(delta=None, use_bias_correction_kl=False),
        "model": SimpleNamespace(training=False),
        "accelerator": SimpleNamespace(reduce=lambda x, reduction: x, gather=lambda x: x),
        "_metrics": {"eval": defaultdict(list)},
        "top_entropy_quantile": 1.0,
        "off_policy_mask_threshold": None,
        "aux_loss_enabled": False,
        "use_vllm": False,
        "_entropy_bonus_enabled": False,
    }
