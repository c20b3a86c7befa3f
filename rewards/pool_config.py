"""How one reward is worked on: processes, their resources, and what failures may cost.

Left out: the processes themselves (`actors/reward*.py`).
"""

from typing import Self

from pydantic import Field, model_validator

from c2s_rl.config import FrozenConfig


class RewardPoolConfig(FrozenConfig):
    """The workers of one reward; every worker keeps the plug-in in a process of its own."""

    num_workers: int = Field(1, ge=1, description="Workers of each reward")
    num_cpus: float = Field(1.0, ge=0, description="Ray CPUs a worker reserves")
    num_gpus: float = Field(0.0, ge=0, description="Ray GPUs a worker reserves, fractions allowed")
    resources: dict[str, float] = Field(
        default_factory=dict, description="Custom Ray resources a worker reserves, by name"
    )
    num_threads: int = Field(1, ge=1, description="Threads a plug-in computes with on CPU")
    max_groups: int = Field(
        8,
        ge=1,
        description="Most waiting groups scored in one call (scope group); 1 where scores depend "
        "on what else is in the batch",
    )
    max_retries: int = Field(
        2,
        ge=0,
        description="Further tries for what failed: whole groups again, the last time one "
        "completion at a time",
    )
    deadline_s: float = Field(
        300.0, gt=0, description="Most time of a call with all its retries; half for the first try"
    )
    start_deadline_s: float = Field(
        600.0, gt=0, description="Most time for loading the plug-in, at first and within one call"
    )
    memory_gib: float = Field(
        8.0, gt=0, description="Most resident memory of a plug-in and the processes it starts, GiB"
    )

    @model_validator(mode="after")
    def _reserves_amounts(self) -> Self:
        wrong = {name: amount for name, amount in self.resources.items() if amount <= 0}
        if wrong:
            raise ValueError(f"resources must be greater than 0, got {wrong}")
        return self
