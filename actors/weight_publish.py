"""The learner's side of weight sync: one version made readable, by whichever transport.

Every learner rank calls `publish`, for gathering ZeRO-3 shards is a collective; rank 0 writes or
sends. Left out: vLLM's own transports (`actors/vllm_transfer.py`).
"""

import shutil
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from actors.engine_weights import EngineSync
from actors.shared_weights import SharedWriter
from actors.weight_source import WeightSource
from c2s_rl.grpo.roles import PublishedWeights, WeightsForm
from c2s_rl.models.lora import save_adapter

if TYPE_CHECKING:
    from peft import PeftModel
    from ray.actor import ActorHandle


@dataclass(frozen=True)
class SyncTarget:
    """Where the learner publishes to."""

    folder: Path
    """On a memory-backed file system of rank 0's machine; for slots and adapters."""
    sync: EngineSync
    """What the engines were started with."""
    bucket_bytes: int
    """Bound of what is gathered at a time."""
    engines: "tuple[ActorHandle, ...]" = ()
    """Rollout workers, for nccl and ipc, which send to them."""


class Publisher(Protocol):
    """Makes versions of the policy readable by rollout workers."""

    def publish(self, version: int) -> PublishedWeights | None:
        """Publish the current weights; None on ranks other than 0."""


class SharedMemoryPublisher:
    """Whole weights into the slots of `actors/shared_weights.py`."""

    def __init__(self, source: WeightSource, target: SyncTarget, *, rank: int) -> None:
        self._source = source
        self._writer = (
            SharedWriter(
                target.folder,
                deadline_s=target.sync.deadline_s,
                num_threads=torch.get_num_threads(),
            )
            if rank == 0
            else None
        )

    def publish(self, version: int) -> PublishedWeights | None:
        """Write the next slot."""
        if self._writer is not None:
            return self._writer.publish(self._source, version)
        for _ in self._source.buckets():
            pass  # takes part in gathering the shards
        return None


class AdapterPublisher:
    """The adapter alone, as a new folder for each publication."""

    def __init__(
        self, source: WeightSource, model: "PeftModel", target: SyncTarget, *, rank: int
    ) -> None:
        self._source = source
        self._model = model
        self._target = target
        self._rank = rank
        self._folders: deque[Path] = deque()
        self._generation = 0

    def publish(self, version: int) -> PublishedWeights | None:
        """Write the adapter's folder, and remove those that no engine loads any more."""
        self._generation += 1
        # Engines read the files when they take the version: what they hold they hold in memory.
        tensors = {name: tensor.cpu().clone() for name, tensor in self._source}
        if self._rank != 0:
            return None
        folder = self._target.folder / f"adapter-{self._generation}-version-{version}"
        # A run that was killed may have left one of the same name.
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        save_adapter(folder, tensors, self._model)
        self._folders.append(folder)
        while len(self._folders) > self._target.sync.num_adapters:
            shutil.rmtree(self._folders.popleft())
        return PublishedWeights(
            version, str(folder), form=WeightsForm.ADAPTER, generation=self._generation
        )
