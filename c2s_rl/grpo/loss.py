"""The GRPO objective over padded tensors, normalised over the whole optimiser step.

Shape suffixes: B completions of a micro-batch, T completion tokens (right-padded).
"""

from dataclasses import dataclass

import torch
from pydantic import Field

from c2s_rl.config import FrozenConfig


class LossConfig(FrozenConfig):
    """The clipped surrogate and its KL penalty."""

    clip_low: float = Field(0.2, gt=0, lt=1, description="Ratio is clipped below 1 - clip_low")
    clip_high: float = Field(0.2, gt=0, description="Ratio is clipped above 1 + clip_high")
    beta: float = Field(
        5e-3, ge=0, description="Weight of KL(policy || reference); 0 keeps no reference at all"
    )
    scale_by_std: bool = Field(default=True, description="Divide a group's advantages by their std")


@dataclass(frozen=True, eq=False)
class LossTerms:
    """The loss of a micro-batch and what is reported of it."""

    loss: torch.Tensor
    """Scalar; the losses of a step's micro-batches add up to the step's loss."""
    kl_sum: torch.Tensor
    """Scalar sum of the k3 estimates over real tokens; 0 without a reference."""
    clipped_sum: torch.Tensor
    """Scalar number of real tokens whose ratio the clip held back."""
    entropy_proxy_sum: torch.Tensor
    """Scalar sum of -log p(token) over real tokens, a one-sample estimate of the entropy."""


def k3_kl(policy_logprobs: torch.Tensor, reference_logprobs: torch.Tensor) -> torch.Tensor:
    """Estimate KL(policy || reference) per sampled token without bias or negative values.

    k3 = exp(r) - r - 1 with r = log p_reference - log p_policy  (Schulman 2020, approximating KL)

    Args:
        policy_logprobs: Any shape, natural logs under the policy that is trained.
        reference_logprobs: Same shape, under the frozen reference.

    Returns:
        Same shape, >= 0.
    """
    log_ratio = reference_logprobs - policy_logprobs
    return torch.exp(log_ratio) - log_ratio - 1.0


def grpo_loss(
    config: LossConfig,
    *,
    policy_logprobs_B_T: torch.Tensor,
    sampling_logprobs_B_T: torch.Tensor,
    reference_logprobs_B_T: torch.Tensor | None,
    advantages_B: torch.Tensor,
    mask_B_T: torch.Tensor,
    num_completions: int,
) -> LossTerms:
    """Compute the paper's objective for some completions of a step (to be minimised).

    L = -1/N sum_i 1/|o_i| sum_t { min(rho A_i, clip(rho, 1-eps, 1+eps) A_i) - beta k3 }
    with rho = exp(policy - sampling) and N the completions of the whole step, so that the sum over
    micro-batches and ranks is the step's loss however it was cut.

    Args:
        config: Clip range and beta.
        policy_logprobs_B_T: [B, T] with gradient; padded entries finite and ignored.
        sampling_logprobs_B_T: [B, T] of the policy at sampling time, without gradient.
        reference_logprobs_B_T: [B, T] of the frozen reference; None when beta is 0.
        advantages_B: [B] one advantage for every token of a completion.
        mask_B_T: [B, T] 1.0 for completion tokens (end-of-sequence included), 0.0 for padding.
        num_completions: N, over all micro-batches and ranks.

    Returns:
        Loss and sums for reporting.

    Raises:
        ValueError: If beta is above 0 and there is no reference.

    Source: arXiv:2402.03300 equation 3; C2S-Scale section 4.5.2.
    """
    if config.beta > 0 and reference_logprobs_B_T is None:
        raise ValueError(f"beta above 0 needs reference log-probabilities, got beta={config.beta}")
    ratio_B_T = torch.exp(policy_logprobs_B_T - sampling_logprobs_B_T)
    clipped_B_T = ratio_B_T.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    advantages_B_1 = advantages_B.unsqueeze(1)
    surrogate_B_T = ratio_B_T * advantages_B_1
    is_held_B_T = clipped_B_T * advantages_B_1 < surrogate_B_T
    objective_B_T = torch.minimum(surrogate_B_T, clipped_B_T * advantages_B_1)
    kl_sum = torch.zeros((), dtype=torch.float32)
    if reference_logprobs_B_T is not None:
        kl_B_T = k3_kl(policy_logprobs_B_T, reference_logprobs_B_T)
        objective_B_T = objective_B_T - config.beta * kl_B_T
        kl_sum = (kl_B_T * mask_B_T).sum().detach()
    # clamp: a completion without tokens (padding rows between ranks) has nothing to add
    lengths_B = mask_B_T.sum(dim=1).clamp(min=1.0)
    loss = -((objective_B_T * mask_B_T).sum(dim=1) / lengths_B).sum() / num_completions
    return LossTerms(
        loss=loss,
        kl_sum=kl_sum,
        clipped_sum=(is_held_B_T * mask_B_T).sum().detach(),
        entropy_proxy_sum=-(policy_logprobs_B_T * mask_B_T).sum().detach(),
    )
