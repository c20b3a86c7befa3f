"""The objective of an optimiser step, as a sum over its tokens that may be cut anywhere.

    L = - sum_tokens weight { w_importance f(rho, A) - beta kl + entropy_bonus H }

f is the loss's surrogate (`surrogates.py`), kl an estimate of KL(policy || reference) (`kl.py`),
w_importance the correction for the sampler (`importance.py`), H the policy's entropy. The weights
carry the normaliser of the whole step, so micro-batches, chunks and ranks just add up:

    grpo, gspo, sapo    1 / (N |o_i|)      mean over a completion, then over the N completions
    dr_grpo             1 / (N max_tokens) a constant: long answers are not favoured
    bnpo, dapo, cispo   1 / step's tokens  every token counts the same

(bnpo divides by the tokens of a batch; when the batch is the whole step, it is dapo's.)

rho = p / p_sampling. p_sampling is the learner's own at the first of the batch's mu updates: for
mu = 1 that is the policy itself, detached: rho = 1, with a gradient. For mu > 1 the learner keeps
the log-probabilities of its first pass; the clip then bounds how far the mu updates go. With
`sampling_logprobs: rollout` p_sampling is the sampler's, so that the clip also counts staleness and
engine mismatch as distance; otherwise those are left to `importance`.
Shape suffixes: B completions, T completion tokens; no suffix: any shape.
"""

from dataclasses import dataclass

import torch

from c2s_rl.grpo.importance import mismatch_weights
from c2s_rl.grpo.kl import KL_ESTIMATORS, k3_kl
from c2s_rl.grpo.loss_config import (
    LossConfig,
    LossName,
    SamplingLogprobs,
    is_on_policy,
    needs_whole_sequences,
    weighs_whole_completions,
)
from c2s_rl.grpo.loss_stats import LossStats, largest, total
from c2s_rl.grpo.surrogates import SURROGATES, Surrogate


@dataclass(frozen=True)
class StepTotals:
    """Counts over all micro-batches and ranks of one optimiser step."""

    num_completions: int
    """Completions, those with equal rewards and those without a token included."""
    num_tokens: int
    """Completion tokens."""
    max_tokens: int
    """Longest completion that the sampler may write."""


@dataclass(frozen=True, eq=False)
class TokenInputs:
    """What the loss of some tokens is made of; all of one shape, but for broadcasting."""

    policy: torch.Tensor
    """Natural log-probabilities of the sampled tokens under the policy, with gradient."""
    advantages: torch.Tensor
    """One a token, or [B, 1]."""
    weights: torch.Tensor
    """From `token_weights`: above 0 for real tokens, 0 for padding, where all others may hold
    anything."""
    sampling: torch.Tensor | None = None
    """The learner's at the batch's first update, needed when updates_per_batch is above 1 (in the
    first update that is `policy.detach()`); None otherwise."""
    rollout: torch.Tensor | None = None
    """The sampler's own; needed by `importance` and `sampling_logprobs: rollout`, else only
    compared."""
    reference: torch.Tensor | None = None
    """Under the frozen reference; needed when beta is above 0."""
    entropy: torch.Tensor | None = None
    """Of the policy's whole distribution, nats, with gradient; needed by `entropy_bonus`."""
    importance: torch.Tensor | None = None
    """Weights from `mismatch_weights` where they were made before; None makes them here."""


@dataclass(frozen=True, eq=False)
class LossTerms:
    """The loss of some tokens and what is reported of them."""

    loss: torch.Tensor
    """Scalar to be minimised; the losses of disjoint tokens add up to the step's."""
    stats: LossStats
    """Sums and maxima, see `loss_figures`."""


