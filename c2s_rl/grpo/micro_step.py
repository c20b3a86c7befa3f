"""The loss of one packed micro-batch: where packing, fused head, gene trie and losses meet.

Where a token's loss depends on that token alone, the loss is handed to the LM head, which forms the
gradient while it has the logits; else log-probabilities come first and the loss follows. Both are
the same numbers. Left out: who runs the backward pass and the optimiser (`actors/learner.py`).
Shape suffixes: B completions, T completion tokens, N completion tokens of the micro-batch, W bytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from c2s_rl.decoding.gene_trie import GeneTrie
from c2s_rl.grpo.importance import mismatch_weights
from c2s_rl.grpo.loss import StepTotals, TokenInputs, grpo_loss, token_loss, token_weights
from c2s_rl.grpo.loss_config import LossConfig, needs_whole_sequences, weighs_whole_completions
from c2s_rl.grpo.loss_stats import LossStats
from c2s_rl.grpo.packing import PackedBatch, PackedPart, pack_rows
from c2s_rl.models.columns import RestrictedColumns
from c2s_rl.models.logprobs import FusedLogprobs, FusedLoss, TokenLoss
from c2s_rl.models.scorer import PackedInputs

Score = Callable[[PackedInputs, TokenLoss | None], FusedLogprobs | FusedLoss]


@dataclass(frozen=True)
class Support:
    """What the sampler could write, besides the whole vocabulary."""

    trie: GeneTrie
    max_tokens: int
    """Token budget that completions were sampled under."""

    def columns(self, parts: Sequence[PackedPart]) -> RestrictedColumns:
        """Recompute from the tokens what was allowed at each of them.

        Raises:
            DataError: If a completion holds a token that was not.
        """
        bits_N_W = np.concatenate(
            [
                self.trie.replay(row.completion_ids, max_tokens=self.max_tokens)
                for part in parts
                for row in part.rows
            ]
        )
        return RestrictedColumns(torch.from_numpy(self.trie.columns_U), torch.from_numpy(bits_N_W))


@dataclass(eq=False)
class MicroBatch:
    """One packed row of the step, kept until its last update."""

    inputs: PackedInputs
    batch: PackedBatch
    reference_N: torch.Tensor | None = None
    """[N] under the frozen reference; None when beta is 0."""
    sampling_N: torch.Tensor | None = None
    """[N] the learner's own at the first of several updates; None before that."""

    @classmethod
    def of(
        cls,
        parts: Sequence[PackedPart],
        *,
        pad_id: int,
        support: Support | None,
        device: torch.device,
    ) -> "MicroBatch":
        """Pack some parts; none at all gives a filler that weighs nothing."""
        batch = pack_rows(parts, pad_id).to(device)
        # the filler's one token is none of the trie's
        columns = support.columns(parts).to(device) if support and parts else None
        inputs = PackedInputs(
            batch.input_ids_1_L,
            batch.position_ids_1_L,
            batch.layout,
            batch.predict_N,
            batch.targets_N,
            columns,
        )
        return cls(inputs, batch)


@dataclass(frozen=True, eq=False)
class MicroTerms:
    """What one forward pass gave."""

    loss: torch.Tensor
    """Scalar to be minimised; micro-batches and ranks add up to the step's."""
    stats: LossStats
    logprobs_N: torch.Tensor
    """[N] the policy's, detached."""


def micro_loss(
    config: LossConfig, score: Score, micro: MicroBatch, totals: StepTotals
) -> MicroTerms:
    """Compute the loss of one micro-batch, with gradient.

    Args:
        config: The objective.
        score: `PackedScorer` or an engine around it.
        micro: With reference log-probabilities where beta is above 0, and with sampling ones from
            the second update on.
        totals: Of the whole optimiser step.
    """
    weights_B_T = token_weights(config, micro.batch.mask_B_T, totals)
    if _needs_whole_completions(config, micro):
        return _from_logprobs(config, score, micro, weights_B_T)
    return _while_scoring(config, score, micro, weights_B_T)


def _needs_whole_completions(config: LossConfig, micro: MicroBatch) -> bool:
    # In the first of several updates the weights of whole completions come out of this very pass.
    return needs_whole_sequences(config) or (
        weighs_whole_completions(config) and micro.sampling_N is None
    )


def _while_scoring(
    config: LossConfig, score: Score, micro: MicroBatch, weights_B_T: torch.Tensor
) -> MicroTerms:
    batch = micro.batch
    weights_N = batch.flat(weights_B_T)
    advantages_N = batch.flat(batch.advantages_B.unsqueeze(1).expand_as(weights_B_T))
    rollout_N = batch.flat(batch.rollout_logprobs_B_T)
    importance_N = _sequence_importance(config, micro, weights_B_T)
    collected: list[LossStats] = []

    def loss_of(
        logprobs_n: torch.Tensor, entropy_n: torch.Tensor | None, rows: slice
    ) -> torch.Tensor:
        terms = token_loss(
            config,
            TokenInputs(
                policy=logprobs_n,
                advantages=advantages_N[rows],
                weights=weights_N[rows],
                sampling=_sampling(config, micro, logprobs_n, rows),
                rollout=rollout_N[rows],
                reference=None if micro.reference_N is None else micro.reference_N[rows],
                entropy=entropy_n,
                importance=None if importance_N is None else importance_N[rows],
            ),
        )
        collected.append(terms.stats)
        return terms.loss

    scored = score(micro.inputs, loss_of)
    assert isinstance(scored, FusedLoss)
    stats = collected[0]
    for other in collected[1:]:
        stats = stats + other
    return MicroTerms(scored.loss, stats, scored.logprobs_N)


def _from_logprobs(
    config: LossConfig, score: Score, micro: MicroBatch, weights_B_T: torch.Tensor
) -> MicroTerms:
    batch = micro.batch
    scored = score(micro.inputs, None)
    assert isinstance(scored, FusedLogprobs)
    logprobs_N, entropy_N = scored
    sampling_N = _sampling(config, micro, logprobs_N, slice(None))
    terms = grpo_loss(
        config,
        TokenInputs(
            policy=batch.padded(logprobs_N),
            advantages=batch.advantages_B.unsqueeze(1),
            weights=weights_B_T,
            sampling=None if sampling_N is None else batch.padded(sampling_N),
            rollout=batch.rollout_logprobs_B_T,
            reference=None if micro.reference_N is None else batch.padded(micro.reference_N),
            entropy=None if entropy_N is None else batch.padded(entropy_N),
        ),
    )
    return MicroTerms(terms.loss, terms.stats, logprobs_N.detach())


def _sampling(
    config: LossConfig, micro: MicroBatch, logprobs_n: torch.Tensor, rows: slice
) -> torch.Tensor | None:
    if config.updates_per_batch == 1:
        return None
    return logprobs_n.detach() if micro.sampling_N is None else micro.sampling_N[rows]


def _sequence_importance(
    config: LossConfig, micro: MicroBatch, weights_B_T: torch.Tensor
) -> torch.Tensor | None:
    """Weights over whole completions, from the first update's log-probabilities."""
    if not weighs_whole_completions(config) or micro.sampling_N is None:
        return None
    batch = micro.batch
    weights = mismatch_weights(
        config.importance,
        learner=batch.padded(micro.sampling_N),
        rollout=batch.rollout_logprobs_B_T,
        is_real=weights_B_T > 0,
    ).weights
    return None if weights is None else batch.flat(weights.expand_as(weights_B_T))
