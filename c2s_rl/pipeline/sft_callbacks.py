"""What happens beside the steps of a training stage: checks, metrics, whole checkpoints.

transformers' Trainer writes a checkpoint file by file, so that a kill leaves half of one under a
good name. Here it writes into a scratch folder, and what it wrote is moved into place when every
rank is through. Left out: the best step (`sft_best.py`).
"""

import json
import logging
import math
import time
from pathlib import Path

from torch import distributed
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from c2s_rl.checkpoint import atomic_folder, prune
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.pipeline.sft import EVAL_LOSS, EVAL_LOSS_OF
from c2s_rl.runlog import RunLog

STEP_PREFIX = "step-"
TRAINER_STATE = "trainer_state.json"

# TRL's names of the figures that are kept -> names in metrics.jsonl.
FIGURES = {
    "loss": "loss",
    "learning_rate": "lr",
    "grad_norm": "grad_norm",
    "epoch": "epoch",
    EVAL_LOSS: EVAL_LOSS,
}

log = logging.getLogger(__name__)


class StartChecks(TrainerCallback):
    """Stops a run that would train something else than what was asked for."""

    def __init__(self, trainer: Trainer, *, num_workers: int, warmup_steps: int) -> None:
        self._trainer = trainer
        self._num_workers = num_workers
        self._warmup_steps = warmup_steps

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        """Check the engine and the schedule once both are known.

        Raises:
            StageError: If something else than DeepSpeed wraps the model, or a worker is on its own.
            ConfigError: If the warm-up is as long as the run.
        """
        engine = type(self._trainer.model_wrapped).__name__
        if engine != "DeepSpeedEngine":
            # transformers falls back to DistributedDataParallel without a word when use_cpu or
            # ACCELERATE_USE_CPU is set.
            raise StageError(
                f"a stage must train in a DeepSpeedEngine, got {engine}: unset ACCELERATE_USE_CPU "
                "and, without a GPU, set DS_ACCELERATOR=cpu before deepspeed is imported"
            )
        if args.world_size != self._num_workers:
            # Each worker would then train on all rows and write the same files.
            raise StageError(
                f"a stage must share its rows among {self._num_workers} workers, "
                f"got {args.world_size} known to accelerate"
            )
        if self._warmup_steps >= state.max_steps:
            raise ConfigError(
                "warmup_steps must be fewer than the steps of the run, "
                f"got {self._warmup_steps} and {state.max_steps}"
            )


class MetricsLog(TrainerCallback):
    """Writes the figures of every step to the run log; for rank 0 only."""

    def __init__(self, runlog: RunLog) -> None:
        self._runlog = runlog
        self._tokens = 0
        self._time = 0.0

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        """Start the clock."""
        self._tokens, self._time = state.num_input_tokens_seen, time.monotonic()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        """Leave the time of an evaluation out of the next step's tokens/s."""
        self._time = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Write the figures of a step, or of an evaluation.

        Raises:
            StageError: If the loss is not a finite number.
        """
        logs = logs or {}
        figures = {FIGURES[name]: float(x) for name, x in logs.items() if name in FIGURES}
        figures |= {n: float(x) for n, x in logs.items() if n.startswith(EVAL_LOSS_OF)}
        if "loss" in figures:
            now = time.monotonic()
            figures["tokens_per_s"] = (state.num_input_tokens_seen - self._tokens) / (
                now - self._time
            )
            self._tokens, self._time = state.num_input_tokens_seen, now
            figures["tokens"] = float(self._tokens)
        elif EVAL_LOSS not in figures:
            return  # TRL's summary of the whole run
        self._runlog.log(state.global_step, figures)
        loss = figures.get("loss", 0.0)
        if not math.isfinite(loss):
            raise StageError(
                f"the loss must be finite, got {loss} at step {state.global_step}: "
                "lower lr or use float32"
            )


class LastEvaluation(TrainerCallback):
    """Evaluates the last step, also where `every` does not divide the number of steps."""

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        """Ask for an evaluation at the end."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class WholeCheckpoints(TrainerCallback):
    """Moves each checkpoint into place when all ranks have written their part of it."""

    def __init__(self, checkpoints: Path, *, keep: int, is_main: bool) -> None:
        self._checkpoints = checkpoints
        self._keep = keep
        self._is_main = is_main

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        """Seal what the Trainer wrote and delete the oldest."""
        distributed.barrier()
        if self._is_main:
            written = Path(args.output_dir or ".") / f"checkpoint-{state.global_step}"
            with atomic_folder(self._checkpoints / f"{STEP_PREFIX}{state.global_step}") as folder:
                for path in written.iterdir():
                    path.rename(folder / path.name)
            written.rmdir()
            prune(self._checkpoints, self._keep)
        distributed.barrier()


def is_last(checkpoint: Path) -> bool:
    """Tell whether a checkpoint was written by the last step of its run, planned or not."""
    state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    is_stopped = bool(control.get("should_training_stop", False))  # patience was spent
    return is_stopped or bool(state["global_step"] >= state["max_steps"])
