"""Group-relative advantages: how much better each completion is than its siblings.

Shape suffixes: G completions of one prompt, P prompts of a step.
"""

import math
from collections.abc import Sequence
from enum import StrEnum

STD_EPS = 1e-4  # TRL's value: keeps a nearly constant group from being blown up to huge advantages


class AdvantageScale(StrEnum):
    """What centred rewards are divided by."""

    GROUP = "group"
    BATCH = "batch"
    NONE = "none"


def step_advantages(
    rewards_P_G: Sequence[Sequence[float | None]], *, scale: AdvantageScale
) -> tuple[tuple[float, ...], ...]:
    """Compare every completion of a step with its group.

    A_i = (r_i - mean(r_group)) / (s + eps), all std with n - 1 in the denominator:
      group  s = std(r_group): every prompt weighs the same         (GRPO, arXiv:2402.03300)
      batch  s = std(all r of the step): hard and easy prompts keep their spread,
             and a nearly constant group is not blown up            (arXiv:2508.08221)
      none   no division: no bias towards too easy or hard prompts  (Dr. GRPO, arXiv:2503.20783)

    Args:
        rewards_P_G: [P][G] rewards, unitless; None where a completion abstained. An abstention
            takes part in no mean and no std and gets advantage 0.
        scale: What to divide by.

    Returns:
        [P][G] advantages in the order of `rewards_P_G`; all 0.0 in a group whose rewards are equal
        or that has fewer than two scored completions.

    Raises:
        ValueError: If a group has fewer than 2 completions or a reward is not finite.
    """
    if scale != AdvantageScale.BATCH:
        return tuple(group_advantages(rewards_G, scale=scale) for rewards_G in rewards_P_G)
    centred_P_G = [_centred(rewards_G) for rewards_G in rewards_P_G]
    scored = [reward for rewards_G in rewards_P_G for reward in rewards_G if reward is not None]
    divisor = _sample_std(scored) + STD_EPS
    return tuple(tuple(value / divisor for value in centred_G) for centred_G in centred_P_G)


def group_advantages(
    rewards_G: Sequence[float | None], *, scale: AdvantageScale
) -> tuple[float, ...]:
    """Compare the completions of one group; as `step_advantages` for scalings that need no more.

    Args:
        rewards_G: [G] rewards; None where a completion abstained.
        scale: group or none.

    Returns:
        [G] advantages.

    Raises:
        ValueError: If the group has fewer than 2 completions, a reward is not finite, or the scale
            is batch.
    """
    if scale == AdvantageScale.BATCH:
        raise ValueError(
            "one group's advantages must be scaled by 'group' or 'none', got 'batch', "
            "which needs the rewards of the whole step"
        )
    centred_G = _centred(rewards_G)
    if scale == AdvantageScale.NONE:
        return centred_G
    divisor = _sample_std([reward for reward in rewards_G if reward is not None]) + STD_EPS
    return tuple(value / divisor for value in centred_G)


def zero_variance_groups(rewards_P_G: Sequence[Sequence[float | None]]) -> list[int]:
    """List the groups that teach nothing: fewer than two scored completions, or equal rewards.

    A loop may sample other prompts in their place (DAPO's dynamic sampling, arXiv:2503.14476).

    Returns:
        Indices into `rewards_P_G`, ascending.
    """
    return [index for index, rewards_G in enumerate(rewards_P_G) if not has_signal(rewards_G)]


def has_signal(rewards_G: Sequence[float | None]) -> bool:
    """Tell whether at least two completions were scored and not all the same."""
    return len({reward for reward in rewards_G if reward is not None}) > 1


def _centred(rewards_G: Sequence[float | None]) -> tuple[float, ...]:
    if len(rewards_G) < 2:
        raise ValueError(f"a group needs at least 2 completions to compare, got {len(rewards_G)}")
    scored = [reward for reward in rewards_G if reward is not None]
    for reward in scored:
        if not math.isfinite(reward):
            raise ValueError(f"a reward must be finite, got {reward} in {list(rewards_G)}")
    # asked of the rewards, not of the std: the mean of equal numbers can miss them by the last bit
    if not has_signal(rewards_G):
        return (0.0,) * len(rewards_G)
    mean = math.fsum(scored) / len(scored)
    return tuple(0.0 if reward is None else reward - mean for reward in rewards_G)


def _sample_std(rewards: Sequence[float]) -> float:
    if len(rewards) < 2:
        return 0.0
    mean = math.fsum(rewards) / len(rewards)
    return math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))
