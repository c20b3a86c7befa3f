"""GRPO alignment: prompts -> rollout -> reward -> advantage -> learn -> sync, step after step.

Command: `c2s-rl align --config FILE` (sections `align`, `rewards`, `rollout`, `learner`).
The loop knows three roles (`c2s_rl/grpo/roles.py`) and files; which processes fill the roles is
decided elsewhere. Synchronous: every completion comes from the weights of its own step. A run that
was killed continues from its last checkpoint when it is started again, and ends in the same policy.
Shape suffixes: P prompts of a step, G completions of a prompt.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import Field, model_validator

from c2s_rl.cells.sentence import stable_hash
from c2s_rl.checkpoint import atomic_folder, clean_leftovers, latest_checkpoint, prune
from c2s_rl.config import FrozenConfig
from c2s_rl.data.completions import write_completions
from c2s_rl.errors import BudgetError, CheckpointError, WeightSyncError
from c2s_rl.grpo.advantage import group_advantages
from c2s_rl.grpo.loss import LossConfig
from c2s_rl.grpo.roles import LearnBatch, Learner, RewardWorker, RolloutRequest, RolloutWorker
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.runlog import RunLog
from c2s_rl.types import Group, PromptRecord, ScoredGroup, Task

logger = logging.getLogger(__name__)

# Weights are compared on a few completions only: a wrong sync shows on every token.
NUM_CHECKED_GROUPS = 2
# The first sync carries unchanged weights and proves little; the second carries an update.
NUM_CHECKED_STEPS = 2
SEED_BITS = 62  # what numpy, torch and vLLM all take


class AlignConfig(FrozenConfig):
    """One GRPO run."""

    task: Task = Field(description="Which prompts of the corpus are trained on")
    num_steps: int = Field(ge=1, description="Optimiser steps")
    prompts_per_step: int = Field(8, ge=1, description="P, prompts sampled for each step")
    sampling: SamplingConfig = Field(
        default_factory=SamplingConfig, description="How completions are sampled"
    )
    loss: LossConfig = Field(default_factory=LossConfig, description="The objective")
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
        0, ge=0, description="Groups whose reward may fail in the whole run before it stops"
    )

    @model_validator(mode="after")
    def _saves_within_run(self) -> "AlignConfig":
        if self.save_every > self.num_steps:
            raise ValueError(
                f"save_every must be at most num_steps={self.num_steps}, got {self.save_every}"
            )
        return self


@dataclass(frozen=True)
class AlignWorkers:
    """Who fills the three roles."""

    rollout: RolloutWorker
    reward: RewardWorker
    learner: Learner


@dataclass(frozen=True)
class StepReport:
    """What the caller may show while a run goes on."""

    step: int
    """0-based index of the step that has just been finished."""
    num_steps: int
    figures: dict[str, float]
    """The line written to metrics.jsonl."""


def prompts_of_step(
    records: Sequence[PromptRecord], *, step: int, num_prompts: int, seed: int
) -> list[PromptRecord]:
    """Draw the prompts of a step: whole shuffled epochs, one after the other.

    A function of the step alone, so that the data cursor of a resumed run is its step.

    Args:
        records: All training prompts.
        step: 0-based.
        num_prompts: P.
        seed: The run's seed.
    """
    drawn: list[PromptRecord] = []
    for position in range(step * num_prompts, (step + 1) * num_prompts):
        epoch, place = divmod(position, len(records))
        order = np.random.default_rng([seed, epoch]).permutation(len(records))
        drawn.append(records[int(order[place])])
    return drawn


def run(
    config: AlignConfig,
    workers: AlignWorkers,
    records: Sequence[PromptRecord],
    *,
    output: Path,
    seed: int,
    on_step: Callable[[StepReport], None] | None = None,
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

    Returns:
        The aligned policy's folder (Hugging Face form), `output`/policy.

    Raises:
        WeightSyncError: If engine and learner disagree after a sync.
        BudgetError: If more groups fail to be scored than allowed.
    """
    final = output / "policy"
    checkpoints = output / "checkpoints"
    clean_leftovers(checkpoints)
    state = _resume(workers.learner, checkpoints)
    with RunLog(output, start_step=state.step) as log:
        loop = _Loop(config, workers, records, seed, output, state)
        while loop.step < config.num_steps:
            figures = loop.take_step()
            log.log(loop.step - 1, figures)
            if on_step is not None:
                on_step(StepReport(loop.step - 1, config.num_steps, figures))
            if loop.step % config.save_every == 0 or loop.step == config.num_steps:
                loop.save(checkpoints)
    last = checkpoints / f"step-{config.num_steps:05d}"
    for name in ("adapter", "policy"):  # an adapter only where one was trained
        if (last / name).is_dir():
            with atomic_folder(output / name) as folder:
                shutil.copytree(last / name, folder, dirs_exist_ok=True)
    return final


@dataclass(frozen=True)
class _State:
    """What a checkpoint holds beside the learner's own files."""

    step: int = 0
    num_failed_groups: int = 0


def _resume(learner: Learner, checkpoints: Path) -> _State:
    folder = latest_checkpoint(checkpoints)
    if folder is None:
        return _State()
    try:
        state = _State(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"a checkpoint must hold a state.json, got {error}") from error
    learner.load(folder)
    logger.info("continuing after step %d from %s", state.step, folder)
    return state


