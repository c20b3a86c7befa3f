"""Supervised fine-tuning: the base model learns to answer the corpus, through TRL and DeepSpeed.

    c2s-rl sft --config configs/pbmc_cpu.yaml

`plan` checks everything that needs no model and fixes what the run is made from; `train` is what
each data-parallel worker then runs (`actors/sft_job.py` starts them in Ray Train). The stage
`pretrain` is the same with other defaults (`c2s_rl/pipeline/pretrain.py`). In `output`:

    tokens/        token shards and their report.html; whole, or not there
    policy/        Hugging Face folder of the result; whole, or not there
    adapter/       with LoRA: the adapter that was merged into policy/, in peft's form
    best/          with evaluation.metric: the best step's weights (with LoRA: its adapter) and
                   best.json; whole, or not there
    checkpoints/   step-N: model or adapter, DeepSpeed state, random states, data cursor; the same
    metrics.jsonl  step, loss, learning rate, tokens/s, eval losses; mirrored to tensorboard/
    sft.json       what the run was made from; another config or other inputs are refused

Left out: metrics of generated answers, attention kernels that take sequence lengths
(flash_attention_2).
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, JsonValue, model_validator

from c2s_rl.checkpoint import HASHES, replace_text
from c2s_rl.config import FrozenConfig
from c2s_rl.data.token_config import SftDataConfig
from c2s_rl.errors import CheckpointError, ConfigError, MissingFileError
from c2s_rl.models.lora import AdapterConfig
from c2s_rl.pipeline.sft_deepspeed import deepspeed_settings
from c2s_rl.types import Task

POLICY = "policy"
ADAPTER = "adapter"
BEST = "best"
CHECKPOINTS = "checkpoints"
TOKENS = "tokens"
EVAL_LOSS = "eval_loss"  # over all tasks; of one task: EVAL_LOSS_OF + its name
EVAL_LOSS_OF = "eval_loss/"

# Config keys that may change when a run goes on: the weights it ends with are the same.
FREE_KEYS = ("save_every", "keep_checkpoints")
FREE_WORKER_KEYS = ("deadline_s",)


class SftWorkersConfig(FrozenConfig):
    """How many processes train, and what each may use."""

    num_workers: int = Field(1, ge=1, description="Data-parallel workers")
    num_cpus: float = Field(1.0, ge=0, description="Ray CPUs a worker reserves")
    num_gpus: float = Field(0.0, ge=0, description="Ray GPUs a worker reserves; 0 runs on CPU")
    num_threads: int | None = Field(
        None, ge=1, description="Threads of a worker; default: the cores divided by the workers"
    )
    deepspeed: Literal[0, 1, 2, 3] | Path = Field(
        2, description="ZeRO stage, or path of a DeepSpeed JSON file (configs/deepspeed/)"
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass: less memory, 1/3 more time",
    )
    deadline_s: float = Field(
        600.0, gt=0, description="Longest wait until the cluster has room for all workers, seconds"
    )


class SftEvaluationConfig(FrozenConfig):
    """Eval losses during training, over the rows that data.eval_fraction keeps out."""

    every: int = Field(
        100, ge=1, description="Steps between evaluations; there is one at the start and the end"
    )
    metric: str | None = Field(
        None,
        description="eval_loss, or eval_loss/<task>: the step with the lowest is kept in best/",
    )
    result: Literal["last", "best"] = Field(
        "last", description="Which step's weights become the policy"
    )
    patience: int | None = Field(
        None, ge=1, description="Stop after this many evaluations without a new best"
    )

    @model_validator(mode="after")
    def _check_metric(self) -> Self:
        choices = [EVAL_LOSS, *(f"{EVAL_LOSS_OF}{task}" for task in Task)]
        if self.metric is not None and self.metric not in choices:
            raise ValueError(f"metric must be one of {', '.join(choices)}, got {self.metric!r}")
        if self.metric is None and (self.result == "best" or self.patience is not None):
            raise ValueError(
                "metric must be given for result best or a patience, which choose by it, "
                f"got none with result {self.result!r} and patience {self.patience}"
            )
        return self


class SftConfig(FrozenConfig):
    """Optimisation, as methods.md sections 2 and 3 give it where they do."""

    stage: ClassVar[str] = "sft"
    default_epochs: ClassVar[float] = 3.0

    data: SftDataConfig = Field(SftDataConfig(), description="Prompts and their layout in rows")
    workers: SftWorkersConfig = Field(SftWorkersConfig(), description="Processes and sharding")
    lora: AdapterConfig | None = Field(
        None, description="Train an adapter and merge it in the end; default: train every weight"
    )
    evaluation: SftEvaluationConfig = Field(
        SftEvaluationConfig(), description="Eval losses and the best step (eval_fraction > 0)"
    )
    epochs: float | None = Field(
        None,
        gt=0,
        description="Passes over the training rows; default 3 (pretraining: 1), or num_steps "
        "decides",
    )
    num_steps: int | None = Field(None, ge=1, description="Optimiser steps, instead of epochs")
    batch_size: int = Field(8, ge=1, description="Rows a worker has in one forward pass")
    gradient_accumulation: int = Field(1, ge=1, description="Forward passes a step")
    lr: float = Field(1e-5, gt=0, description="Peak learning rate (AdamW); falls linearly to 0")
    warmup_steps: int = Field(100, ge=0, description="Steps over which the rate rises from 0")
    weight_decay: float = Field(0.01, ge=0, description="AdamW decay")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Precision of weights and passes; bfloat16 keeps float32 masters"
    )
    save_every: int = Field(500, ge=1, description="Steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints that are kept")
    seed: int = Field(0, ge=0, lt=2**32, description="Seeds the data order, split and dropout")

    @model_validator(mode="after")
    def _check_length_of_run(self) -> Self:
        if self.epochs is not None and self.num_steps is not None:
            raise ValueError(
                "only one of epochs and num_steps may be given, "
                f"got epochs {self.epochs} and num_steps {self.num_steps}"
            )
        if self.num_steps is not None and self.warmup_steps >= self.num_steps:
            raise ValueError(
                "warmup_steps must be fewer than num_steps, "
                f"got {self.warmup_steps} and {self.num_steps}"
            )
        return self

    @model_validator(mode="after")
    def _has_rows_to_choose_by(self) -> Self:
        if self.evaluation.metric is not None and self.data.eval_fraction == 0:
            raise ValueError(
                "data.eval_fraction must be above 0 for evaluation.metric, "
                f"got 0 with {self.evaluation.metric!r}"
            )
        return self


@dataclass(frozen=True)
class SftFolders:
    """Where the stage reads and writes."""

    corpus: Path
    """Prompt shards of the corpus stage."""
    base_model: Path
    """What training starts from: a Hugging Face folder with config, weights and tokenizer."""
    output: Path
    """The stage's own folder; on several machines it must be shared storage."""


