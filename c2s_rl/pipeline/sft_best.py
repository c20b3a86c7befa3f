"""The best step of a training run by an eval loss: its weights are kept, and it may end the run.

`best/` holds what a checkpoint would (model, or the LoRA adapter; tokenizer) without optimiser
state, and best.json: step, metric, value. It is replaced as a whole. The step to beat is the one in
`best/`, also after a kill: a run that repeats its steps bit by bit finds the same weights again.
"""

import logging
import math
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from torch import distributed
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from c2s_rl.checkpoint import atomic_folder, clean_leftovers, verify
from c2s_rl.errors import CheckpointError
from c2s_rl.pipeline.sft import SftEvaluationConfig

BEST_STEP = "best.json"

log = logging.getLogger(__name__)


class BestStep(BaseModel):
    """Which step is the best so far; best.json of its folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(description="Optimiser steps made when it was evaluated")
    metric: str = Field(description="What it is the best by; lower is better")
    value: float = Field(description="Nats a token")


def read_best(folder: Path) -> BestStep | None:
    """Read the best step so far; None if there is none.

    Raises:
        CheckpointError: If the folder is there but not as it was written.
    """
    clean_leftovers(folder.parent, name=folder.name)
    if not folder.exists():
        return None
    verify(folder)
    try:
        return BestStep.model_validate_json((folder / BEST_STEP).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{BEST_STEP} must hold a step and its value, got {error} in {folder}"
        ) from None


class BestPolicy(TrainerCallback):
    """Keeps the weights of the best evaluated step, and stops when none was better for long."""

    def __init__(
        self, trainer: Trainer, config: SftEvaluationConfig, folder: Path, *, is_main: bool
    ) -> None:
        """Remember where to keep it.

        Args:
            trainer: Writes the weights; every rank takes part in that.
            config: The metric, and the patience.
            folder: Where the best step is kept.
            is_main: Whether this rank moves files.
        """
        assert config.metric is not None
        self._trainer = trainer
        self._config = config
        self._metric = config.metric
        self._folder = folder
        self._is_main = is_main
        self._best: BestStep | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        """Take up the best step of a run that goes on; a new run has none.

        Raises:
            CheckpointError: If `best/` is not as it was written.
        """
        found: list[BestStep | None] = [None]
        if self._is_main and state.global_step > 0:
            found = [read_best(self._folder)]
        elif self._is_main:
            shutil.rmtree(self._folder, ignore_errors=True)
        distributed.broadcast_object_list(found)
        self._best = found[0]

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Keep a step that is better than all before it; the start is no step."""
        if state.global_step == 0 or metrics is None:
            return
        value = metrics[self._metric]
        if math.isfinite(value) and (self._best is None or value < self._best.value):
            self._best = BestStep(step=state.global_step, metric=self._metric, value=value)
            self._keep(self._best, args)
        if self._is_patience_spent(state.global_step):
            control.should_training_stop = True
            control.should_save = True

    def _keep(self, best: BestStep, args: TrainingArguments) -> None:
        written = Path(args.output_dir or ".") / "best"
        self._trainer.save_model(str(written), _internal_call=True)
        distributed.barrier()
        if self._is_main:
            with atomic_folder(self._folder) as folder:
                for path in written.iterdir():
                    path.rename(folder / path.name)
                (folder / BEST_STEP).write_text(best.model_dump_json(), encoding="utf-8")
            written.rmdir()
        distributed.barrier()

    def _is_patience_spent(self, step: int) -> bool:
        patience = self._config.patience
        if patience is None or self._best is None:
            return False
        is_spent = step - self._best.step >= patience * self._config.every
        if is_spent and self._is_main:
            log.info(
                "no better %s than %.4f of step %d after %d evaluations: the run ends at step %d",
                self._metric,
                self._best.value,
                self._best.step,
                patience,
                step,
            )
        return is_spent
