"""KL estimates, against exact sums over a small vocabulary."""

import pytest
import torch

from c2s_rl.grpo.kl import KL_ESTIMATORS, k1_kl, k2_kl, k3_kl
from c2s_rl.grpo.loss import TokenInputs, token_loss
from c2s_rl.grpo.loss_config import LossConfig

LOGITS = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([-0.2, 0.4, 0.9, -0.7], dtype=torch.float64).log_softmax(0)
SAMPLER = torch.tensor([0.5, -0.5, 0.2, 0.4], dtype=torch.float64).log_softmax(0)


def gradient(function):
    logits = LOGITS.clone().requires_grad_()
    function(logits.log_softmax(0)).backward()
    return logits.grad


def reverse_kl(policy):
    return (policy.exp() * (policy - REFERENCE)).sum()


def forward_kl(policy):
    return (REFERENCE.exp() * (REFERENCE - policy)).sum()


def expected_loss_gradient(*, is_off_policy=False, **options):
    """Gradient of the loss's KL part, averaged exactly over tokens drawn from the sampler."""
    config = LossConfig(beta=1.0, updates_per_batch=2 if is_off_policy else 1, **options)

    def mean_loss(policy):
        sampler = SAMPLER if is_off_policy else policy.detach()
        inputs = TokenInputs(
            policy=policy,
            advantages=torch.zeros_like(policy),
            weights=sampler.exp(),
            sampling=sampler if is_off_policy else None,
            reference=REFERENCE,
        )
        return token_loss(config, inputs).loss

    return gradient(mean_loss)


def test_values_of_k1_and_k3_are_unbiased_and_of_k2_nearly():
    policy = LOGITS.log_softmax(0)
    exact = reverse_kl(policy)
    for estimate in (k1_kl, k3_kl):
        torch.testing.assert_close((policy.exp() * estimate(policy, REFERENCE)).sum(), exact)
    k2 = (policy.exp() * k2_kl(policy, REFERENCE)).sum()
    assert 0 < abs(k2 - exact) < 0.1 * exact


def test_k2_and_k3_are_zero_for_equal_and_positive_for_other_policies():
    a = torch.tensor([-1.0, -2.0])
    for estimate in (k2_kl, k3_kl):
        assert estimate(a, a).tolist() == [0.0, 0.0]
        assert (estimate(a, a + torch.tensor([0.5, -0.5])) > 0).all()


def test_k1_as_a_loss_pulls_nowhere():
    torch.testing.assert_close(
        expected_loss_gradient(kl="k1"), torch.zeros_like(LOGITS), atol=1e-15, rtol=0
    )


def test_k2_as_a_loss_follows_the_reverse_kl():
    torch.testing.assert_close(expected_loss_gradient(kl="k2"), gradient(reverse_kl))


def test_k3_as_a_loss_follows_the_forward_kl():
    torch.testing.assert_close(expected_loss_gradient(kl="k3"), gradient(forward_kl))


@pytest.mark.parametrize("kl", ["k1", "k3"])
@pytest.mark.parametrize("is_off_policy", [False, True])
def test_the_corrected_form_follows_the_reverse_kl_off_policy_too(kl, is_off_policy):
    ours = expected_loss_gradient(kl=kl, kl_correction=True, is_off_policy=is_off_policy)
    torch.testing.assert_close(ours, gradient(reverse_kl))


def test_every_name_has_an_estimator():
    assert {"k1": k1_kl, "k2": k2_kl, "k3": k3_kl} == KL_ESTIMATORS