@dataclass(frozen=True)
class SftJob:
    """A checked run, as it travels to the workers."""

    config: SftConfig
    folders: SftFolders
    """Absolute, since a worker has another working folder."""
    deepspeed: dict[str, JsonValue]
    """DeepSpeed's settings; 'auto' where transformers fills them in."""

    @property
    def policy(self) -> Path:
        """Folder of the result."""
        return self.folders.output / POLICY

    @property
    def adapter(self) -> Path:
        """Folder of the result's adapter, with LoRA."""
        return self.folders.output / ADAPTER

    @property
    def best(self) -> Path:
        """Folder of the best step's weights."""
        return self.folders.output / BEST

    @property
    def tokens(self) -> Path:
        """Folder of the token shards (`c2s_rl.pipeline.tokens`)."""
        return self.folders.output / TOKENS

    @property
    def checkpoints(self) -> Path:
        """Folder that holds step-N."""
        return self.folders.output / CHECKPOINTS


def plan(config: SftConfig, folders: SftFolders) -> SftJob:
    """Check the inputs and claim the output folder for this run; loads no model.

    The same call on a folder of a killed run gives the same job, which then goes on; on a finished
    one it gives a job that `is_done`.

    Raises:
        MissingFileError: If the corpus, the base model or the DeepSpeed file is not there.
        ConfigError: If the DeepSpeed file is no JSON object, or rows would be longer than the
            model takes.
        CheckpointError: If the output folder holds a run made from anything else.
    """
    folders = SftFolders(
        corpus=_input_folder(folders.corpus, "manifest.json", "corpus"),
        base_model=_input_folder(folders.base_model, "config.json", "base model"),
        output=folders.output.resolve(),
    )
    _check_length(config, folders.base_model)
    settings = deepspeed_settings(config.workers.deepspeed, is_cuda=config.workers.num_gpus > 0)
    job = SftJob(config, folders, settings)
    _claim(folders.output / f"{config.stage}.json", _made_from(job))
    return job


