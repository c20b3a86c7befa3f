import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import distributed, nn
from transformers import TrainerControl, TrainerState, TrainingArguments

from c2s_rl.checkpoint import verify
from c2s_rl.errors import ConfigError, StageError
from c2s_rl.pipeline.sft_callbacks import (
    MetricsLog,
    StartChecks,
    WholeCheckpoints,
    is_last,
    publish_policy,
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


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


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
        callback.on_log(arguments, state, TrainerControl(), logs={"eval_loss": 3.0})
        callback.on_log(arguments, state, TrainerControl(), logs={"train_runtime": 1.0})
    step, evaluation = read_metrics(tmp_path / "metrics.jsonl")
    assert step.pop("tokens_per_s") > 0
    assert step == {"step": 3, "loss": 2.5, "lr": 0.1}
    assert evaluation == {"step": 3, "eval_loss": 3.0}


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


def test_policy_is_model_and_tokenizer_without_training_state(tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-5"
    checkpoint.mkdir()
    taken = {"config.json", "model.safetensors", "tokenizer.json"}
    left = {"trainer_state.json", "hashes.json", "optimiser.pt", "training_args.bin", "README.md"}
    for name in taken | left:
        (checkpoint / name).write_text(name)
    publish_policy(checkpoint, tmp_path / "policy")
    verify(tmp_path / "policy")
    assert {p.name for p in (tmp_path / "policy").iterdir()} == taken | {"hashes.json"}
