"""GRPO alignment: prompts -> rollout -> reward -> advantage -> learn -> sync, step after step.

Command: `c2s-rl align --config FILE` (sections `align`, `rewards`, `rollout`, `learner`).
The run knows three roles (`c2s_rl/grpo/roles.py`) and files; which processes fill the roles is
decided elsewhere, and what happens in a step in `align_loop.py`. A run that was killed continues
from its last checkpoint when it is started again; synchronous ones end in the same policy.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from c2s_rl.checkpoint import atomic_folder, clean_leftovers
from c2s_rl.config import FrozenConfig
from c2s_rl.evaluation.probes import ProbeRuler
from c2s_rl.grpo.loss_config import LossConfig, SamplingLogprobs, can_learn_while_generating
from c2s_rl.grpo.roles import Learner, RewardWorker, RolloutWorker
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.grpo.staleness import Mode, StalenessConfig
from c2s_rl.pipeline.align_data import PromptStream
from c2s_rl.pipeline.align_loop import AlignLoop, LoopConfig, resume
from c2s_rl.pipeline.group_source import GroupSource, SourcePlan
from c2s_rl.pipeline.group_stream import GroupStream
from c2s_rl.pipeline.held_out import HeldOut, HeldOutConfig
from c2s_rl.pipeline.held_out_watch import HeldOutWatch
from c2s_rl.pipeline.timeline import Timeline
from c2s_rl.runlog import RunLog
from c2s_rl.types import PromptRecord, Task


class AlignConfig(FrozenConfig):
    """One GRPO run."""

    task: Task = Field(description="Which prompts of the corpus are trained on")
    num_steps: int = Field(ge=1, description="Optimiser steps")
    prompts_per_step: int = Field(8, ge=1, description="P, prompts sampled for each step")
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig, description="How completions are sampled"
    )
    loss: LossConfig = Field(default_factory=LossConfig, description="The objective")
    mode: Mode = Field(
        Mode.SYNC, description="sync: sampled by the weights that learn from it; async: ahead"
    )
    staleness: StalenessConfig | None = Field(
        None, description="How far async runs ahead; default: one step"
    )
    streaming: bool = Field(
        default=True,
        description="Score a group once it is sampled and learn from it while others still are; "
        "false: one phase after the other, with the same result",
    )
    refill_zero_variance: int = Field(
        0,
        ge=0,
        description="Most further prompts a step samples in place of groups with equal rewards",
    )
    save_every: int = Field(10, ge=1, description="Steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints that stay on disk")
    save_completions_every: int = Field(
        1, ge=1, description="Steps between completions/*.parquet files"
    )
    sync_tolerance: float = Field(
        1e-3,
        gt=0,
        description="Largest mean |engine - learner| log-probability after a sync; "
        "about 1e-3 in float32, 5e-2 in bfloat16",
    )
    max_failed_groups: int = Field(
        0,
        ge=0,
        description="Groups that failed rewards may leave with fewer than two scores in the whole "
        "run before it stops",
    )
    max_failed_completions: int = Field(
        0,
        ge=0,
        description="Completions that rewards may fail on in other groups in the whole run before "
        "it stops",
    )
    evaluation: HeldOutConfig | None = Field(
        None,
        description="Answer held-out prompts during training and keep the best policy; "
        "null does neither",
    )

    @model_validator(mode="after")
    def _saves_within_run(self) -> "AlignConfig":
        if self.save_every > self.num_steps:
            raise ValueError(
                f"save_every must be at most num_steps={self.num_steps}, got {self.save_every}"
            )
        return self

    @model_validator(mode="after")
    def _mode_allows(self) -> "AlignConfig":
        if self.mode is Mode.SYNC and self.staleness is not None:
            raise ValueError("staleness must be given with mode=async only, got mode=sync")
        if self.mode is Mode.ASYNC and not _corrects_staleness(self.loss):
            raise ValueError(
                "mode=async must correct for stale completions: set loss.sampling_logprobs to "
                "rollout or give loss.importance, got neither"
            )
        if self.mode is Mode.ASYNC and not self.streaming:
            raise ValueError("streaming must be true with mode=async, got false")
        if self.mode is Mode.ASYNC and self.refill_zero_variance:
            raise ValueError(
                "refill_zero_variance must be 0 with mode=async, for what would be sampled in "
                f"place of a group depends on when it came, got {self.refill_zero_variance}"
            )
        return self

    @property
    def bound(self) -> StalenessConfig | None:
        """The bound on staleness; None is synchronous."""
        return None if self.mode is Mode.SYNC else self.staleness or StalenessConfig()


@dataclass(frozen=True)
class AlignWorkers:
    """Who fills the three roles."""

    rollout: RolloutWorker
    reward: RewardWorker
    learner: Learner


@dataclass(frozen=True, eq=False)
class Watch:
    """What is measured beside the rewards."""

    ruler: ProbeRuler
    """For the probes of every step's answers."""
    held_out: HeldOut | None = None
    """For evaluations during training; None makes none."""


