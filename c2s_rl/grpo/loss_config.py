"""Which objective is trained and how: names, parameters, and what they imply for the learner.

Left out: the formulas (`loss.py`, `surrogates.py`, `kl.py`, `importance.py`). Nothing here needs
tensors, so a run file is checked without loading torch.
"""

from enum import StrEnum

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.grpo.advantage import AdvantageScale


class LossName(StrEnum):
    """Objectives; `surrogates.py` and `loss.py` hold what sets them apart."""

    GRPO = "grpo"
    DR_GRPO = "dr_grpo"
    BNPO = "bnpo"
    DAPO = "dapo"
    CISPO = "cispo"
    GSPO = "gspo"
    SAPO = "sapo"


class KlEstimator(StrEnum):
    """One-sample estimates of KL(policy || reference), see `kl.py`."""

    K1 = "k1"
    K2 = "k2"
    K3 = "k3"


class SamplingLogprobs(StrEnum):
    """Whose log-probabilities stand under the fraction of the policy ratio."""

    LEARNER = "learner"
    ROLLOUT = "rollout"


class ImportanceLevel(StrEnum):
    """What one ratio learner / sampler is taken over."""

    TOKEN = "token"
    SEQUENCE = "sequence"


class ImportanceMode(StrEnum):
    """What becomes of a ratio outside the band."""

    TRUNCATE = "truncate"
    MASK = "mask"


class ImportanceConfig(FrozenConfig):
    """Correction for an engine whose log-probabilities differ from the learner's."""

    level: ImportanceLevel = Field(description="One ratio a token, or one a completion (product)")
    mode: ImportanceMode = Field(
        description="Outside [low, high]: truncate moves the ratio to the edge, mask drops the term"
    )
    # 1, the ratio of equal distributions, lies inside the band
    low: float | None = Field(None, ge=0, lt=1, description="Lower edge; None has no edge")
    high: float | None = Field(3.0, gt=1, description="Upper edge; None has no edge")

    @model_validator(mode="after")
    def _is_a_band(self) -> "ImportanceConfig":
        if self.low is None and self.high is None:
            raise ValueError("importance must have low or high, got neither")
        return self


CLIPPED = frozenset({LossName.GRPO, LossName.DR_GRPO, LossName.BNPO, LossName.DAPO, LossName.GSPO})
# Parameters that belong to some losses only: setting one for another loss would do nothing.
READ_BY = {
    "clip_low": CLIPPED,
    "clip_high": CLIPPED,
    "max_ratio": CLIPPED,
    "cispo_max_ratio": frozenset({LossName.CISPO}),
    "sapo_temperature_positive": frozenset({LossName.SAPO}),
    "sapo_temperature_negative": frozenset({LossName.SAPO}),
}


