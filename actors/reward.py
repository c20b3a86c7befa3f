"""Reward worker: the weighted rewards of a run in one Ray actor."""

from collections.abc import Sequence

from pydantic import Field

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.types import Group, ScoredGroup
from rewards.composite import CompositeReward, RewardSpec


class RewardPoolConfig(FrozenConfig):
    """How many reward workers there are and how failures are met."""

    num_workers: int = Field(1, ge=1, description="Reward workers")
    num_cpus: float = Field(1.0, ge=0, description="Ray CPUs a worker reserves")
    num_gpus: float = Field(0.0, ge=0, description="Ray GPUs a worker reserves, fractions allowed")
    max_retries: int = Field(1, ge=0, description="Further tries for a group whose reward failed")
    start_deadline_s: float = Field(
        600.0, gt=0, description="Longest wait for a worker to load its plug-ins, s"
    )
    deadline_s: float = Field(
        300.0, gt=0, description="Longest wait for one call; then the worker is replaced"
    )


class CompositeRewardWorker:
    """Scores groups; lives in its own process, so that plug-in code cannot take the run down."""

    def __init__(self, specs: Sequence[RewardSpec], vocabulary: Vocabulary) -> None:
        self._reward = CompositeReward(specs, vocabulary)

    def ready(self) -> bool:
        """Answer once every plug-in is loaded."""
        return True

    def score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Score whole groups, in order; see `CompositeReward.score`."""
        return self._reward.score(groups)
