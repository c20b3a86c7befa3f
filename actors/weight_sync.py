"""Weights from the learner into running vLLM engines, without a restart.

vLLM's receiving side of the shared-memory transport: every engine maps the file that the learner
published (`actors/shared_weights.py`) and reloads it through vLLM's weight-transfer API. Rollout
workers must run on the learner's node. Left out: nccl and ipc between GPUs, and LoRA adapters.
"""

import mmap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory

from c2s_rl.errors import WeightSyncError
from c2s_rl.models.policy import DTYPES

BACKEND = "c2s_shared_memory"


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing has to be agreed on before the first transfer."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """One published version, as plain values (vLLM sends it between processes)."""

    location: str
    num_bytes: int
    checksum: int
    tensors: list[tuple[str, str, list[int], int]]


class SharedMemoryEngine(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """vLLM's receiving side: maps the file and loads it in checkpoint format."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        """Need no rendezvous: the file's name comes with every update."""

    def start_weight_update(self) -> None:
        """Put the layers back into the form that checkpoint weights are loaded into."""
        from vllm.model_executor.model_loader.reload import initialize_layerwise_reload

        initialize_layerwise_reload(self.model)

    def update_weights(self, update_info: dict[str, object]) -> None:
        """Load one version; overrides the base, which synchronises an accelerator."""
        self.receive_weights(self.parse_update_info(update_info))

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        """Check the bytes and load every tensor.

        Raises:
            WeightSyncError: If the bytes are not those that were published.
        """
        self.model.load_weights(read_shared(update_info))

    def finish_weight_update(self) -> None:
        """Bring the layers back into kernel form."""
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        finalize_layerwise_reload(self.model, self.model_config)
        repack_tied_head(self.model)

    def shutdown(self) -> None:
        """Hold nothing between updates."""


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


def read_shared(info: SharedMemoryUpdateInfo) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, tensor) of a published version; tensors are copies, safe to keep.

    Raises:
        WeightSyncError: If size or checksum differ from what was published.
    """
    with Path(info.location).open("rb") as file:
        # a private copy-on-write mapping: torch wants writable memory, the file stays as it is
        buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if len(buffer) != info.num_bytes or zlib.crc32(buffer) != info.checksum:
        raise WeightSyncError(
            f"published weights must arrive unaltered: expected {info.num_bytes} bytes with "
            f"checksum {info.checksum}, got {len(buffer)} bytes with {zlib.crc32(buffer)} "
            f"in {info.location}"
        )
    for name, dtype_name, shape, offset in info.tensors:
        count = int(torch.Size(shape).numel())
        view = torch.frombuffer(buffer, dtype=DTYPES[dtype_name], count=count, offset=offset)
        yield name, view.reshape(shape).clone()


def register() -> None:
    """Make the engine known to vLLM in this process; doing it twice is harmless."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryEngine)
