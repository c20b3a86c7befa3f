import math
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from c2s_rl.checkpoint import verify
from c2s_rl.errors import CheckpointError
from c2s_rl.pipeline.sft import SftEvaluationConfig
from c2s_rl.pipeline.sft_best import BestPolicy, BestStep, read_best

pytestmark = pytest.mark.usefixtures("process_group")


class Saver:
    """Writes a number in place of weights."""

    def __init__(self) -> None:
        self.weights = 0

    def save_model(self, output_dir: str, *, _internal_call: bool) -> None:
        Path(output_dir).mkdir(parents=True)
        (Path(output_dir) / "model.safetensors").write_text(str(self.weights))


class Run:
    """Plays a run's evaluations to the callback."""

    def __init__(self, folder: Path, *, resumed_at: int = 0, patience: int | None = None) -> None:
        self.saver = Saver()
        self.best = folder / "best"
        config = SftEvaluationConfig(every=10, metric="eval_loss", patience=patience)
        self.callback = BestPolicy(self.saver, config, self.best, is_main=True)
        self.arguments = TrainingArguments(output_dir=str(folder / "scratch"), use_cpu=True)
        self.control = TrainerControl()
        state = TrainerState(global_step=resumed_at)
        self.callback.on_train_begin(self.arguments, state, self.control)

    def evaluate(self, step: int, loss: float) -> None:
        self.saver.weights = step
        state = TrainerState(global_step=step)
        metrics = {"eval_loss": loss}
        self.callback.on_evaluate(self.arguments, state, self.control, metrics=metrics)

    def kept(self) -> str:
        verify(self.best)
        return (self.best / "model.safetensors").read_text()


def test_lowest_loss_is_kept_and_the_first_of_equals(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for step, loss in ((10, 3.0), (20, 2.0), (30, 2.0), (40, 2.5)):
        run.evaluate(step, loss)
    assert run.kept() == "20"
    assert read_best(run.best) == BestStep(step=20, metric="eval_loss", value=2.0)
    assert not (tmp_path / "scratch/best").exists()


def test_start_is_no_step_and_what_is_no_number_is_never_best(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.evaluate(0, 1.0)
    run.evaluate(10, math.nan)
    assert read_best(run.best) is None
    run.evaluate(20, 5.0)
    assert run.kept() == "20"


def test_run_that_goes_on_must_beat_what_it_had(tmp_path: Path) -> None:
    Run(tmp_path).evaluate(10, 2.0)
    resumed = Run(tmp_path, resumed_at=10)
    resumed.evaluate(20, 2.1)
    assert resumed.kept() == "10"
    resumed.evaluate(30, 1.9)
    assert resumed.kept() == "30"


def test_run_that_repeats_steps_keeps_the_same_best(tmp_path: Path) -> None:
    # Killed after step 20, gone on from the checkpoint of step 10.
    first = Run(tmp_path)
    first.evaluate(10, 3.0)
    first.evaluate(20, 2.0)
    resumed = Run(tmp_path, resumed_at=10)
    resumed.evaluate(20, 2.0)
    assert resumed.kept() == "20"


def test_run_from_the_start_forgets_an_older_best(tmp_path: Path) -> None:
    Run(tmp_path).evaluate(10, 2.0)
    again = Run(tmp_path)
    assert read_best(again.best) is None


def test_damaged_best_is_an_error_when_the_run_goes_on(tmp_path: Path) -> None:
    Run(tmp_path).evaluate(10, 2.0)
    (tmp_path / "best/model.safetensors").write_text("11")
    with pytest.raises(CheckpointError, match=r"recorded SHA-256 \w+, got"):
        Run(tmp_path, resumed_at=10)


def test_patience_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    run = Run(tmp_path, patience=2)
    for step, loss in ((10, 2.0), (20, 3.0)):
        run.evaluate(step, loss)
        assert not run.control.should_training_stop
    run.evaluate(30, 2.5)
    assert run.control.should_training_stop
    assert run.control.should_save
    assert run.kept() == "10"
