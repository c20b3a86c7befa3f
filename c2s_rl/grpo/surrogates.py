"""What a token's ratio and advantage are worth: one function a family of losses.

Every surrogate has the policy gradient A d log p where the ratio is 1, so on policy the losses
differ by their normalisers only (`loss.py`). They differ in how far from the sampling policy a
token keeps pulling.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from c2s_rl.grpo.loss_config import LossConfig, LossName


@dataclass(frozen=True, eq=False)
class Surrogate:
    """One value a token, to be maximised, and where the ratio's bound held it back."""

    objective: torch.Tensor
    """Same shape as the ratio."""
    is_held_low: torch.Tensor
    """Same shape, True where a ratio too small was cut off although A < 0."""
    is_held_high: torch.Tensor
    """Same shape, True where a ratio too large was cut off although A > 0."""


SurrogateFunction = Callable[[LossConfig, torch.Tensor, torch.Tensor, torch.Tensor], Surrogate]


def clipped_surrogate(
    config: LossConfig, ratio: torch.Tensor, policy: torch.Tensor, advantages: torch.Tensor
) -> Surrogate:
    """min(rho A, clip(rho, 1 - low, 1 + high) A): beyond the clip a token stops pulling.

    With `max_ratio` the first rho is at most that, which bounds tokens of negative advantage too.

    Args:
        config: Clip range.
        ratio: Any shape, rho = p / p_sampling, with gradient.
        policy: Same shape, log p of the sampled token; not used here.
        advantages: Broadcast to that shape.

    Returns:
        Objective and flags.

    Source: arXiv:1707.06347 (PPO); two widths arXiv:2503.14476 (DAPO); max_ratio
        arXiv:2505.07291 (INTELLECT-2); with a completion's ratio arXiv:2507.18071 (GSPO).
    """
    del policy
    low, high = 1.0 - config.clip_low, 1.0 + config.clip_high
    bounded = ratio if config.max_ratio is None else ratio.clamp(max=config.max_ratio)
    return Surrogate(
        torch.minimum(bounded * advantages, ratio.clamp(low, high) * advantages),
        (ratio < low) & (advantages < 0),
        (ratio > high) & (advantages > 0),
    )


def cispo_surrogate(
    config: LossConfig, ratio: torch.Tensor, policy: torch.Tensor, advantages: torch.Tensor
) -> Surrogate:
    """stop_gradient(min(rho, max)) A log p: REINFORCE with a bounded weight, no token goes silent.

    Arguments and result as of `clipped_surrogate`.

    Source: arXiv:2506.13585 (MiniMax-M1); an upper cap alone arXiv:2510.13786 (ScaleRL).
    """
    cap = config.cispo_max_ratio
    return Surrogate(
        ratio.detach().clamp(max=cap) * advantages * policy,
        torch.zeros_like(ratio, dtype=torch.bool),
        (ratio > cap) & (advantages > 0),
    )


def sapo_surrogate(
    config: LossConfig, ratio: torch.Tensor, policy: torch.Tensor, advantages: torch.Tensor
) -> Surrogate:
    """(4 / tau) sigmoid(tau (rho - 1)) A: the pull fades smoothly on both sides of rho = 1.

    tau is the positive temperature where A > 0 and the negative one elsewhere. Arguments and result
    as of `clipped_surrogate`; nothing is cut off, so no flag is set.

    Source: arXiv:2511.20347 (Soft Adaptive Policy Optimization).
    """
    del policy
    temperature = torch.where(
        advantages > 0, config.sapo_temperature_positive, config.sapo_temperature_negative
    )
    gate = torch.sigmoid(temperature * (ratio - 1.0)) * 4.0 / temperature
    never = torch.zeros_like(ratio, dtype=torch.bool)
    return Surrogate(gate * advantages, never, never)


SURROGATES: dict[LossName, SurrogateFunction] = {
    LossName.GRPO: clipped_surrogate,
    LossName.DR_GRPO: clipped_surrogate,
    LossName.BNPO: clipped_surrogate,
    LossName.DAPO: clipped_surrogate,
    LossName.GSPO: clipped_surrogate,
    LossName.CISPO: cispo_surrogate,
    LossName.SAPO: sapo_surrogate,
}
