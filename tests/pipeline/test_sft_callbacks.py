import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from c2s_rl.checkpoint import verify
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.pipeline.sft_callbacks import (
    LastEvaluation,
    MetricsLog,
    StartChecks,
    WholeCheckpoints,
    is_last,
)
from c2s_rl.runlog import RunLog, read_metrics


class DeepSpeedEngine(nn.Module):
    """Has the name that is looked for."""


class DistributedDataParallel(nn.Module):
    """What transformers falls back to."""


@dataclass
class Wrapped:
    """The one attribute of a Trainer that is looked at."""

    model_wrapped: nn.Module


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(tmp_path / "scratch"), use_cpu=True)


def test_training_without_deepspeed_is_refused(arguments: TrainingArguments) -> None:
    checks = StartChecks(Wrapped(DistributedDataParallel()), num_workers=1, warmup_steps=0)
    with pytest.raises(StageError, match="must train in a DeepSpeedEngine, got DistributedDataPar"):
        checks.on_train_begin(arguments, TrainerState(max_steps=9), TrainerControl())


def test_worker_that_takes_itself_for_the_only_one_is_refused(
    arguments: TrainingArguments,
) -> None:
    checks = StartChecks(Wrapped(DeepSpeedEngine()), num_workers=2, warmup_steps=0)
    with pytest.raises(StageError, match="share its rows among 2 workers, got 1 known"):
        checks.on_train_begin(arguments, TrainerState(max_steps=9), TrainerControl())


def test_warmup_as_long_as_the_run_is_refused(arguments: TrainingArguments) -> None:
    checks = StartChecks(Wrapped(DeepSpeedEngine()), num_workers=1, warmup_steps=9)
    with pytest.raises(ConfigError, match="fewer than the steps of the run, got 9 and 9"):
        checks.on_train_begin(arguments, TrainerState(max_steps=9), TrainerControl())
    checks.on_train_begin(arguments, TrainerState(max_steps=10), TrainerControl())


def test_figures_are_kept_under_our_names(tmp_path: Path, arguments: TrainingArguments) -> None:
    state = TrainerState(global_step=3)
    with RunLog(tmp_path, use_tensorboard=False) as runlog:
        callback = MetricsLog(runlog)
        callback.on_train_begin(arguments, state, TrainerControl())
        state.num_input_tokens_seen = 50
        logs = {"loss": 2.5, "learning_rate": 0.1, "total_flos": 1.0}
        callback.on_log(arguments, state, TrainerControl(), logs=logs)
        losses = {"eval_loss": 3.0, "eval_loss/cell_generation": 2.0, "eval_entropy": 1.0}
        callback.on_log(arguments, state, TrainerControl(), logs=losses)
        callback.on_log(arguments, state, TrainerControl(), logs={"train_runtime": 1.0})
    step, evaluation = read_metrics(tmp_path / "metrics.jsonl")
    assert step.pop("tokens_per_s") > 0
    assert step == {"step": 3, "loss": 2.5, "lr": 0.1, "tokens": 50}
    assert evaluation == {"step": 3, "eval_loss": 3.0, "eval_loss/cell_generation": 2.0}


def test_loss_that_is_no_number_stops_the_run(tmp_path: Path, arguments: TrainingArguments) -> None:
    with RunLog(tmp_path, use_tensorboard=False) as runlog:
        callback = MetricsLog(runlog)
        with pytest.raises(StageError, match="loss must be finite, got nan at step 4: lower lr"):
            callback.on_log(
                arguments,
                TrainerState(global_step=4),
                TrainerControl(),
                logs={"loss": float("nan")},
            )


@pytest.mark.usefixtures("process_group")
def test_checkpoint_is_moved_when_whole_and_old_ones_go(
    tmp_path: Path, arguments: TrainingArguments
) -> None:
    callback = WholeCheckpoints(tmp_path / "checkpoints", keep=2, is_main=True)
    for step in (1, 2, 3):
        written = Path(arguments.output_dir or "") / f"checkpoint-{step}"
        (written / "global_step").mkdir(parents=True)
        (written / "global_step/optimiser.pt").write_text(f"state {step}")
        callback.on_save(arguments, TrainerState(global_step=step), TrainerControl())
        assert not written.exists()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-2", "step-3"]
    verify(tmp_path / "checkpoints/step-3")
    state = tmp_path / "checkpoints/step-3/global_step/optimiser.pt"
    assert state.read_text() == "state 3"


def test_last_checkpoint_is_recognised(tmp_path: Path) -> None:
    state = tmp_path / "trainer_state.json"
    state.write_text(json.dumps({"global_step": 4, "max_steps": 5}))
    assert not is_last(tmp_path)
    state.write_text(json.dumps({"global_step": 5, "max_steps": 5}))
    assert is_last(tmp_path)


def test_checkpoint_of_a_run_that_was_stopped_early_is_its_last(tmp_path: Path) -> None:
    def write(*, is_stopped: bool) -> None:
        control = {"args": {"should_training_stop": is_stopped}, "attributes": {}}
        state = {
            "global_step": 4,
            "max_steps": 9,
            "stateful_callbacks": {"TrainerControl": control},
        }
        (tmp_path / "trainer_state.json").write_text(json.dumps(state))

    write(is_stopped=False)
    assert not is_last(tmp_path)
    write(is_stopped=True)
    assert is_last(tmp_path)


def test_last_step_is_evaluated(arguments: TrainingArguments) -> None:
    control = TrainerControl()
    LastEvaluation().on_step_end(arguments, TrainerState(global_step=8, max_steps=9), control)
    assert not control.should_evaluate
    LastEvaluation().on_step_end(arguments, TrainerState(global_step=9, max_steps=9), control)
    assert control.should_evaluate