@dataclass(frozen=True)
class StepReport:
    """What the caller may show while a run goes on."""

    step: int
    """0-based index of the step that has just been finished."""
    num_steps: int
    figures: dict[str, float]
    """The line written to metrics.jsonl."""


def run(
    config: AlignConfig,
    workers: AlignWorkers,
    records: Sequence[PromptRecord],
    *,
    output: Path,
    seed: int,
    on_step: Callable[[StepReport], None] | None = None,
    watch: Watch | None = None,
) -> Path:
    """Align the policy that the workers hold.

    Args:
        config: The run.
        workers: Rollout and learner start from the same policy.
        records: Training prompts.
        output: Folder of checkpoints, metrics and completions; holds what an earlier, killed run
            left, and is continued from there.
        seed: The run's seed.
        on_step: Called after each step, for progress bars.
        watch: What is measured beside the rewards; None measures nothing else.

    Returns:
        The aligned policy's folder (Hugging Face form), `output`/policy.

    Raises:
        WeightSyncError: If engine and learner disagree after a sync.
        BudgetError: If more groups or completions fail to be scored than allowed.
    """
    checkpoints = output / "checkpoints"
    clean_leftovers(checkpoints)
    state = resume(workers.learner, checkpoints)
    timeline = Timeline()
    with (
        RunLog(output, start_step=state.step) as log,
        GroupStream(
            workers.rollout, workers.reward, timeline, is_streaming=config.streaming
        ) as stream,
    ):
        prompts = PromptStream(records, per_step=config.prompts_per_step, seed=seed)
        source = GroupSource(stream, prompts, _source_plan(config, seed), state.cursor)
        settings = _loop_config(config, watch)
        loop = AlignLoop(settings, workers.learner, source, timeline, output=output, state=state)
        held_out = _held_out(config, watch, workers.learner, log, loop)
        while loop.step < config.num_steps:
            if held_out is not None:
                held_out.visit()
            figures = loop.take_step()
            log.log(loop.step - 1, figures)
            if on_step is not None:
                on_step(StepReport(loop.step - 1, config.num_steps, figures))
            if loop.step % config.save_every == 0 or loop.step == config.num_steps:
                loop.save(checkpoints)
        if held_out is not None:
            held_out.visit()
    _hand_over(checkpoints / f"step-{config.num_steps:05d}", output)
    return output / "policy"


def _hand_over(checkpoint: Path, output: Path) -> None:
    """Copy the last policy out of its checkpoint; an adapter only where one was trained."""
    for name in ("adapter", "policy"):
        if (checkpoint / name).is_dir():
            with atomic_folder(output / name) as folder:
                shutil.copytree(checkpoint / name, folder, dirs_exist_ok=True)


def _held_out(
    config: AlignConfig, watch: Watch | None, learner: Learner, log: RunLog, loop: AlignLoop
) -> HeldOutWatch | None:
    if watch is None or watch.held_out is None:
        return None
    return HeldOutWatch(watch.held_out, learner, log, loop=loop, num_steps=config.num_steps)


def _corrects_staleness(loss: LossConfig) -> bool:
    return loss.importance is not None or loss.sampling_logprobs is SamplingLogprobs.ROLLOUT


def _source_plan(config: AlignConfig, seed: int) -> SourcePlan:
    return SourcePlan(
        per_step=config.prompts_per_step,
        num_steps=config.num_steps,
        max_extra=config.refill_zero_variance,
        staleness=config.bound,
        seed=seed,
    )


def _loop_config(config: AlignConfig, watch: Watch | None) -> LoopConfig:
    return LoopConfig(
        prompts_per_step=config.prompts_per_step,
        group_size=config.sampling.group_size,
        scale=config.loss.scale,
        learns_early=config.streaming and can_learn_while_generating(config.loss),
        sync_tolerance=config.sync_tolerance,
        max_failed_groups=config.max_failed_groups,
        max_failed_completions=config.max_failed_completions,
        save_completions_every=config.save_completions_every,
        keep_checkpoints=config.keep_checkpoints,
        probes=watch.ruler if watch else None,
    )
