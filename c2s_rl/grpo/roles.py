"""The three roles of the GRPO loop. The loop knows these Protocols only; `actors/` fills them.

Shape suffixes: G completions of one prompt, P prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from c2s_rl.types import Group, PromptRecord, ScoredGroup


@dataclass(frozen=True)
class RolloutRequest:
    """One prompt to sample a group for."""

    record: PromptRecord
    """The prompt."""
    seed: int
    """Seeds the G samples, so that they do not depend on what else is in the batch."""
    ticket: int = 0
    """Tells it from the others that are being sampled; comes back with its group."""
    num_samples: int | None = None
    """Completions to sample; None takes the run's group size."""
    max_tokens: int | None = None
    """Longest completion, in tokens; None takes the run's."""
    cache_scope: str = ""
    """What the sampler computed for a prompt is reused by requests of the same scope only, so that
    one scope's numbers do not depend on whether another was sampled before, not even by rounding.
    '' is the training prompts'."""


@dataclass(frozen=True)
class RolloutAnswer:
    """One request that is finished."""

    ticket: int
    """Of the request."""
    group: Group
    """All its samples."""


class WeightsForm(StrEnum):
    """What a published version consists of, and so how a rollout worker takes it."""

    SHARED_MEMORY = "shared_memory"
    """Whole weights in a mapped file of this machine."""
    ADAPTER = "adapter"
    """A folder with a LoRA adapter; the frozen weights are the engine's own."""
    DELIVERED = "delivered"
    """The engines hold the weights already: they were sent to while the learner published."""


@dataclass(frozen=True)
class TensorSpec:
    """Where one named tensor lies in the published weights."""

    name: str
    """Hugging Face parameter name."""
    dtype: str
    """Torch dtype name without the prefix, for example 'float32'."""
    shape: tuple[int, ...]
    """Full (ungathered) shape."""
    offset: int
    """Byte offset in the published file."""


@dataclass(frozen=True)
class BucketSpec:
    """Whole layers that were gathered, written and are checked together."""

    offset: int
    """Byte offset in the published file."""
    num_bytes: int
    """Size, padding included."""
    checksum: int
    """Of those bytes; the receiver compares it before it loads anything."""
    tensors: tuple[TensorSpec, ...]
    """In the learner's parameter order."""


@dataclass(frozen=True)
class PublishedWeights:
    """A handle to one version of the policy's weights, cheap to send."""

    version: int
    """Optimiser steps behind these weights."""
    location: str
    """Path of the mapped file or of the adapter's folder; empty for delivered weights."""
    form: WeightsForm = WeightsForm.SHARED_MEMORY
    """What is at the location."""
    generation: int = 0
    """Counts the publications of one learner; the mapped file must say the same number."""
    buckets: tuple[BucketSpec, ...] = ()
    """Layout of the mapped file; empty for the other forms."""


@dataclass(frozen=True)
class StepPlan:
    """What is known of an optimiser step before its first group is learned from."""

    step: int
    """0-based; also the version of the policy that is about to be updated. It sets the learning
    rate, and a completion of an older version was sampled off-policy."""
    num_completions: int
    """Completions that the step asks for. The loss is divided by this number even where a group
    fails to be scored, so that it need not be known who fails before the first backward pass."""
    num_tokens: int | None = None
    """Completion tokens of the step; None where groups are learned from before all have arrived."""


@dataclass(frozen=True)
class LearnBatch:
    """Everything one optimiser step learns from."""

    plan: StepPlan
    groups: tuple[ScoredGroup, ...]
    """Whole groups; never split between ranks."""
    advantages: tuple[tuple[float, ...], ...]
    """[P][G] advantage of each completion, in the order of `groups`."""


@dataclass(frozen=True)
class LearnStats:
    """What one optimiser step measured, averaged over its completion tokens unless said."""

    figures: Mapping[str, float]
    """Metric name to value: loss, kl, ratio_mean, ratio_max, clip_share, grad_norm, lr, ..."""


class RolloutWorker(Protocol):
    """Samples completions and follows the learner's weights. One caller at a time."""

    def submit(self, requests: Sequence[RolloutRequest]) -> None:
        """Start sampling one group a request, beside what is being sampled already."""

    def collect(self, *, timeout_s: float) -> list[RolloutAnswer]:
        """Wait until requests are finished, or for `timeout_s`, and return them."""

    def pause(self) -> None:
        """Sample no token until the next call of another method, but `update_weights`."""

    def update_weights(self, weights: PublishedWeights) -> None:
        """Replace the engine's weights and forget everything cached under the former ones.

        What is being sampled goes on under the new weights from its next token.
        """


class RewardWorker(Protocol):
    """Scores groups. May be called from several threads at once."""

    @property
    def max_calls(self) -> int:
        """Calls of `score` that are worked on at once."""

    @property
    def is_per_condition(self) -> bool:
        """All groups of a step that share a condition have to be in one call."""

    def score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Score every group, in order.

        A completion that a reward failed on, after retries, has no total and the failure beside it.
        """

    def figures(self) -> dict[str, float]:
        """What the workers did since the last call, by the names that metrics.jsonl has."""


class Learner(Protocol):
    """Owns the policy, its optimiser and the frozen reference.

    A step is `begin`, any number of `accumulate`, and `finish`. Its result depends on the order of
    the groups and not on how they were dealt out to the calls of `accumulate`.
    """

    def begin(self, plan: StepPlan) -> None:
        """Start an optimiser step."""

    def accumulate(
        self, groups: Sequence[ScoredGroup], advantages: Sequence[Sequence[float]]
    ) -> None:
        """Learn from the next groups of the step.

        Args:
            groups: Whole groups, continuing the step's order.
            advantages: [P][G] in the order of `groups`.
        """

    def finish(self) -> LearnStats:
        """Update the policy by what was accumulated."""

    def learn(self, batch: LearnBatch) -> LearnStats:
        """Take one optimiser step: all three."""

    def logprobs(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """[P][G][T] log-probabilities of the completion tokens under the current policy."""

    def publish(self, version: int) -> PublishedWeights:
        """Make the current weights readable by rollout workers, which are paused meanwhile."""

    def save(self, folder: Path) -> None:
        """Write policy, optimiser and random states of every rank into an existing folder."""

    def save_policy(self, folder: Path) -> None:
        """Write only the policy into an existing folder: what `save` calls policy/ and adapter/."""

    def load(self, folder: Path) -> None:
        """Restore exactly what `save` wrote."""
