"""What a step of alignment reports: rewards, validity, lengths, probes, staleness, weights.

Left out: what the learner measures (loss, KL, ...) and who was busy when (`timeline.py`).
Shape suffixes: P prompts of a step, G completions of a prompt, T tokens.
"""

import math
from collections.abc import Sequence

import numpy as np

from c2s_rl.evaluation.probes import ProbeRuler, mean_of, probe_groups
from c2s_rl.pipeline.failure_budget import num_failed
from c2s_rl.types import Group, ScoredGroup


def mean_difference(
    groups: Sequence[Group], logprobs: Sequence[Sequence[Sequence[float]]]
) -> float:
    """Mean absolute difference between the sampler's and the learner's log-probabilities.

    Args:
        groups: P groups with the sampler's.
        logprobs: [P][G][T] the learner's.
    """
    differences = [
        abs(ours - theirs)
        for group, logprobs_G in zip(groups, logprobs, strict=True)
        for completion, logprobs_T in zip(group.completions_G, logprobs_G, strict=True)
        for ours, theirs in zip(completion.rollout_logprobs_T, logprobs_T, strict=True)
    ]
    return float(np.mean(differences))


def rollout_figures(
    scored: Sequence[ScoredGroup], advantages: Sequence[Sequence[float]]
) -> dict[str, float]:
    """Summarise a step's completions: rewards, validity, lengths.

    Rates are per word written: repeats of a gene and words that are no gene of the vocabulary.
    Completions without a total are counted by why: all rewards abstained, or one failed.
    """
    completions = [c for s in scored for c in s.group.completions_G]
    cells = [cell for s in scored for cell in s.group.cells_G]
    rewards = [[r for r in s.rewards_G if r is not None] for s in scored]
    num_missing = sum(r is None for s in scored for r in s.rewards_G)
    num_words = max(1, sum(cell.num_words for cell in cells))
    figures = {
        "reward_mean": _mean([r for group in rewards for r in group]),
        "reward_std": _mean([float(np.std(group)) for group in rewards if group]),
        "zero_variance_groups": float(sum(not any(a) for a in advantages)),
        "abstained": float(num_missing - sum(map(num_failed, scored))),
        "duplicate_rate": sum(cell.num_duplicates for cell in cells) / num_words,
        "unknown_rate": sum(len(cell.unknown) for cell in cells) / num_words,
        "truncated_rate": _mean([float(c.is_truncated) for c in completions]),
        "length_mean": _mean([float(len(c.token_ids_T)) for c in completions]),
        "genes_mean": _mean([float(len(cell.genes_K)) for cell in cells]),
        "num_tokens": float(sum(len(c.token_ids_T) for c in completions)),
    }
    for name in scored[0].components:
        figures[f"reward/{name}"] = _mean(
            [value for s in scored for value in s.components[name] if value is not None]
        )
    # a figure that a reward gives to some groups only, or not to a completion that it failed on
    for name in dict.fromkeys(name for s in scored for name in s.diagnostics):
        values = [v for s in scored for v in s.diagnostics.get(name, ())]
        figures[f"diagnostic/{name}"] = _mean([v for v in values if not math.isnan(v)])
    return figures


def probe_figures(groups: Sequence[Group], ruler: ProbeRuler) -> dict[str, float]:
    """Mean of every probe for reward hacking over a step's prompts; see `evaluation/probes.py`."""
    return {
        f"probe/{probe}": mean_of(values) for probe, values in probe_groups(groups, ruler).items()
    }


def staleness_figures(scored: Sequence[ScoredGroup], step: int) -> dict[str, float]:
    """Summarise how many optimiser steps the completions lag behind the policy of a step."""
    lags = [step - c.policy_version for s in scored for c in s.group.completions_G]
    return {"staleness_mean": _mean(lags), "staleness_max": float(max(lags))}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
