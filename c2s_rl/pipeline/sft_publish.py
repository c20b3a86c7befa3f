"""The result of a training stage: a whole Hugging Face folder, out of a checkpoint.

With LoRA a checkpoint holds the adapter alone: it is merged into the model that training started
from, in float32, and stands beside it in peft's form. Left out: uploading.
"""

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from c2s_rl.checkpoint import HASHES, atomic_folder
from c2s_rl.errors import CheckpointError
from c2s_rl.models.lora import (
    ADAPTER_FILE,
    AdapterConfig,
    adapter_key,
    add_adapter,
    is_adapter,
    merged_tensors,
)
from c2s_rl.models.policy import load_policy
from c2s_rl.pipeline.sft import SftJob
from c2s_rl.pipeline.sft_best import BEST_STEP
from c2s_rl.pipeline.sft_callbacks import TRAINER_STATE

# What a policy folder takes over from a checkpoint: weights, config, tokenizer.
POLICY_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
ADAPTER_FILES = (ADAPTER_FILE, "adapter_config.json")
NOT_OF_A_POLICY = (TRAINER_STATE, BEST_STEP, HASHES)

log = logging.getLogger(__name__)


def publish(job: SftJob, last: Path) -> None:
    """Write policy/, and adapter/ with LoRA, from the step that the config asks for.

    `policy` comes last, for it tells that the run is done.

    Args:
        job: The run.
        last: Checkpoint of its last step.

    Raises:
        CheckpointError: If the best step is asked for and none was found, or an adapter does not
            fit the model.
    """
    source = job.best if job.config.evaluation.result == "best" else last
    if not source.is_dir():
        raise CheckpointError(
            f"result best needs a step with a finite {job.config.evaluation.metric}, got none"
        )
    lora = job.config.lora
    if lora is None:
        with atomic_folder(job.policy) as folder:
            _copy(source, POLICY_FILES, folder)
    else:
        with atomic_folder(job.adapter) as folder:
            _copy(source, ADAPTER_FILES, folder)
        with atomic_folder(job.policy) as folder:
            write_merged(job.folders.base_model, source, lora, job.config.dtype, folder)
    log.info("wrote %s from %s", job.policy, source.name)


def write_merged(
    base_model: Path, adapter: Path, lora: AdapterConfig, dtype: str, folder: Path
) -> None:
    """Join a base model and an adapter's file into one Hugging Face folder.

    Args:
        base_model: What the adapter was trained on.
        adapter: Holds adapter_model.safetensors.
        lora: The adapter's shape.
        dtype: Of the weights, as they were trained.
        folder: Existing folder to write into.

    Raises:
        CheckpointError: If the adapter's tensors are not those of the config on this model.
    """
    # In a worker of ZeRO-3 transformers would still load the model in shards, on all ranks.
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    model = load_policy(base_model, dtype)
    add_adapter(model, lora)
    tensors = load_file(adapter / ADAPTER_FILE)
    factors = {adapter_key(n): p for n, p in model.named_parameters() if is_adapter(n)}
    differing = [
        name for name in factors.keys() | tensors.keys() if not _fits(name, factors, tensors)
    ]
    if differing:
        raise CheckpointError(
            f"an adapter must hold the factors of its config, got {min(differing)!r} missing or of "
            f"another shape in {adapter}"
        )
    with torch.no_grad():
        for name, factor in factors.items():
            factor.copy_(tensors[name])
    merged = dict(merged_tensors(model.named_parameters(), lora.scale))
    model.save_pretrained(folder, state_dict=merged)
    AutoTokenizer.from_pretrained(base_model, local_files_only=True).save_pretrained(folder)


def _fits(
    name: str, factors: dict[str, torch.nn.Parameter], tensors: dict[str, torch.Tensor]
) -> bool:
    return name in factors and name in tensors and factors[name].shape == tensors[name].shape


def _copy(source: Path, patterns: Iterable[str], folder: Path) -> None:
    for pattern in patterns:
        for path in source.glob(pattern):
            if path.name not in NOT_OF_A_POLICY:
                shutil.copyfile(path, folder / path.name)
