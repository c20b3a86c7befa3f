"""One-sample estimates of KL(policy || reference), and which gradient each of them gives.

With x drawn from the policy p, q the reference, g = d log p(x), and u = log p(x) - log q(x):

    name  value          bias of the value   E[gradient of the value]
    k1    u              none                E[g] = 0: put into a loss it holds the policy nowhere
    k2    u^2 / 2        some                E[u g] = d KL(p || q), the reverse KL
    k3    e^-u + u - 1   none, never < 0     E[(1 - q/p) g] = d KL(q || p), the forward KL

The value differentiated is one thing and the expectation differentiated another: d E_p[k] also
moves p under the expectation. Multiplying by the ratio rho = p / p_sampling adds that part
(`kl_correction`): E[d(rho k)] = d E_p[k], which for k1 and k3 is d KL(p || q), off policy too.
Each token is taken given the tokens before it; the effect of a token on later tokens' KL is left
out, as in every GRPO trainer.

Source: Schulman 2020, Approximating KL divergence; arXiv:2512.02556, DeepSeek-V3.2 (corrected).
"""

from collections.abc import Callable

import torch

from c2s_rl.grpo.loss_config import KlEstimator

Estimator = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def k1_kl(policy_logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """k1 = log p - log q: unbiased, of either sign, without pull when used as a loss by itself.

    Args:
        policy_logprobs: Any shape, natural logs of the sampled tokens under the policy p.
        reference_logprobs: Same shape, under the reference q.

    Returns:
        Same shape, nats.
    """
    return policy_logprobs - reference_logprobs


def k2_kl(policy_logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """k2 = (log p - log q)^2 / 2: >= 0, a little biased, right gradient on policy; as `k1_kl`."""
    return 0.5 * (policy_logprobs - reference_logprobs) ** 2


def k3_kl(policy_logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """k3 = q/p - 1 - log(q/p): >= 0, unbiased and of low variance; arguments as of `k1_kl`."""
    log_ratio = reference_logprobs - policy_logprobs
    return torch.exp(log_ratio) - log_ratio - 1.0


KL_ESTIMATORS: dict[KlEstimator, Estimator] = {
    KlEstimator.K1: k1_kl,
    KlEstimator.K2: k2_kl,
    KlEstimator.K3: k3_kl,
}