class _Loop:
    """The state of a run between two steps; one method a phase."""

    def __init__(
        self,
        config: AlignConfig,
        workers: AlignWorkers,
        records: Sequence[PromptRecord],
        seed: int,
        output: Path,
        state: _State,
    ) -> None:
        self.step = state.step
        self._num_failed_groups = state.num_failed_groups
        self._first_step = state.step
        self._config = config
        self._workers = workers
        self._records = records
        self._seed = seed
        self._output = output

    def take_step(self) -> dict[str, float]:
        """Run one step and return its figures."""
        clock = _Clock()
        self._sync()
        clock.lap("seconds_sync")
        groups = self._rollout()
        clock.lap("seconds_rollout")
        self._check_sync(groups)
        clock.lap("seconds_check")
        scored = self._score(groups)
        clock.lap("seconds_reward")
        advantages = tuple(
            tuple(group_advantages(s.rewards_G, scale_by_std=self._config.loss.scale_by_std))
            for s in scored
        )
        stats = self._workers.learner.learn(LearnBatch(tuple(scored), advantages, self.step))
        clock.lap("seconds_learn")
        if self.step % self._config.save_completions_every == 0:
            path = self._output / "completions" / f"step-{self.step:05d}.parquet"
            write_completions(path, scored, advantages)
        figures = rollout_figures(scored, advantages) | dict(stats.figures) | clock.laps
        figures["tokens_per_s"] = figures.pop("num_tokens") / clock.laps["seconds_rollout"]
        figures["failed_groups"] = float(self._num_failed_groups)
        self.step += 1
        return figures

    def save(self, checkpoints: Path) -> None:
        """Write a checkpoint of the steps done so far, and remove the oldest."""
        state = {"step": self.step, "num_failed_groups": self._num_failed_groups}
        with atomic_folder(checkpoints / f"step-{self.step:05d}") as folder:
            self._workers.learner.save(folder)
            (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
        prune(checkpoints, self._config.keep_checkpoints)

    def _sync(self) -> None:
        self._workers.rollout.update_weights(self._workers.learner.publish(self.step))

    def _rollout(self) -> list[Group]:
        records = prompts_of_step(
            self._records,
            step=self.step,
            num_prompts=self._config.prompts_per_step,
            seed=self._seed,
        )
        return self._workers.rollout.generate(
            [
                RolloutRequest(record, rollout_seed(self._seed, self.step, index))
                for index, record in enumerate(records)
            ]
        )

    def _check_sync(self, groups: Sequence[Group]) -> None:
        if self.step - self._first_step >= NUM_CHECKED_STEPS:
            return
        some = groups[:NUM_CHECKED_GROUPS]
        difference = mean_difference(some, self._workers.learner.logprobs(some))
        logger.info("engine and learner log-probabilities differ by %.2g", difference)
        if difference > self._config.sync_tolerance:
            raise WeightSyncError(
                "mean |engine - learner| log-probability must be at most "
                f"sync_tolerance={self._config.sync_tolerance}, got {difference:.3g} "
                f"at step {self.step}"
            )

    def _score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        results = self._workers.reward.score(groups, step=self.step)
        scored = [result for result in results if result is not None]
        self._num_failed_groups += len(results) - len(scored)
        if self._num_failed_groups > self._config.max_failed_groups or not scored:
            raise BudgetError(
                f"at most max_failed_groups={self._config.max_failed_groups} groups may fail to "
                f"be scored, got {self._num_failed_groups} by step {self.step}; "
                "the log names each failure"
            )
        return scored


class _Clock:
    """Seconds between laps, by name."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Store the time since the last lap."""
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now


def rollout_seed(seed: int, step: int, index: int) -> int:
    """Seed of the index-th prompt of a step; its G samples use this number and the next G - 1."""
    return stable_hash(f"rollout/{step}/{index}", seed) >> (64 - SEED_BITS)


def mean_difference(
    groups: Sequence[Group], logprobs: Sequence[Sequence[Sequence[float]]]
) -> float:
    """Mean absolute difference between the sampler's and the learner's log-probabilities.

    Args:
        groups: P groups with the sampler's.
        logprobs: [P][G][T] the learner's.
    """
    differences = [
        abs(ours - theirs)
        for group, logprobs_G in zip(groups, logprobs, strict=True)
        for completion, logprobs_T in zip(group.completions_G, logprobs_G, strict=True)
        for ours, theirs in zip(completion.rollout_logprobs_T, logprobs_T, strict=True)
    ]
    return float(np.mean(differences))


def rollout_figures(
    scored: Sequence[ScoredGroup], advantages: Sequence[Sequence[float]]
) -> dict[str, float]:
    """Summarise a step's completions: rewards, validity, lengths.

    Rates are per word written: repeats of a gene and words that are no gene of the vocabulary.
    """
    completions = [c for s in scored for c in s.group.completions_G]
    cells = [cell for s in scored for cell in s.group.cells_G]
    rewards = [[r for r in s.rewards_G if r is not None] for s in scored]
    num_words = max(1, sum(cell.num_words for cell in cells))
    figures = {
        "reward_mean": _mean([r for group in rewards for r in group]),
        "reward_std": _mean([float(np.std(group)) for group in rewards if group]),
        "zero_variance_groups": float(sum(not any(a) for a in advantages)),
        "abstained": float(sum(r is None for s in scored for r in s.rewards_G)),
        "duplicate_rate": sum(cell.num_duplicates for cell in cells) / num_words,
        "unknown_rate": sum(len(cell.unknown) for cell in cells) / num_words,
        "truncated_rate": _mean([float(c.is_truncated) for c in completions]),
        "length_mean": _mean([float(len(c.token_ids_T)) for c in completions]),
        "genes_mean": _mean([float(len(cell.genes_K)) for cell in cells]),
        "num_tokens": float(sum(len(c.token_ids_T) for c in completions)),
    }
    for name in scored[0].components:
        figures[f"reward/{name}"] = _mean(
            [value for s in scored for value in s.components[name] if value is not None]
        )
    for name in scored[0].diagnostics:
        figures[f"diagnostic/{name}"] = _mean([v for s in scored for v in s.diagnostics[name]])
    return figures


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
