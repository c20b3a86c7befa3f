"""The learner's weights as a stream of buckets: whole layers, gathered and released in turn.

One source feeds every transport. It also fits vLLM's own trainer engines (nccl, ipc), which ask for
`metadata()` and then iterate over (name, tensor); it shares no class with them, for a learner that
publishes through shared memory need not import vLLM.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from c2s_rl.models.lora import (
    LoraConfig,
    adapter_key,
    adapter_tensors,
    is_adapter,
    merged_tensors,
    policy_key,
)

NamedParameters = list[tuple[str, torch.nn.Parameter]]
NamedTensors = list[tuple[str, torch.Tensor]]


@dataclass(frozen=True)
class TensorMeta:
    """What will be sent under a name."""

    name: str
    """Hugging Face parameter name, or peft's for an adapter."""
    dtype: torch.dtype
    """On the wire: the parameter's own."""
    shape: tuple[int, ...]
    """Full (ungathered) shape."""

    @property
    def num_bytes(self) -> int:
        """Size of the full tensor."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class WeightSource:
    """A policy's full tensors, in one order on every rank.

    Under ZeRO-3 each pass is a collective: every rank must exhaust it. A tied parameter comes once.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        is_sharded: bool,
        bucket_bytes: int,
        lora: LoraConfig | None = None,
        is_adapter_only: bool = False,
    ) -> None:
        """Plan the buckets; nothing is gathered yet.

        Args:
            model: The Hugging Face model inside the DeepSpeed engine.
            is_sharded: Whether its parameters are ZeRO-3 shards.
            bucket_bytes: Bound of a bucket; a layer above it makes a bucket of its own.
            lora: The model's adapter, if it has one: it is merged into the weights ...
            is_adapter_only: ... or comes alone, under the names of peft's files.
        """
        self._is_sharded = is_sharded
        self._lora = lora
        self._is_adapter_only = is_adapter_only
        chosen = [
            (name, parameter)
            for name, parameter in model.named_parameters()
            if not is_adapter_only or is_adapter(name)
        ]
        self._buckets = _pack(_layers(chosen), bucket_bytes)
        self._metadata = [
            [
                TensorMeta(self._key(name), parameter.dtype, _full_shape(parameter))
                for name, parameter in bucket
                if is_adapter_only or not is_adapter(name)
            ]
            for bucket in self._buckets
        ]

    def metadata(self) -> list[TensorMeta]:
        """Name, type and full shape of everything a pass yields, without gathering."""
        return [meta for bucket in self.bucket_metadata() for meta in bucket]

    def bucket_metadata(self) -> list[list[TensorMeta]]:
        """The same, bucket by bucket; the same list each time."""
        return self._metadata

    def buckets(self) -> Iterator[NamedTensors]:
        """Yield the tensors of one bucket after the other; they are valid until the next."""
        for bucket in self._buckets:
            with _gathered(bucket, is_sharded=self._is_sharded), torch.no_grad():
                if self._is_adapter_only:
                    yield list(adapter_tensors(bucket))
                elif self._lora is not None:
                    yield list(merged_tensors(bucket, self._lora.scale))
                else:
                    yield [(name, parameter.detach()) for name, parameter in bucket]

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for bucket in self.buckets():
            yield from bucket

    def _key(self, name: str) -> str:
        return adapter_key(name) if self._is_adapter_only else policy_key(name)


@contextmanager
def _gathered(bucket: NamedParameters, *, is_sharded: bool) -> Iterator[None]:
    if not is_sharded:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters([parameter for _, parameter in bucket]):
        yield


def _full_shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    # a ZeRO-3 shard is empty and keeps its full shape in `ds_shape`
    return tuple(vars(parameter).get("ds_shape", parameter.shape))


def _layers(named: Sequence[tuple[str, torch.nn.Parameter]]) -> list[NamedParameters]:
    """Group parameters by decoder layer, told by the name up to its first number."""
    layers: dict[str, NamedParameters] = {}
    for name, parameter in named:
        parts = name.split(".")
        depth = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        key = _owner(name) if depth is None else ".".join(parts[: depth + 1])
        layers.setdefault(key, []).append((name, parameter))
    return list(layers.values())


def _owner(name: str) -> str:
    """The linear layer that a parameter outside the decoder layers, or its adapter, belongs to."""
    for part in (".base_layer.", ".lora_A.", ".lora_B."):
        name = name.split(part, maxsplit=1)[0]
    return name


def _pack(layers: Sequence[NamedParameters], bucket_bytes: int) -> list[NamedParameters]:
    """Put consecutive layers into buckets of at most `bucket_bytes`; never split a layer."""
    buckets: list[NamedParameters] = []
    filled = 0
    for layer in layers:
        size = sum(
            torch.Size(_full_shape(parameter)).numel() * parameter.dtype.itemsize
            for _, parameter in layer
        )
        if not buckets or filled + size > bucket_bytes:
            buckets.append([])
            filled = 0
        buckets[-1] += layer
        filled += size
    return buckets
