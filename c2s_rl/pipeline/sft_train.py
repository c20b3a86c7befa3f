"""What one data-parallel worker of supervised fine-tuning does: TRL's SFTTrainer in DeepSpeed.

Needs a torch.distributed process group (Ray Train makes one) and, on a CPU, DS_ACCELERATOR=cpu in
the environment. A worker that finds whole checkpoints goes on from the newest; the data order, all
random states and the learning rate are those of a run that was never stopped. Left out: LoRA.
"""

import logging
import os
import shutil
from contextlib import ExitStack
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import disable_progress_bars
from torch import distributed
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PrinterCallback,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar
from trl.trainer.sft_config import SFTConfig as TrlConfig
from trl.trainer.sft_trainer import SFTTrainer

from c2s_rl.checkpoint import clean_leftovers, latest_checkpoint
from c2s_rl.data.token_shards import open_token_rows
from c2s_rl.data.token_statistics import TokenSide
from c2s_rl.errors import ConfigError
from c2s_rl.pipeline.sft import SftJob
from c2s_rl.pipeline.sft_callbacks import (
    STEP_PREFIX,
    MetricsLog,
    StartChecks,
    WholeCheckpoints,
    is_last,
    publish_policy,
)
from c2s_rl.pipeline.sft_data import RowCollator
from c2s_rl.pipeline.sft_loss import WholeLogitsTrainer
from c2s_rl.runlog import RunLog

log = logging.getLogger(__name__)


def train(job: SftJob) -> None:
    """Train to the last step and write the policy; all workers call it with the same job.

    Raises:
        MissingFileError: If there are no token shards.
        ConfigError: If rows are longer than the model takes, or the warm-up than the run.
        StageError: If DeepSpeed is not really used, or the loss is no number.
    """
    # Their bars would be written line by line into the worker's log.
    disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bars()
    is_main = distributed.get_rank() == 0
    resumed = _newest_checkpoint(job, is_main=is_main)
    if resumed is None or not is_last(resumed):
        _train_from(job, resumed, is_main=is_main)
        resumed = _newest_checkpoint(job, is_main=is_main)
    if is_main and resumed is not None:
        publish_policy(resumed, job.policy)
        shutil.rmtree(_scratch(job), ignore_errors=True)
    distributed.barrier()


def _newest_checkpoint(job: SftJob, *, is_main: bool) -> Path | None:
    """Let rank 0 look (it hashes every file) and tell the others."""
    found: list[Path | None] = [None]
    if is_main:
        clean_leftovers(job.checkpoints)
        shutil.rmtree(_scratch(job), ignore_errors=True)
        found = [latest_checkpoint(job.checkpoints, STEP_PREFIX)]
    distributed.broadcast_object_list(found)
    return found[0]


def _train_from(job: SftJob, resumed: Path | None, *, is_main: bool) -> None:
    trainer = build_trainer(job)
    num_workers = job.config.workers.num_workers
    warmup_steps = job.config.warmup_steps
    trainer.add_callback(StartChecks(trainer, num_workers=num_workers, warmup_steps=warmup_steps))
    first_step = 1 if resumed is None else int(resumed.name.removeprefix(STEP_PREFIX)) + 1
    with ExitStack() as stack:
        if is_main:
            runlog = stack.enter_context(RunLog(job.folders.output, start_step=first_step))
            trainer.add_callback(MetricsLog(runlog))
        keep = job.config.keep_checkpoints
        trainer.add_callback(WholeCheckpoints(job.checkpoints, keep=keep, is_main=is_main))
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))


def build_trainer(job: SftJob) -> SFTTrainer:
    """Load model and data and put them into a trainer that has not started."""
    arguments = _arguments(job)  # first of all: under ZeRO-3 it makes weights load in shards
    set_seed(job.config.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.folders.base_model, local_files_only=True)
    model = _load_model(job)
    trainer_type = SFTTrainer if job.config.workers.num_gpus > 0 else WholeLogitsTrainer
    trainer = trainer_type(
        model=model,
        args=arguments,
        train_dataset=open_token_rows(job.tokens),
        eval_dataset=(
            open_token_rows(job.tokens, TokenSide.EVAL) if job.config.data.eval_fraction else None
        ),
        processing_class=tokenizer,
        data_collator=RowCollator(int(tokenizer.pad_token_id or 0)),
    )
    trainer.remove_callback(PrinterCallback)  # the run log has it all
    return trainer


def _arguments(job: SftJob) -> TrlConfig:
    config = job.config
    is_bf16 = config.dtype == "bfloat16"
    is_cuda = config.workers.num_gpus > 0
    has_eval = config.data.eval_fraction > 0
    if not is_cuda:
        _tell_accelerate_of_peers()
    arguments = TrlConfig(
        output_dir=str(_scratch(job)),
        max_steps=config.num_steps or -1,
        num_train_epochs=config.epochs or 3.0,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.lr,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        bf16=is_bf16 and is_cuda,
        gradient_checkpointing=config.gradient_checkpointing,
        deepspeed=job.deepspeed,
        accelerator_config={"use_configured_state": not is_cuda},
        seed=config.seed,
        save_strategy="steps",
        save_steps=config.save_every,
        eval_strategy="steps" if has_eval else "no",
        eval_steps=config.eval_every if has_eval else None,
        logging_steps=1,
        logging_nan_inf_filter=False,  # transformers would log a made-up loss instead of nan
        include_num_input_tokens_seen="non_padding",
        # Rows are ready: TRL must neither copy nor cut nor pack them; the collator makes labels.
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        packing=False,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=is_cuda,
    )
    if is_bf16 and not is_cuda:
        # TrainingArguments refuses bf16 without a GPU, DeepSpeed does not.
        arguments.hf_deepspeed_config.config["bf16"] = {"enabled": True}
    return arguments


def _tell_accelerate_of_peers() -> None:
    """Make accelerate count the workers on a CPU, where it looks for none under DeepSpeed.

    It would take each worker for the only one, while DeepSpeed averages over all of them.
    """
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend="gloo")


def _load_model(job: SftJob) -> PreTrainedModel:
    folder = job.folders.base_model
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    settings = config.to_dict()
    limit = settings.get("max_position_embeddings")
    if limit is not None and job.config.data.max_length > limit:
        raise ConfigError(
            f"data.max_length must be at most the base model's {limit} positions, "
            f"got {job.config.data.max_length}"
        )
    # Gemma-2 caps attention logits, which transformers' sdpa attention passes over in silence.
    has_softcap = settings.get("attn_logit_softcapping") is not None
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, job.config.dtype),
        attn_implementation="eager" if has_softcap else "sdpa",
        local_files_only=True,
    )
    return model


def _scratch(job: SftJob) -> Path:
    """Where the Trainer writes checkpoints before they are moved into place."""
    return job.folders.output / ".scratch"
