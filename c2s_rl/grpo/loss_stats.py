"""Figures of a step's tokens, kept as sums and maxima so that chunks and ranks can be combined.

Left out: the reduction between ranks (sums add up, of maxima the largest counts).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False)
class LossStats:
    """Detached scalars by name; the same names on every rank, whatever it was given."""

    sums: Mapping[str, torch.Tensor]
    """Sums over real tokens; `loss_figures` says what each is divided by."""
    maxima: Mapping[str, torch.Tensor]
    """Largest value of a real token or completion; 0 where there was none."""

    def __add__(self, other: "LossStats") -> "LossStats":
        """Combine two disjoint sets of tokens."""
        sums = dict(self.sums)
        for name, value in other.sums.items():
            sums[name] = sums[name] + value if name in sums else value
        maxima = dict(self.maxima)
        for name, value in other.maxima.items():
            maxima[name] = torch.maximum(maxima[name], value) if name in maxima else value
        return LossStats(sums, maxima)


def total(values: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
    """Sum the real entries; whatever the others hold."""
    return torch.where(is_real, values.detach(), 0.0).sum()


def largest(values: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
    """Find the largest real entry of values >= 0; 0 when there is none."""
    if values.numel() == 0:
        return values.new_zeros(())
    return torch.where(is_real, values.detach(), 0.0).amax()


def loss_figures(sums: Mapping[str, float], maxima: Mapping[str, float]) -> dict[str, float]:
    """Turn a step's sums over all ranks into the figures of its metrics.

    Means over completion tokens: kl (k3, whatever the loss uses), ratio_mean, clip_low_share,
    clip_high_share, clip_share, entropy (exact where it was computed, else the mean of
    -log p(token), whose expectation it is), mismatch_mean, mismatch_abs (learner - sampler
    log-probability), mismatch_k1, mismatch_k3 (KL(sampler || learner)). Over the importance
    ratios, tokens or completions: mismatch_ratio_mean, mismatch_outside (share outside the band).
    Maxima: ratio_max, mismatch_max, mismatch_ratio_max. All mismatch figures are taken before any
    ratio is truncated.
    """
    num_tokens = max(1.0, sums["tokens"])
    figures = {
        "ratio_mean": sums["ratio"] / num_tokens,
        "clip_low_share": sums["clipped_low"] / num_tokens,
        "clip_high_share": sums["clipped_high"] / num_tokens,
        "clip_share": (sums["clipped_low"] + sums["clipped_high"]) / num_tokens,
        "entropy": sums.get("entropy", sums["neg_logprob"]) / num_tokens,
    }
    if "kl" in sums:
        figures["kl"] = sums["kl"] / num_tokens
    if "mismatch_ratios" in sums:
        num_ratios = max(1.0, sums["mismatch_ratios"])
        figures |= {
            "mismatch_mean": -sums["mismatch_k1"] / num_tokens,
            "mismatch_abs": sums["mismatch_abs"] / num_tokens,
            "mismatch_k1": sums["mismatch_k1"] / num_tokens,
            "mismatch_k3": sums["mismatch_k3"] / num_tokens,
            "mismatch_ratio_mean": sums["mismatch_ratio"] / num_ratios,
            "mismatch_outside": sums["mismatch_outside"] / num_ratios,
        }
    return figures | dict(maxima)
