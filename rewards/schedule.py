"""How the weight of a reward changes in the course of a run: a function of the policy version."""

import math
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig


class ScheduleKind(StrEnum):
    """The way from the first weight to the last."""

    LINEAR = "linear"
    """In equal parts."""
    COSINE = "cosine"
    """Slow at both ends."""
    STEP = "step"
    """All at once, when `to_step` is reached."""


class WeightSchedule(FrozenConfig):
    """From a first weight to the reward's own; without a schedule a weight is constant."""

    kind: ScheduleKind = Field(description="linear, cosine or step")
    start: float = Field(0.0, ge=-1e9, le=1e9, description="Weight until from_step")
    from_step: int = Field(0, ge=0, description="Optimiser steps before it starts to change")
    to_step: int = Field(ge=1, description="Optimiser steps after which it is the reward's weight")

    @model_validator(mode="after")
    def _takes_time(self) -> Self:
        if self.from_step >= self.to_step:
            raise ValueError(
                f"to_step must be greater than from_step={self.from_step}, got {self.to_step}"
            )
        return self

    def weight_at(self, version: int, *, end: float) -> float:
        """Return the weight for completions of one policy version.

        w = start + (end - start) f(x), x = (version - from_step) / (to_step - from_step) in [0, 1],
        f(x) = x (linear), (1 - cos(pi x)) / 2 (cosine), 1 at x = 1 and else 0 (step).

        Args:
            version: Optimiser steps behind the weights that sampled the completions.
            end: The reward's own weight.
        """
        # both ends exactly: start + (end - start) can miss end by the last bit
        if version >= self.to_step:
            return end
        if version <= self.from_step or self.kind is ScheduleKind.STEP:
            return self.start
        share = (version - self.from_step) / (self.to_step - self.from_step)
        if self.kind is ScheduleKind.COSINE:
            share = (1.0 - math.cos(math.pi * share)) / 2.0
        return self.start + (end - self.start) * share
