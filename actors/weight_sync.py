"""vLLM's receiving side of the shared-memory transport, a weight-transfer engine of our own.

Every engine maps the slot that the learner published (`actors/shared_weights.py`) and reloads it
through vLLM's weight-transfer API, without a restart. nccl and ipc are vLLM's own engines; adapters
do not come this way (`actors/engine_weights.py`).
"""

from dataclasses import dataclass

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from actors.shared_weights import SharedReader
from c2s_rl.grpo.roles import BucketSpec, PublishedWeights, TensorSpec

BACKEND = "c2s_shared_memory"


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing has to be agreed on before the first transfer but how long to wait."""

    deadline_s: float


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """One published version, as plain values (vLLM sends it between processes)."""

    location: str
    generation: int
    buckets: list[tuple[int, int, int, list[tuple[str, str, list[int], int]]]]


def update_info(weights: PublishedWeights) -> dict[str, object]:
    """Spell a published version out as the fields of `SharedMemoryUpdateInfo`."""
    return {
        "location": weights.location,
        "generation": weights.generation,
        "buckets": [
            (
                bucket.offset,
                bucket.num_bytes,
                bucket.checksum,
                [(t.name, t.dtype, list(t.shape), t.offset) for t in bucket.tensors],
            )
            for bucket in weights.buckets
        ],
    }


def bucket_specs(info: SharedMemoryUpdateInfo) -> list[BucketSpec]:
    """Read the layout back from plain values."""
    return [
        BucketSpec(
            offset,
            num_bytes,
            checksum,
            tuple(TensorSpec(name, dtype, tuple(shape), at) for name, dtype, shape, at in tensors),
        )
        for offset, num_bytes, checksum, tensors in info.buckets
    ]


class SharedMemoryEngine(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Maps the slot and loads it in checkpoint format."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo
    _reader: SharedReader | None = None

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        """Keep the deadline; the slot's name comes with every update."""
        self._reader = SharedReader(
            deadline_s=init_info.deadline_s, num_threads=torch.get_num_threads()
        )

    def start_weight_update(self) -> None:
        """Put the layers back into the form that checkpoint weights are loaded into."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, object]) -> None:
        """Load one version; overrides the base, which synchronises an accelerator."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        """Check the bytes and load every tensor.

        The slot stays ours until the update is finished: vLLM keeps the tensors of a layer that is
        not complete yet.

        Raises:
            WeightSyncError: If the bytes are not those that were published.
            DeadlineError: If the learner is still writing them.
        """
        assert self._reader is not None, "init_transfer_engine comes first"
        tensors = self._reader.acquire(
            update_info.location, update_info.generation, bucket_specs(update_info)
        )
        self.model.load_weights(tensors)

    def finish_weight_update(self) -> None:
        """Bring the layers back into kernel form."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        repack_tied_head(self.model)
        self._reader.release()

    def shutdown(self) -> None:
        """Hold nothing any more; an engine that was sent no weights has no reader."""
        if self._reader is not None:
            self._reader.release()


def repack_tied_head(model: torch.nn.Module) -> None:
    """Pack the LM head again where it shares the embedding's weights.

    On CPU vLLM keeps a prepacked copy of each linear layer. A tied head is not in the checkpoint,
    so the layerwise reload never repacks it and it would go on answering with the first weights.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.platforms import current_platform

    head = model.get_submodule("lm_head") if "lm_head" in dict(model.named_children()) else None
    if head is not None and current_platform.is_cpu():
        dispatch_cpu_unquantized_gemm(head, remove_weight=False)


def register() -> None:
    """Make the engine known to vLLM in this process; doing it twice is harmless."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryEngine)
