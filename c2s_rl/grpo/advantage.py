"""Group-relative advantages: how much better each completion is than its siblings.

Shape suffixes: G completions of one prompt, P prompts of a step.
"""

import math
from collections.abc import Sequence

STD_EPS = 1e-4  # TRL's value: keeps a nearly constant group from being blown up to huge advantages


def group_advantages(rewards_G: Sequence[float | None], *, scale_by_std: bool) -> list[float]:
    """Centre one group's rewards, optionally dividing by their sample standard deviation.

    A_i = (r_i - mean(r)) / (std(r) + eps)  when scale_by_std  (GRPO, arXiv:2402.03300)
    A_i =  r_i - mean(r)                    otherwise          (Dr. GRPO, arXiv:2503.20783)

    Args:
        rewards_G: [G] one reward per completion of the same prompt; None where it abstained. An
            abstention takes part in neither mean nor std and gets advantage 0.
        scale_by_std: Divide by the group's std (n - 1), so every prompt weighs the same.

    Returns:
        [G] advantages in the order of `rewards_G`; all 0.0 when the rewards are equal or fewer
        than two completions were scored.

    Raises:
        ValueError: If the group has fewer than 2 completions or a reward is not finite.
    """
    if len(rewards_G) < 2:
        raise ValueError(f"a group needs at least 2 completions to compare, got {len(rewards_G)}")
    scored = [reward for reward in rewards_G if reward is not None]
    for reward in scored:
        if not math.isfinite(reward):
            raise ValueError(f"a reward must be finite, got {reward} in {list(rewards_G)}")
    # min == max instead of std == 0: the mean of equal numbers can differ from them in the last bit
    if len(scored) < 2 or min(scored) == max(scored):
        return [0.0] * len(rewards_G)
    mean = math.fsum(scored) / len(scored)
    scale = 1.0
    if scale_by_std:
        variance = math.fsum((r - mean) ** 2 for r in scored) / (len(scored) - 1)
        scale = 1.0 / (math.sqrt(variance) + STD_EPS)
    return [0.0 if reward is None else (reward - mean) * scale for reward in rewards_G]
