"""One reward of a run as YAML describes it, and what is built from that.

Left out: several rewards together (`composite.py`).
"""

from collections.abc import Sequence
from typing import Self

from pydantic import Field, JsonValue, model_validator

from c2s_rl.config import FrozenConfig
from c2s_rl.data.completions import TOTAL
from c2s_rl.errors import ConfigError
from rewards import load_reward, reward_class
from rewards.base import Reward, RewardScope
from rewards.calibration import CalibratedReward, CalibrationConfig
from rewards.pool_config import RewardPoolConfig
from rewards.schedule import WeightSchedule


class ClipConfig(FrozenConfig):
    """Bounds of a score in the sum."""

    low: float | None = Field(None, description="Lower scores count as this")
    high: float | None = Field(None, description="Higher scores count as this")

    @model_validator(mode="after")
    def _bounds_something(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("clip needs low or high, got neither")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"clip.high must be greater than low={self.low}, got {self.high}")
        return self

    def apply(self, score: float) -> float:
        """Return the nearest allowed score."""
        if self.low is not None and score < self.low:
            return self.low
        return self.high if self.high is not None and score > self.high else score


class RewardSpec(FrozenConfig):
    """One reward of a run."""

    name: str = Field(description="Registry name, entry point, or package.module:Class")
    weight: float = Field(
        1.0, ge=-1e9, le=1e9, description="Factor in the sum; 0 only logs the reward"
    )
    schedule: WeightSchedule | None = Field(
        None, description="How the weight gets there in the course of the run; null: constant"
    )
    calibrate: CalibrationConfig | None = Field(
        None, description="Have the copied control score 0 and real cells 1; {} for the defaults"
    )
    clip: ClipConfig | None = Field(
        None, description="Bounds of the (calibrated) score in the sum; logs keep the score"
    )
    label: str | None = Field(
        None, description="Name in logs; needed where one reward is used twice"
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options of this reward"
    )
    workers: RewardPoolConfig | None = Field(
        None, description="Workers of this reward; null: as the section reward_workers says"
    )

    @model_validator(mode="after")
    def _is_no_total(self) -> Self:
        if self.key == TOTAL:
            raise ValueError(f"a reward's label must not be {TOTAL!r}, which names the sum, got it")
        return self

    @property
    def key(self) -> str:
        """The name that logs and tables use."""
        return self.label or self.name

    def weight_at(self, version: int) -> float:
        """Return the weight for completions of one policy version."""
        if self.schedule is None:
            return self.weight
        return self.schedule.weight_at(version, end=self.weight)


def is_per_condition(specs: Sequence[RewardSpec]) -> bool:
    """Whether one of the rewards compares all groups of a step that share a condition.

    Raises:
        ConfigError: If a reward is unknown.
    """
    return any(reward_class(spec.name).scope is RewardScope.CONDITION for spec in specs)


def build_reward(spec: RewardSpec) -> Reward:
    """Build one reward of a run, calibrated if its spec says so.

    Raises:
        ConfigError: If the name or an option is wrong, or the reward cannot be calibrated.
    """
    reward = load_reward(spec.name, spec.options)
    if spec.calibrate is None:
        return reward
    if reward.scope is not RewardScope.GROUP:
        raise ConfigError(
            "calibrate must be given for rewards of scope 'group' only, for a share in a whole "
            f"condition has no scale of its own, got {spec.key!r} of scope {str(reward.scope)!r}"
        )
    return CalibratedReward(reward, spec.calibrate)
