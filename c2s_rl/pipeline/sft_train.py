"""What one data-parallel worker of `pretrain` and `sft` does: TRL's SFTTrainer in DeepSpeed.

Needs a torch.distributed process group (Ray Train makes one) and, on a CPU, DS_ACCELERATOR=cpu in
the environment. A worker that finds whole checkpoints goes on from the newest; the data order, all
random states and the learning rate are those of a run that was never stopped.
"""

import logging
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import PartialState
from datasets import disable_progress_bars
from torch import distributed
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PrinterCallback,
    set_seed,
)
from transformers.utils.logging import disable_progress_bar
from trl.trainer.sft_config import SFTConfig as TrlConfig

from c2s_rl.checkpoint import clean_leftovers, latest_checkpoint
from c2s_rl.data.token_shards import open_eval_rows, open_token_rows
from c2s_rl.data.token_statistics import TokenSide
from c2s_rl.models.lora import add_adapter
from c2s_rl.models.policy import load_policy
from c2s_rl.pipeline.sft import SftJob
from c2s_rl.pipeline.sft_best import BestPolicy
from c2s_rl.pipeline.sft_callbacks import (
    STEP_PREFIX,
    LastEvaluation,
    MetricsLog,
    StartChecks,
    WholeCheckpoints,
    is_last,
)
from c2s_rl.pipeline.sft_data import RowCollator
from c2s_rl.pipeline.sft_evaluation import EvalRows
from c2s_rl.pipeline.sft_loss import PolicyTrainer, WholeLogitsTrainer
from c2s_rl.pipeline.sft_publish import publish
from c2s_rl.runlog import RunLog

if TYPE_CHECKING:
    from peft import PeftModel

log = logging.getLogger(__name__)


def train(job: SftJob) -> None:
    """Train to the last step and write the policy; all workers call it with the same job.

    Raises:
        MissingFileError: If there are no token shards.
        ConfigError: If the warm-up is longer than the run, or LoRA names a layer that is not there.
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
        publish(job, resumed)
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
    trainer = build_trainer(job, is_resumed=resumed is not None)
    config = job.config
    trainer.add_callback(
        StartChecks(
            trainer, num_workers=config.workers.num_workers, warmup_steps=config.warmup_steps
        )
    )
    # Step 0 is the evaluation before the first step.
    first_step = 0 if resumed is None else int(resumed.name.removeprefix(STEP_PREFIX)) + 1
    with ExitStack() as stack:
        if is_main:
            runlog = stack.enter_context(RunLog(job.folders.output, start_step=first_step))
            trainer.add_callback(MetricsLog(runlog))
        if trainer.eval_rows is not None:
            trainer.add_callback(LastEvaluation())
        if config.evaluation.metric is not None:
            trainer.add_callback(BestPolicy(trainer, config.evaluation, job.best, is_main=is_main))
        trainer.add_callback(
            WholeCheckpoints(job.checkpoints, keep=config.keep_checkpoints, is_main=is_main)
        )
        trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed))


def build_trainer(job: SftJob, *, is_resumed: bool = False) -> PolicyTrainer:
    """Load model and data and put them into a trainer that has not started."""
    # First of all: under ZeRO-3 it makes weights load in shards.
    arguments = _arguments(job, is_resumed=is_resumed)
    set_seed(job.config.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.folders.base_model, local_files_only=True)
    collate = RowCollator(int(tokenizer.pad_token_id or 0))
    has_eval = job.config.data.eval_fraction > 0
    trainer_type = PolicyTrainer if job.config.workers.num_gpus > 0 else WholeLogitsTrainer
    trainer = trainer_type(
        model=_load_model(job),
        args=arguments,
        train_dataset=open_token_rows(job.tokens),
        # only for transformers to agree to evaluate: `eval_rows` is what is evaluated
        eval_dataset=open_token_rows(job.tokens, TokenSide.EVAL) if has_eval else None,
        processing_class=tokenizer,
        data_collator=collate,
    )
    if has_eval:
        by_task = {str(task): rows for task, rows in open_eval_rows(job.tokens).items()}
        trainer.eval_rows = EvalRows(by_task, job.config.batch_size, collate)
    trainer.remove_callback(PrinterCallback)  # the run log has it all
    return trainer


def _arguments(job: SftJob, *, is_resumed: bool) -> TrlConfig:
    config = job.config
    is_bf16 = config.dtype == "bfloat16"
    is_cuda = config.workers.num_gpus > 0
    has_eval = config.data.eval_fraction > 0
    if not is_cuda:
        _tell_accelerate_of_peers()
    arguments = TrlConfig(
        output_dir=str(_scratch(job)),
        max_steps=config.num_steps or -1,
        num_train_epochs=config.epochs or config.default_epochs,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        learning_rate=config.lr,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        bf16=is_bf16 and is_cuda,
        gradient_checkpointing=config.workers.gradient_checkpointing,
        deepspeed=job.deepspeed,
        accelerator_config={"use_configured_state": not is_cuda},
        seed=config.seed,
        save_strategy="steps",
        save_steps=config.save_every,
        eval_strategy="steps" if has_eval else "no",
        eval_steps=config.evaluation.every if has_eval else None,
        eval_on_start=has_eval and not is_resumed,
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


def _load_model(job: SftJob) -> "PreTrainedModel | PeftModel":
    model = load_policy(job.folders.base_model, job.config.dtype)
    lora = job.config.lora
    if lora is None:
        return model
    is_checkpointed = job.config.workers.gradient_checkpointing
    return add_adapter(model, lora, is_checkpointed=is_checkpointed)


def _scratch(job: SftJob) -> Path:
    """Where the Trainer writes checkpoints before they are moved into place."""
    return job.folders.output / ".scratch"
