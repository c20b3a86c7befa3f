"""One optimiser step of alignment after the other: sync, sample, score, learn.

One loop for every mode. It takes a step's groups from a source, in the source's order, and learns
from them as they come or once all are there; which weights sampled them, and whether others are
still being sampled meanwhile, is the source's affair (`group_source.py`). Left out: the config and
the run folder (`align.py`).
Shape suffixes: P prompts of a step, G completions of a prompt.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from c2s_rl.checkpoint import atomic_folder, latest_checkpoint, prune
from c2s_rl.data.completions import COMPLETIONS, write_completions
from c2s_rl.errors import CheckpointError, WeightSyncError
from c2s_rl.evaluation.probes import ProbeRuler
from c2s_rl.grpo.advantage import AdvantageScale, step_advantages
from c2s_rl.grpo.roles import Learner, RolloutRequest, StepPlan
from c2s_rl.grpo.staleness import Cursor
from c2s_rl.pipeline.align_figures import (
    mean_difference,
    probe_figures,
    rollout_figures,
    staleness_figures,
)
from c2s_rl.pipeline.failure_budget import FailureBudget
from c2s_rl.pipeline.group_source import GroupSource
from c2s_rl.pipeline.group_stream import Outcome
from c2s_rl.pipeline.timeline import Timeline
from c2s_rl.types import ScoredGroup

logger = logging.getLogger(__name__)

# Weights are compared on a few completions only: a wrong sync shows on every token.
NUM_CHECKED_GROUPS = 2
# The first sync carries unchanged weights and proves little; the second carries an update.
NUM_CHECKED_STEPS = 2


@dataclass(frozen=True)
class LoopConfig:
    """What the loop itself needs of a run's config."""

    prompts_per_step: int
    """P."""
    group_size: int
    """G."""
    scale: AdvantageScale
    """The std that advantages are divided by."""
    learns_early: bool
    """Learn from groups while others of the step are still missing."""
    sync_tolerance: float
    """Largest mean |engine - learner| log-probability after a sync."""
    max_failed_groups: int
    """Groups that failed rewards may cost in the whole run."""
    max_failed_completions: int
    """Completions that rewards may fail on in groups that are kept."""
    save_completions_every: int
    """Steps between files of completions."""
    keep_checkpoints: int
    """Newest checkpoints that stay."""
    probes: ProbeRuler | None = None
    """What the probes of each step measure with; None takes none."""


@dataclass(frozen=True)
class LoopState:
    """What a checkpoint holds beside the learner's own files."""

    step: int = 0
    """Steps done."""
    num_failed_groups: int = 0
    """In those steps."""
    num_failed_completions: int = 0
    """In those steps, in groups that were kept."""
    ahead: tuple[int, ...] = ()
    """Positions of the prompt stream used out of order; see `Cursor`."""
    base: int = 0
    """Positions below it have all been used."""

    @property
    def cursor(self) -> Cursor:
        """What has been used of the prompts."""
        return Cursor(self.base, self.ahead)


def resume(learner: Learner, checkpoints: Path) -> LoopState:
    """Bring a learner back to its newest checkpoint, if there is one.

    Raises:
        CheckpointError: If the checkpoint lacks its state.
    """
    folder = latest_checkpoint(checkpoints)
    if folder is None:
        return LoopState()
    try:
        content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        state = LoopState(**content | {"ahead": tuple(content["ahead"])})
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(f"a checkpoint must hold a state.json, got {error}") from error
    learner.load(folder)
    logger.info("continuing after step %d from %s", state.step, folder)
    return state


