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
class LearnBatch:
    """Everything one optimiser step learns from."""

    groups: tuple[ScoredGroup, ...]
    """Whole groups; never split between ranks."""
    advantages: tuple[tuple[float, ...], ...]
    """[P][G] advantage of each completion, in the order of `groups`."""
    step: int
    """Index of the step, 0-based: it sets the learning rate and the random stream."""


@dataclass(frozen=True)
class LearnStats:
    """What one optimiser step measured, averaged over its completion tokens unless said."""

    figures: Mapping[str, float]
    """Metric name to value: loss, kl, ratio_mean, ratio_max, clip_share, grad_norm, lr, ..."""


class RolloutWorker(Protocol):
    """Samples completions and follows the learner's weights."""

    def generate(self, requests: Sequence[RolloutRequest]) -> list[Group]:
        """Sample one group a request, in the order of the requests."""

    def update_weights(self, weights: PublishedWeights) -> None:
        """Replace the engine's weights and forget everything cached under the former ones."""


class RewardWorker(Protocol):
    """Scores groups."""

    def score(self, groups: Sequence[Group], *, step: int) -> list[ScoredGroup | None]:
        """Score every group, in order; None marks a group whose reward failed after retries."""


class Learner(Protocol):
    """Owns the policy, its optimiser and the frozen reference."""

    def learn(self, batch: LearnBatch) -> LearnStats:
        """Take one optimiser step."""

    def logprobs(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """[P][G][T] log-probabilities of the completion tokens under the current policy."""

    def publish(self, version: int) -> PublishedWeights:
        """Make the current weights readable by rollout workers."""

    def save(self, folder: Path) -> None:
        """Write policy, optimiser and random states of every rank into an existing folder."""

    def load(self, folder: Path) -> None:
        """Restore exactly what `save` wrote."""
