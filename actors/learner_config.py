"""The `learner` section of a run: optimiser, sharding and size of a forward pass.

Apart from the learner itself, so that a run file is checked without loading torch.
"""

from typing import Literal

from pydantic import Field

from c2s_rl.config import FrozenConfig
from c2s_rl.models.lora import LoraConfig


class LearnerConfig(FrozenConfig):
    """Optimiser and sharding of the policy."""

    num_workers: int = Field(1, ge=1, description="Data-parallel ranks")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="DeepSpeed ZeRO stage")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Policy precision")
    lora: LoraConfig | None = Field(None, description="Train an adapter instead of every weight")
    lr: float = Field(1e-6, gt=0, description="Peak learning rate (AdamW)")
    lr_schedule: Literal["constant", "linear"] = Field(
        "constant", description="After warm-up: stay, or fall linearly to 0 at the last step"
    )
    warmup_steps: int = Field(0, ge=0, description="Steps over which the rate rises from 0")
    weight_decay: float = Field(0.0, ge=0, description="AdamW decay")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm")
    micro_batch_tokens: int = Field(
        8192, ge=1, description="Tokens a forward pass may hold, each prompt counted once a group"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Keep only each layer's input and recompute the rest"
    )
    num_cpus: float = Field(1.0, ge=0, description="Ray CPUs a rank reserves")
    num_gpus: float = Field(0.0, ge=0, description="Ray GPUs a rank reserves; 0 runs on CPU")
    num_threads: int | None = Field(
        None, ge=1, description="Threads a rank on CPU; default: the cores divided by the ranks"
    )
    deadline_s: float = Field(3600.0, gt=0, description="Longest wait for one step, seconds")
