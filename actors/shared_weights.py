"""The learner's side of the weight transfer: full tensors, gathered and written a layer at a time.

Needs torch and, for ZeRO-3 shards only, DeepSpeed; never vLLM, which patches model classes in the
process that imports it.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import torch

from c2s_rl.grpo.roles import PublishedWeights, TensorSpec

ALIGNMENT = 16  # bytes; torch.frombuffer wants aligned offsets, and 16 suits every dtype


def full_tensors(model: torch.nn.Module, *, is_sharded: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield (name, whole tensor) of every parameter; a tied parameter comes once.

    Args:
        model: The Hugging Face model inside the DeepSpeed engine.
        is_sharded: Under ZeRO-3; then this is a collective that every rank must exhaust. A layer's
            parameters are gathered together, and released before the next layer's.
    """
    if not is_sharded:
        yield from model.named_parameters()
        return
    from deepspeed.runtime.zero import GatheredParameters

    for layer in _layers(model):
        with GatheredParameters([parameter for _, parameter in layer]):
            yield from layer


def _layers(model: torch.nn.Module) -> list[list[tuple[str, torch.nn.Parameter]]]:
    """Group parameters by decoder layer, told by the name up to its first number."""
    layers: dict[str, list[tuple[str, torch.nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        depth = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        key = name if depth is None else ".".join(parts[: depth + 1])
        layers.setdefault(key, []).append((name, parameter))
    return list(layers.values())


def publish_shared(
    tensors: Iterator[tuple[str, torch.Tensor]], *, path: Path, version: int
) -> PublishedWeights:
    """Write tensors one after the other into a shared-memory file.

    Args:
        tensors: (Hugging Face name, full tensor) pairs; written in their own type.
        path: The file, best on a memory-backed file system. It is replaced by rename, so a reader
            that still maps the former version keeps it whole.
        version: Optimiser steps behind these weights.

    Returns:
        The handle that rollout workers need.
    """
    specs: list[TensorSpec] = []
    partial = path.with_name(path.name + ".partial")
    offset = checksum = 0
    with partial.open("wb") as file:
        for name, tensor in tensors:
            raw = tensor.detach().cpu().contiguous().view(torch.uint8).reshape(-1).numpy().data
            dtype_name = str(tensor.dtype).removeprefix("torch.")
            specs.append(TensorSpec(name, dtype_name, tuple(tensor.shape), offset))
            file.write(raw)
            checksum = zlib.crc32(raw, checksum)
            offset += len(raw)
            padding = bytes(-offset % ALIGNMENT)
            file.write(padding)
            checksum = zlib.crc32(padding, checksum)
            offset += len(padding)
    partial.replace(path)
    return PublishedWeights(version, str(path), offset, checksum, tuple(specs))