def step_divisor(config: LossConfig, totals: StepTotals) -> int:
    """Name the count that the whole step's loss is divided by; at least 1.

    grpo, gspo, sapo: N. dr_grpo: N max_tokens. bnpo, dapo, cispo: the step's tokens.
    """
    if config.name in {LossName.BNPO, LossName.DAPO, LossName.CISPO}:
        return max(1, totals.num_tokens)
    if config.name == LossName.DR_GRPO:
        return max(1, totals.num_completions * totals.max_tokens)
    return max(1, totals.num_completions)


def token_weights(config: LossConfig, mask_B_T: torch.Tensor, totals: StepTotals) -> torch.Tensor:
    """Normalise: the weight of every token in the step's loss.

    Args:
        config: Names the normaliser.
        mask_B_T: [B, T] 1.0 for completion tokens (end-of-sequence included), 0.0 for padding;
            whole completions, for |o_i| is counted here.
        totals: Of the whole step, not of these rows.

    Returns:
        [B, T] weights, 0 at padding.

    Source: arXiv:2402.03300 equation 3 (grpo); arXiv:2503.20783 (dr_grpo); arXiv:2503.14476 (dapo);
        TRL (bnpo); arXiv:2506.13585 (cispo); arXiv:2507.18071 (gspo);
        arXiv:2511.20347 (sapo).
    """
    weights_B_T = mask_B_T / step_divisor(config, totals)
    if config.name in {LossName.GRPO, LossName.GSPO, LossName.SAPO}:
        # clamp: a completion without tokens (a filler row between ranks) has nothing to add
        return weights_B_T / mask_B_T.sum(dim=1, keepdim=True).clamp(min=1.0)
    return weights_B_T


def token_loss(config: LossConfig, inputs: TokenInputs) -> LossTerms:
    """Compute the loss of any tokens of the step, chunk by chunk or all at once.

    Args:
        config: The objective.
        inputs: Tensors of any shape, of any part of the step.

    Returns:
        Loss and figures of these tokens.

    Raises:
        ValueError: If the config needs a tensor that is missing, or whole completions.
    """
    if needs_whole_sequences(config):
        raise ValueError(
            "a loss over whole completions must go through grpo_loss, "
            f"got name={config.name} and importance={config.importance} in token_loss"
        )
    if weighs_whole_completions(config) and inputs.importance is None:
        raise ValueError("sequence-level importance needs weights from mismatch_weights, got none")
    return _terms(config, inputs, log_ratio=_log_ratio(config, inputs))


def grpo_loss(config: LossConfig, inputs: TokenInputs) -> LossTerms:
    """Compute the loss of whole completions: every config, and the oracle of `token_loss`.

    gspo's ratio is the completion's, exp(mean_t log rho_t), the same on each of its tokens; the
    factor of `kl_correction` stays the token's, for only that one makes the gradient unbiased.

    Args:
        config: The objective.
        inputs: Tensors [B, T] of whole completions.

    Returns:
        Loss and figures of these completions.

    Raises:
        ValueError: If the config needs a tensor that is missing.

    Source: arXiv:2402.03300 equation 3; C2S-Scale section 4.5.2; arXiv:2507.18071 (GSPO).
    """
    log_ratio_B_T = _log_ratio(config, inputs)
    if config.name == LossName.GSPO and not is_on_policy(config):
        num_tokens_B_1 = (inputs.weights > 0).sum(dim=1, keepdim=True).clamp(min=1)
        mean_B_1 = log_ratio_B_T.sum(dim=1, keepdim=True) / num_tokens_B_1
        log_ratio_B_T = mean_B_1.expand_as(log_ratio_B_T)
    return _terms(config, inputs, log_ratio=log_ratio_B_T)


def _terms(config: LossConfig, inputs: TokenInputs, *, log_ratio: torch.Tensor) -> LossTerms:
    is_real = inputs.weights > 0
    ratio = torch.exp(log_ratio)
    policy = _real(inputs.policy, is_real)
    surrogate = SURROGATES[config.name](config, ratio, policy, inputs.advantages)
    importance, mismatch_stats = _importance(config, inputs)
    objective = surrogate.objective
    if importance is not None:
        objective = objective * importance
    objective = objective - _penalty(config, inputs)
    stats = _policy_stats(inputs, ratio, surrogate) + mismatch_stats
    return LossTerms(-(objective * inputs.weights).sum(), stats)


