"""What a learner rank does with its policy besides training it: loads, publishes, saves it.

With an adapter the frozen weights are the reference, checkpoints hold the adapter alone, and what
is saved as the policy is the merged model, which needs no peft to be used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from actors.sync_config import Backend
from actors.weight_publish import AdapterPublisher, Publisher, SharedMemoryPublisher, SyncTarget
from actors.weight_source import WeightSource
from c2s_rl.models.lora import LoraConfig, add_adapter, save_adapter
from c2s_rl.models.policy import load_policy

if TYPE_CHECKING:
    from peft import PeftModel

SAVE_BUCKET_BYTES = 2**28  # gathered at a time while a checkpoint is written


class TrainedPolicy:
    """A policy with or without an adapter, as one learner rank holds it."""

    def __init__(
        self,
        folder: Path,
        dtype: str,
        lora: LoraConfig | None,
        *,
        is_sharded: bool,
        is_checkpointed: bool = False,
    ) -> None:
        """Load a policy, and put a new adapter into it where one is asked for.

        Args:
            folder: Hugging Face form.
            dtype: A key of `c2s_rl.models.policy.DTYPES`.
            lora: The adapter; None trains every weight.
            is_sharded: Whether DeepSpeed will shard the parameters (ZeRO-3).
            is_checkpointed: Whether activations will be recomputed in the backward pass.
        """
        self.model = load_policy(folder, dtype)
        self.adapter: PeftModel | None = (
            None if lora is None else add_adapter(self.model, lora, is_checkpointed=is_checkpointed)
        )
        self._folder = folder
        self._lora = lora
        self._is_sharded = is_sharded

    def trainable(self) -> list[torch.nn.Parameter]:
        """What the optimiser holds: the adapter's parameters, or all."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Let the model answer as it did before training, for a policy with an adapter."""
        assert self.adapter is not None, "without an adapter the reference is a model of its own"
        with torch.no_grad(), self.adapter.disable_adapter():
            yield

    def source(self, bucket_bytes: int, *, is_adapter_only: bool = False) -> WeightSource:
        """The current weights as a stream; an adapter is merged in, or comes alone."""
        return WeightSource(
            self.model,
            is_sharded=self._is_sharded,
            bucket_bytes=bucket_bytes,
            lora=self._lora,
            is_adapter_only=is_adapter_only,
        )

    def publisher(self, target: SyncTarget, *, rank: int) -> Publisher:
        """What makes versions of this policy readable by rollout workers."""
        if self._lora is not None and self.adapter is not None and self._lora.sync == "adapter":
            source = self.source(target.bucket_bytes, is_adapter_only=True)
            return AdapterPublisher(source, self.adapter, target, rank=rank)
        source = self.source(target.bucket_bytes)
        if target.sync.backend is Backend.SHARED_MEMORY:
            return SharedMemoryPublisher(source, target, rank=rank)
        from actors.vllm_transfer import VllmPublisher

        return VllmPublisher(source, target, rank=rank)

    def save(self, folder: Path, *, rank: int) -> None:
        """Write `policy` (merged, Hugging Face form) and, with an adapter, `adapter` (peft's form).

        Every rank must call it; rank 0 writes.
        """
        policy = {name: tensor.cpu().clone() for name, tensor in self.source(SAVE_BUCKET_BYTES)}
        if rank == 0:
            from transformers import AutoTokenizer

            self.model.save_pretrained(folder / "policy", state_dict=policy)
            tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
            tokenizer.save_pretrained(folder / "policy")
        del policy
        if self.adapter is None:
            return
        source = self.source(SAVE_BUCKET_BYTES, is_adapter_only=True)
        tensors = {name: tensor.cpu().clone() for name, tensor in source}
        if rank == 0:
            (folder / "adapter").mkdir()
            save_adapter(folder / "adapter", tensors, self.adapter)
