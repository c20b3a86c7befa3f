"""How weights travel from the learner to the rollout workers: the `sync` section of a run.

Left out: what travels. A LoRA policy chooses that itself (`learner.lora.sync`).
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from c2s_rl.config import FrozenConfig


class Backend(StrEnum):
    """A transport of whole weights; nccl and ipc are vLLM's own."""

    SHARED_MEMORY = "shared_memory"
    NCCL = "nccl"
    IPC = "ipc"


class SyncConfig(FrozenConfig):
    """Weights from the learner to the rollout workers."""

    backend: Literal["auto", "shared_memory", "nccl", "ipc"] = Field(
        "auto",
        description="shared_memory: a mapped file on one machine; nccl: from GPU to GPU; ipc: on a "
        "GPU that both share; auto: shared_memory on CPU, ipc where GPUs are shared, else nccl",
    )
    bucket_mib: int = Field(
        256, ge=1, description="Gather, copy and check whole layers up to this many MiB at a time"
    )
    deadline_s: float = Field(
        120.0, gt=0, description="Longest wait of one side for the other, seconds"
    )

    @property
    def bucket_bytes(self) -> int:
        """The bucket's bound in bytes."""
        return self.bucket_mib * 2**20


def choose_backend(
    config: SyncConfig, *, learner_gpus: float, rollout_gpus: float, is_colocated: bool
) -> Backend:
    """Resolve `auto` and refuse what the devices cannot do.

    Args:
        config: The section.
        learner_gpus: GPUs of one learner rank.
        rollout_gpus: GPUs of one rollout worker.
        is_colocated: Whether learner and rollout workers share their GPUs.

    Raises:
        ValueError: If the backend needs other devices.
    """
    has_gpus = learner_gpus > 0 and rollout_gpus > 0
    if config.backend == "auto":
        if not has_gpus:
            return Backend.SHARED_MEMORY
        return Backend.IPC if is_colocated else Backend.NCCL
    backend = Backend(config.backend)
    if backend is not Backend.SHARED_MEMORY and not has_gpus:
        raise ValueError(
            f"sync.backend {backend} needs learner and rollout workers on GPUs, got "
            f"learner.num_gpus={learner_gpus:g} and rollout.num_gpus={rollout_gpus:g}"
        )
    if (backend is Backend.IPC and not is_colocated) or (backend is Backend.NCCL and is_colocated):
        need = "shared GPUs" if backend is Backend.IPC else "GPUs of their own"
        got = "shared ones" if is_colocated else "separate ones"
        raise ValueError(f"sync.backend {backend} needs {need} for learner and rollout, got {got}")
    return backend