def _log_ratio(config: LossConfig, inputs: TokenInputs) -> torch.Tensor:
    """Compute log rho of every token; 0 at padding, so that exp cannot overflow there."""
    is_learners = config.sampling_logprobs == SamplingLogprobs.LEARNER
    if inputs.sampling is not None and not (is_learners and config.updates_per_batch > 1):
        raise ValueError(
            "the first update's log-probabilities must be left out when they are not read, got "
            f"some for updates_per_batch={config.updates_per_batch} and "
            f"sampling_logprobs={config.sampling_logprobs}"
        )
    if not is_learners:
        sampling = _given(inputs.rollout, "sampling_logprobs=rollout", "the sampler's")
    elif config.updates_per_batch > 1:
        sampling = _given(inputs.sampling, "updates_per_batch above 1", "the first update's")
    else:
        sampling = inputs.policy.detach()
    return _real(inputs.policy - sampling, inputs.weights > 0)


def _importance(config: LossConfig, inputs: TokenInputs) -> tuple[torch.Tensor | None, LossStats]:
    if inputs.importance is not None:
        return inputs.importance, LossStats({}, {})
    if config.importance is None and inputs.rollout is None:
        return None, LossStats({}, {})
    mismatch = mismatch_weights(
        config.importance,
        learner=inputs.policy if inputs.sampling is None else inputs.sampling,
        rollout=_given(inputs.rollout, "importance", "the sampler's"),
        is_real=inputs.weights > 0,
    )
    return mismatch.weights, mismatch.stats


def _penalty(config: LossConfig, inputs: TokenInputs) -> torch.Tensor:
    """Compute beta kl - entropy_bonus H, weighed like the surrogate."""
    is_real = inputs.weights > 0
    penalty = torch.zeros_like(inputs.weights)
    if config.beta > 0:
        reference = _real(_given(inputs.reference, "beta above 0", "the reference's"), is_real)
        kl = KL_ESTIMATORS[config.kl](_real(inputs.policy, is_real), reference)
        if config.kl_correction:
            kl = kl * torch.exp(_log_ratio(config, inputs))
        penalty = penalty + config.beta * kl
    if config.entropy_bonus > 0:
        if inputs.entropy is None:
            raise ValueError("entropy_bonus above 0 needs the policy's entropies, got none")
        penalty = penalty - config.entropy_bonus * _real(inputs.entropy, is_real)
    return penalty


def _policy_stats(inputs: TokenInputs, ratio: torch.Tensor, surrogate: Surrogate) -> LossStats:
    is_real = inputs.weights > 0
    sums = {
        "tokens": is_real.sum().to(ratio.dtype),
        "ratio": total(ratio, is_real),
        "clipped_low": (surrogate.is_held_low & is_real).sum().to(ratio.dtype),
        "clipped_high": (surrogate.is_held_high & is_real).sum().to(ratio.dtype),
        "neg_logprob": total(-inputs.policy, is_real),
    }
    if inputs.entropy is not None:
        sums["entropy"] = total(inputs.entropy, is_real)
    if inputs.reference is not None:
        sums["kl"] = total(k3_kl(inputs.policy.detach(), inputs.reference), is_real)
    return LossStats(sums, {"ratio_max": largest(ratio, is_real)})


def _given(values: torch.Tensor | None, option: str, whose: str) -> torch.Tensor:
    if values is None:
        raise ValueError(f"{option} needs {whose} log-probabilities, got none")
    return values


def _real(values: torch.Tensor, is_real: torch.Tensor) -> torch.Tensor:
    """Put 0 at padding, in value and gradient, whatever stands there (NaN included)."""
    return torch.where(is_real, values, 0.0)
