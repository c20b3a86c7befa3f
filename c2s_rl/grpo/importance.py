"""Truncated importance sampling: completions come from the sampler, gradients from the learner.

Even with equal weights an inference engine gives other log-probabilities than the learner (kernels,
precision), and with stale weights more so. The policy gradient of a token sampled with probability
mu is unbiased when it is multiplied by w = p / mu, p being the learner's probability at the first
update; w is kept in a band, because its variance has no bound. This is not the clipped ratio of
the surrogate: that is p_now / p, and holds the update back; this one only re-weighs the samples.
Shape suffixes: B completions, T completion tokens.
"""

from dataclasses import dataclass

import torch

from c2s_rl.grpo.kl import k3_kl
from c2s_rl.grpo.loss_config import ImportanceConfig, ImportanceLevel, ImportanceMode
from c2s_rl.grpo.loss_stats import LossStats, largest, total

# The product over a long completion leaves float32 at e^88; a mean of such ratios stays finite.
MAX_LOG_RATIO = 60.0


@dataclass(frozen=True, eq=False)
class Mismatch:
    """How far the sampler is from the learner, and what makes up for it."""

    weights: torch.Tensor | None
    """One detached weight a token, the completion's on each of its tokens for sequence level;
    any finite value at padding. None when there is no correction."""
    stats: LossStats
    """mismatch_*, of the raw ratios and log-probabilities."""


@torch.no_grad()
def mismatch_weights(
    config: ImportanceConfig | None,
    *,
    learner: torch.Tensor,
    rollout: torch.Tensor,
    is_real: torch.Tensor,
) -> Mismatch:
    """Weigh samples of one distribution for the gradient of another.

    token     w_t = exp(learner_t - rollout_t)
    sequence  w   = exp(sum_t (learner_t - rollout_t)), on every token of the completion
    truncate  w moves to the nearest edge of [low, high] (TIS; upper edge only in the source)
    mask      w outside [low, high] becomes 0 (the term is dropped, the normaliser is not)

    Statistics, before truncation: KL(sampler || learner) over tokens as k1 = rollout - learner and
    k3 = w_t - 1 - log w_t, mean and largest w, share of w outside the band. Without a config only
    they are made, over tokens.

    Args:
        config: The band; None corrects nothing.
        learner: [B, T], or flat [N] for token level; log-probabilities at the first update.
        rollout: Same shape, the sampler's own.
        is_real: Same shape, True at completion tokens; other entries may hold anything.

    Returns:
        Weights and statistics.

    Raises:
        ValueError: If completions cannot be told apart and the level is sequence.

    Source: Yao et al. 2025, Your efficient RL framework secretly brings you off-policy RL training;
        arXiv:2510.18855 (masked form).
    """
    gap = torch.where(is_real, learner - rollout, 0.0)
    ratio, is_ratio = _raw_ratios(config, gap, is_real)
    is_outside = _outside(config, ratio)
    stats = _token_stats(gap, is_real) + LossStats(
        sums={
            "mismatch_ratios": is_ratio.sum().to(gap.dtype),
            "mismatch_ratio": total(ratio, is_ratio),
            "mismatch_outside": is_outside.sum().to(gap.dtype),
        },
        maxima={"mismatch_ratio_max": largest(ratio, is_ratio)},
    )
    if config is None:
        return Mismatch(None, stats)
    if config.mode == ImportanceMode.TRUNCATE:
        weights = ratio.clamp(config.low, config.high)
    else:
        weights = ratio.masked_fill(is_outside, 0.0)
    return Mismatch(weights.expand_as(gap), stats)


def _raw_ratios(
    config: ImportanceConfig | None, gap: torch.Tensor, is_real: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One ratio a token, or [B, 1] one a completion; and which of them are of real tokens."""
    if config is None or config.level == ImportanceLevel.TOKEN:
        return torch.exp(gap), is_real
    if gap.dim() != 2:
        raise ValueError(
            "sequence-level importance must be given [B, T] log-probabilities, "
            f"got shape {list(gap.shape)}"
        )
    gap_B_1 = gap.sum(dim=1, keepdim=True).clamp(max=MAX_LOG_RATIO)
    return torch.exp(gap_B_1), is_real.any(dim=1, keepdim=True)


def _token_stats(gap: torch.Tensor, is_real: torch.Tensor) -> LossStats:
    # gap = learner - rollout: the sampler stands where k3 has the policy, the learner as reference
    k3 = k3_kl(torch.zeros_like(gap), gap)
    return LossStats(
        sums={
            "mismatch_k1": -gap.sum(),
            "mismatch_k3": total(k3, is_real),
            "mismatch_abs": gap.abs().sum(),
        },
        maxima={"mismatch_max": largest(gap.abs(), is_real)},
    )


def _outside(config: ImportanceConfig | None, ratio: torch.Tensor) -> torch.Tensor:
    # padding has ratio 1, which is inside every band
    is_outside = torch.zeros_like(ratio, dtype=torch.bool)
    if config is not None and config.low is not None:
        is_outside |= ratio < config.low
    if config is not None and config.high is not None:
        is_outside |= ratio > config.high
    return is_outside