class LossConfig(FrozenConfig):
    """The objective of one optimiser step."""

    name: LossName = Field(LossName.GRPO, description="The loss")
    clip_low: float = Field(
        0.2, gt=0, lt=1, description="Ratio is clipped below 1 - clip_low; gspo's paper has 3e-4"
    )
    clip_high: float = Field(
        0.2,
        gt=0,
        description="Ratio is clipped above 1 + clip_high; dapo's paper has 0.28, gspo's 4e-4",
    )
    max_ratio: float | None = Field(
        None,
        gt=1,
        description="Largest ratio even where the advantage is negative, which clip_high leaves "
        "unbounded (TRL's delta); None has no bound",
    )
    cispo_max_ratio: float = Field(
        5.0, gt=0, description="cispo's cap of the ratio (ScaleRL's value; TRL's epsilon_high)"
    )
    sapo_temperature_positive: float = Field(
        1.0, gt=0, description="sapo's gate steepness where the advantage is positive"
    )
    sapo_temperature_negative: float = Field(
        1.05, gt=0, description="sapo's gate steepness elsewhere"
    )
    beta: float = Field(
        5e-3, ge=0, description="Weight of KL(policy || reference); 0 keeps no reference at all"
    )
    kl: KlEstimator = Field(KlEstimator.K3, description="Estimator that beta weighs")
    kl_correction: bool = Field(
        default=False,
        description="Multiply the KL estimate by the token's ratio: unbiased gradient "
        "(TRL's use_bias_correction_kl)",
    )
    entropy_bonus: float = Field(0.0, ge=0, description="Weight of the policy's entropy, nats")
    scale: AdvantageScale = Field(
        AdvantageScale.GROUP, description="Std that advantages are divided by"
    )
    updates_per_batch: int = Field(
        1, ge=1, description="mu, optimiser updates made from the same completions"
    )
    sampling_logprobs: SamplingLogprobs = Field(
        SamplingLogprobs.LEARNER,
        description="Denominator of the ratio: the learner's own at the first update, or the "
        "sampler's (clips staleness too)",
    )
    importance: ImportanceConfig | None = Field(
        None, description="Correction for engine mismatch and staleness; None makes none"
    )

    @model_validator(mode="after")
    def _sets_nothing_that_is_not_read(self) -> "LossConfig":
        for field, losses in READ_BY.items():
            if field in self.model_fields_set and self.name not in losses:
                readers = ", ".join(sorted(losses))
                raise ValueError(f"{field} must be set only for {readers}, got name={self.name}")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> "LossConfig":
        if self.max_ratio is not None and self.max_ratio <= 1 + self.clip_high:
            raise ValueError(
                f"max_ratio must be above 1 + clip_high={1 + self.clip_high}, got {self.max_ratio}"
            )
        if self.kl_correction and self.kl == KlEstimator.K2:
            raise ValueError(
                "kl_correction must go with k1 or k3 (k2's own gradient is the unbiased one), "
                f"got kl={self.kl}"
            )
        if self.importance is not None and self.sampling_logprobs == SamplingLogprobs.ROLLOUT:
            raise ValueError(
                "importance must go with sampling_logprobs=learner (a ratio against the sampler "
                f"corrects the mismatch already), got sampling_logprobs={self.sampling_logprobs}"
            )
        return self


def is_on_policy(config: LossConfig) -> bool:
    """Tell whether the ratio is 1 by construction: one update, over the learner's own logs.

    Then no pass for sampling-time log-probabilities is needed; the policy's own, detached, are
    they. (A stale batch is on-policy in this sense: what lies between the sampler's weights and the
    learner's is left to `importance`.)
    """
    return config.updates_per_batch == 1 and config.sampling_logprobs == SamplingLogprobs.LEARNER


def weighs_whole_completions(config: LossConfig) -> bool:
    """Tell whether the correction for the sampler is one ratio a completion."""
    return config.importance is not None and config.importance.level == ImportanceLevel.SEQUENCE


def needs_whole_sequences(config: LossConfig) -> bool:
    """Tell whether a token's loss depends on the policy at the completion's other tokens.

    True where the policy's log-probabilities have to be summed over a completion first: gspo off
    policy, and sequence-level importance when the learner's sampling-time log-probabilities come
    out of the same pass (on-policy). Then only `grpo_loss` is right. On-policy gspo is False: its
    ratio is 1, and d exp(mean_t r_t) = mean_t d r_t, which is grpo's gradient token by token.
    With several updates sequence-level importance is False too: `mismatch_weights` can be had
    before the pass and handed to `token_loss`.
    """
    if is_on_policy(config):
        return weighs_whole_completions(config)
    return config.name == LossName.GSPO


def can_learn_while_generating(config: LossConfig) -> bool:
    """Tell whether a finished group's loss is known before the step's other groups are sampled.

    True where weights need planned counts only (grpo, gspo, sapo: completions; dr_grpo: completions
    and max_tokens) and advantages only their own group. bnpo, dapo and cispo divide by the step's
    tokens, `scale: batch` by the std over the whole step. Planned counts are the true ones as long
    as no group is dropped; where one was, every gradient is off by the same factor
    `step_divisor(planned) / step_divisor(actual)`.
    """
    return (
        config.name in {LossName.GRPO, LossName.DR_GRPO, LossName.GSPO, LossName.SAPO}
        and config.scale != AdvantageScale.BATCH
    )