class AlignLoop:
    """The state of a run between two steps."""

    def __init__(
        self,
        config: LoopConfig,
        learner: Learner,
        source: GroupSource,
        timeline: Timeline,
        *,
        output: Path,
        state: LoopState,
    ) -> None:
        """Go on from a state.

        Args:
            config: The run.
            learner: At that state.
            source: Of the groups to learn from.
            timeline: Shared with the source.
            output: The run's folder.
            state: What is done.
        """
        self.step = state.step
        self._failures = FailureBudget(
            max_groups=config.max_failed_groups,
            max_completions=config.max_failed_completions,
            num_groups=state.num_failed_groups,
            num_completions=state.num_failed_completions,
        )
        self._num_checked_steps = state.step + NUM_CHECKED_STEPS
        self._config = config
        self._learner = learner
        self._source = source
        self._timeline = timeline
        self.output = output
        self._synced_step: int | None = None
        self._before: dict[str, float] = {}

    def take_step(self) -> dict[str, float]:
        """Run one step and return its figures."""
        self._sync()
        is_checked = self.step < self._num_checked_steps
        is_early = self._config.learns_early and not is_checked
        scored: list[ScoredGroup] = []
        advantages: list[tuple[float, ...]] = []
        if is_early:
            self._learner.begin(self._plan(num_tokens=None))
        for outcomes in self._source.groups(self.step, is_in_step=is_checked):
            new = self._failures.keep([outcome.scored for outcome in outcomes], self.step)
            scored += new
            if is_early:
                advantages += self._learn(new)
        if not scored:
            self._failures.fail(self.step)
        if not is_early:
            if is_checked:
                self._check_sync(scored)
            self._learner.begin(self._plan(num_tokens=_num_tokens(scored)))
            advantages += self._learn(scored)
        with self._timeline.phase("learn"):
            stats = self._learner.finish()
        return self._report(scored, advantages, stats.figures)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave what the block takes out of the steps' seconds; for use between two steps."""
        self._sync()
        self._before = self._seconds()
        yield
        self._timeline.lap()

    def answer(self, requests: Sequence[RolloutRequest]) -> list[Outcome]:
        """Have prompts that are not trained on answered by the policy as it is between two steps.

        Neither what the steps sample nor what they learn from is touched by it.

        Returns:
            Outcomes in the order of the requests.
        """
        self._sync()
        return self._source.answer(requests)

    def save(self, checkpoints: Path) -> None:
        """Write a checkpoint of the steps done so far, and remove the oldest."""
        cursor = self._source.cursor
        state = LoopState(
            self.step,
            self._failures.num_groups,
            self._failures.num_completions,
            cursor.ahead,
            cursor.base,
        )
        with (
            self._timeline.phase("save"),
            atomic_folder(checkpoints / f"step-{self.step:05d}") as folder,
        ):
            self._learner.save(folder)
            (folder / "state.json").write_text(json.dumps(asdict(state)), encoding="utf-8")
        prune(checkpoints, self._config.keep_checkpoints)

    def _sync(self) -> None:
        """Load the weights of the coming step into the engines, once."""
        if self._synced_step != self.step:
            with self._timeline.phase("sync"):
                self._source.update(partial(self._learner.publish, self.step))
            self._synced_step = self.step

    def _seconds(self) -> dict[str, float]:
        """Seconds of the step so far, without what was spent on other prompts in between."""
        lap = self._timeline.lap()
        return {name: self._before.get(name, 0.0) + seconds for name, seconds in lap.items()}

    def _plan(self, *, num_tokens: int | None) -> StepPlan:
        num_completions = self._config.prompts_per_step * self._config.group_size
        return StepPlan(self.step, num_completions, num_tokens)

    def _learn(self, scored: Sequence[ScoredGroup]) -> list[tuple[float, ...]]:
        advantages = list(step_advantages([s.rewards_G for s in scored], scale=self._config.scale))
        if scored:
            with self._timeline.phase("learn"):
                self._learner.accumulate(scored, advantages)
        return advantages

    def _check_sync(self, scored: Sequence[ScoredGroup]) -> None:
        some = [s.group for s in scored[:NUM_CHECKED_GROUPS]]
        with self._timeline.phase("check"):
            difference = mean_difference(some, self._learner.logprobs(some))
        logger.info("engine and learner log-probabilities differ by %.2g", difference)
        if difference > self._config.sync_tolerance:
            raise WeightSyncError(
                "mean |engine - learner| log-probability must be at most "
                f"sync_tolerance={self._config.sync_tolerance}, got {difference:.3g} "
                f"at step {self.step}"
            )

    def _report(
        self,
        scored: Sequence[ScoredGroup],
        advantages: Sequence[tuple[float, ...]],
        learned: Mapping[str, float],
    ) -> dict[str, float]:
        if self.step % self._config.save_completions_every == 0:
            path = self.output / COMPLETIONS / f"step-{self.step:05d}.parquet"
            write_completions(path, scored, advantages)
        seconds = self._seconds()
        self._before = {}
        figures = rollout_figures(scored, advantages) | staleness_figures(scored, self.step)
        if self._config.probes is not None:
            figures |= probe_figures([s.group for s in scored], self._config.probes)
        figures |= dict(learned) | self._source.counts() | seconds
        # an engine that ran ahead may have rested for the whole of this step
        sampling = seconds["seconds_rollout"] or float("nan")
        figures["tokens_per_s"] = figures.pop("num_tokens") / sampling
        figures |= self._failures.figures()
        self.step += 1
        return figures


def _num_tokens(scored: Sequence[ScoredGroup]) -> int:
    return sum(len(c.token_ids_T) for s in scored for c in s.group.completions_G)
