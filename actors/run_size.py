"""How much memory and disk a run needs at the least, from its number of parameters.

Lower bounds: what weights, gradients, Adam's moments and caches take when everything is sharded
perfectly. Activations are left out, so a machine that has more may still be too small; one that has
less certainly is.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from actors.run_config import RunConfig
from c2s_rl.models.shape import GptNeoxShape
from c2s_rl.pipeline.base_model import BaseModelConfig, BaseModelKind

GIB = 2**30
SMOLLM2_PARAMETERS = 134_515_008
# float32: weights 4, gradient 4, Adam's two moments 8, frozen reference 4; engine 4.
LEARNER_BYTES, ENGINE_BYTES = 20, 4
# float32 in a checkpoint: policy 4, Adam's two moments 8; a policy folder 4.
CHECKPOINT_BYTES, POLICY_BYTES = 12, 4
# Resident after importing torch and its companions, measured at 0.6 to 1.1 GiB.
PROCESS_GIB = 0.6


@dataclass(frozen=True)
class RunSize:
    """Least needs of a whole run."""

    num_parameters: int
    """Of the policy."""
    memory_gib: float
    """Main memory of the machine during alignment, GiB; workers on GPUs hold theirs there."""
    shared_memory_gib: float
    """One published copy of the weights in /dev/shm, GiB."""
    disk_gib: float
    """Base model, policies and the checkpoints that are kept, GiB."""


def estimate_size(run: RunConfig) -> RunSize | None:
    """Estimate a run's needs; None when it makes no model or its weights are not there yet."""
    num_parameters = count_parameters(run.base_model) if run.base_model else None
    if num_parameters is None:
        return None
    size_gib = num_parameters / GIB
    memory = shared = 0.0
    if run.align is not None:
        pools = (run.rollout, run.learner, *run.reward_pools)
        workers = sum(pool.num_workers for pool in pools)
        memory = PROCESS_GIB * (1 + workers)
        if run.learner.num_gpus == 0:
            memory += LEARNER_BYTES * size_gib
        if run.rollout.num_gpus == 0:
            memory += run.rollout.num_workers * (run.rollout.kv_cache_gib + ENGINE_BYTES * size_gib)
        shared = POLICY_BYTES * size_gib
    checkpoints = sum(
        section.keep_checkpoints + 1  # the newest is written before the oldest is deleted
        for section in (run.pretrain, run.sft, run.align)
        if section is not None
    )
    disk = (3 * POLICY_BYTES + checkpoints * CHECKPOINT_BYTES) * size_gib
    return RunSize(num_parameters, memory, shared, disk)


def count_parameters(config: BaseModelConfig) -> int | None:
    """Parameters of a base model before it is made; None if its weights are not there."""
    if config.kind is BaseModelKind.GPT_NEOX:
        return gpt_neox_parameters(config.gpt_neox)
    if config.kind is BaseModelKind.SMOLLM2:
        return SMOLLM2_PARAMETERS
    assert config.path is not None, "the config's validator asks for it"
    return _folder_parameters(config.path)


def gpt_neox_parameters(shape: GptNeoxShape) -> int:
    """2 V h (embedding and head) + layers x (12 h^2 + 13 h) + 2 h, at most V tokens."""
    h = shape.hidden_size
    return 2 * shape.vocabulary_size * h + shape.num_layers * (12 * h * h + 13 * h) + 2 * h


def _folder_parameters(folder: Path) -> int | None:
    num_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    config = folder / "config.json"
    if not num_bytes or not config.is_file():
        return None
    settings = json.loads(config.read_text(encoding="utf-8"))
    dtype = settings.get("dtype") or settings.get("torch_dtype") or "float32"
    return num_bytes // (4 if dtype == "float32" else 2)