def check_metric(job: SftJob) -> None:
    """Check that the task whose loss chooses the best step has rows, once tokens are there.

    Raises:
        ConfigError: If it has none.
    """
    from c2s_rl.data.token_shards import read_token_manifest

    metric = job.config.evaluation.metric
    if metric is None:
        return
    shards = read_token_manifest(job.tokens).shards
    tasks = dict.fromkeys(shard.task for shard in shards if shard.task is not None)
    known = [EVAL_LOSS, *(f"{EVAL_LOSS_OF}{task}" for task in tasks)]
    if metric not in known:
        raise ConfigError(
            f"evaluation.metric must be one of {', '.join(known)}, whose rows are kept out, "
            f"got {metric!r}"
        )


def is_done(job: SftJob) -> bool:
    """Tell whether the policy is already there; it is moved into place only when it is whole."""
    return (job.policy / HASHES).is_file()


def _input_folder(folder: Path, proof: str, name: str) -> Path:
    if not (folder / proof).is_file():
        raise MissingFileError(f"the {name} must be a folder with {proof}, got {folder}")
    return folder.resolve()


def _check_length(config: SftConfig, base_model: Path) -> None:
    settings = json.loads((base_model / "config.json").read_text(encoding="utf-8"))
    limit = settings.get("max_position_embeddings")
    if isinstance(limit, int) and config.data.max_length > limit:
        raise ConfigError(
            f"data.max_length must be at most the base model's {limit} positions, "
            f"got {config.data.max_length}"
        )


def _made_from(job: SftJob) -> dict[str, JsonValue]:
    """What decides the result; two runs with equal values end with equal weights."""
    settings: dict[str, JsonValue] = job.config.model_dump(mode="json")
    workers = settings.pop("workers")
    assert isinstance(workers, dict)
    for name in FREE_KEYS:
        del settings[name]
    for name in (*FREE_WORKER_KEYS, "deepspeed"):
        del workers[name]
    # Threads change the order of sums, and workers and ZeRO stage the layout of checkpoints.
    flat = {f"workers.{key}": value for key, value in workers.items()}
    return {
        **settings,
        **flat,
        "deepspeed": job.deepspeed,
        "corpus": _fingerprint(job.folders.corpus),
        "base_model": _fingerprint(job.folders.base_model),
    }


def _fingerprint(folder: Path) -> str:
    """Hash a folder's hash list if it has one, else its small JSON files and all files' sizes."""
    digest = hashlib.sha256()
    hashes = folder / HASHES
    if hashes.is_file():
        digest.update(hashes.read_bytes())
        return digest.hexdigest()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        if path.suffix == ".json":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _claim(path: Path, made_from: dict[str, JsonValue]) -> None:
    """Record what the run is made from, or check that it is what the record says."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(made_from, indent=1) + "\n")
        return
    recorded = json.loads(path.read_text(encoding="utf-8"))
    for name, value in made_from.items():
        if recorded.get(name) != value:
            raise CheckpointError(
                f"a run that goes on must be made from the same {name} = {recorded.get(name)!r}, "
                f"got {value!r}: give {path.parent} back its config, or use another output folder"
            )
