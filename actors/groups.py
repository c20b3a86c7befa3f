"""The learner's ranks behind the role `Learner`.

Groups are dealt out by their place in the step, and cut into micro-batches in that order, so that
results depend on the number of ranks and on nothing else.
Shape suffixes: P prompts, G completions of one prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ray
from ray.actor import ActorHandle

from actors.calls import wait_all
from actors.learner import LOOPBACK, NodeAddress, RankPlace, RankPlan, RankStats
from actors.learner_config import LearnerConfig
from actors.weight_publish import SyncTarget
from c2s_rl.grpo.batch import rows_of
from c2s_rl.grpo.loss import StepTotals
from c2s_rl.grpo.loss_stats import loss_figures
from c2s_rl.grpo.passes import MicroParts, Pass, PassPlanner
from c2s_rl.grpo.roles import LearnBatch, LearnStats, PublishedWeights, StepPlan
from c2s_rl.types import Group, ScoredGroup

T = TypeVar("T")


@dataclass(frozen=True)
class LearningRate:
    """Learning rate over a run: linear warm-up, then constant or linear to 0."""

    config: LearnerConfig
    num_steps: int

    def at(self, step: int) -> float:
        """Rate of a 0-based step."""
        warmup = self.config.warmup_steps
        if step < warmup:
            return self.config.lr * (step + 1) / warmup
        if self.config.lr_schedule == "constant":
            return self.config.lr
        return self.config.lr * (self.num_steps - step) / max(1, self.num_steps - warmup)


class LearnerGroup:
    """Fills `Learner` with DeepSpeed ranks."""

    def __init__(
        self,
        ranks: Sequence[ActorHandle],
        config: LearnerConfig,
        *,
        num_steps: int,
        max_tokens: int,
    ) -> None:
        """Take the ranks.

        Args:
            ranks: Not started yet.
            config: Of the learner.
            num_steps: Of the run, for the learning rate.
            max_tokens: Longest completion that is sampled.
        """
        self._ranks = list(ranks)
        self._config = config
        self._rate = LearningRate(config, num_steps)
        self._max_tokens = max_tokens

    def start(self) -> str:
        """Let the ranks find each other and load the policy; return the node id of rank 0."""
        addresses: list[NodeAddress] = self._wait(
            [r.address.remote() for r in self._ranks], "start"
        )
        first = addresses[0]
        is_one_node = len({address.node_id for address in addresses}) == 1
        host = LOOPBACK if is_one_node else first.host
        places = [
            RankPlace(rank, len(self._ranks), host, first.free_port)
            for rank in range(len(self._ranks))
        ]
        self._wait(
            [r.start.remote(place) for r, place in zip(self._ranks, places, strict=True)],
            "start",
        )
        return first.node_id

    def connect(self, target: SyncTarget) -> None:
        """Tell the ranks where to publish to; the rollout workers must be up."""
        self._wait([r.connect.remote(target) for r in self._ranks], "connect")

    def begin(self, plan: StepPlan) -> None:
        """Start an optimiser step on all ranks."""
        self._plan = plan
        self._planner = self._new_planner()
        # Losses that divide by the step's tokens are never learned from before all are known.
        totals = StepTotals(plan.num_completions, plan.num_tokens or 0, self._max_tokens)
        rank_plan = RankPlan(totals, self._rate.at(plan.step))
        self._wait([rank.begin.remote(rank_plan) for rank in self._ranks], "start of step")

    def accumulate(
        self, groups: Sequence[ScoredGroup], advantages: Sequence[Sequence[float]]
    ) -> None:
        """Deal out the next groups of the step; ranks learn from every full micro-batch."""
        passes: list[Pass] = []
        for scored, advantages_G in zip(groups, advantages, strict=True):
            passes += self._planner.add(rows_of([scored.group], [advantages_G]))
        if passes:
            self._wait(
                [
                    rank.accumulate.remote(share)
                    for rank, share in zip(self._ranks, _shares(passes), strict=True)
                ],
                "pass",
            )

    def finish(self) -> LearnStats:
        """Learn from what is left and update the policy."""
        shares = _shares(self._planner.flush())
        stats: list[RankStats] = self._wait(
            [r.finish.remote(share) for r, share in zip(self._ranks, shares, strict=True)], "step"
        )
        return LearnStats(learn_figures(stats) | {"lr": self._rate.at(self._plan.step)})

    def learn(self, batch: LearnBatch) -> LearnStats:
        """Take one optimiser step over all ranks."""
        self.begin(batch.plan)
        self.accumulate(batch.groups, batch.advantages)
        return self.finish()

    def logprobs(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """[P][G][T] log-probabilities of the completion tokens under the current policy."""
        planner = self._new_planner()
        passes: list[Pass] = []
        for group in groups:
            passes += planner.add(rows_of([group], [[0.0] * len(group.completions_G)]))
        passes += planner.flush()
        answers = self._wait(
            [
                rank.logprobs.remote(share)
                for rank, share in zip(self._ranks, _shares(passes), strict=True)
            ],
            "scoring",
        )
        rows = [iter(answer) for answer in answers]  # each rank's groups lie one after the other
        return [
            [next(rows[place % len(rows)]) for _ in group.completions_G]
            for place, group in enumerate(groups)
        ]

    def _new_planner(self) -> PassPlanner:
        return PassPlanner(len(self._ranks), self._config.micro_batch_tokens)

    def publish(self, version: int) -> PublishedWeights:
        """Make the current weights readable by rollout workers."""
        handles: list[PublishedWeights] = self._wait(
            [r.publish.remote(version) for r in self._ranks], "publish"
        )
        return handles[0]

    def save(self, folder: Path) -> None:
        """Write policy, optimiser and random states of every rank into an existing folder."""
        self._wait([r.save.remote(folder.absolute()) for r in self._ranks], "save")

    def save_policy(self, folder: Path) -> None:
        """Write only the policy into an existing folder: what `save` calls policy/ and adapter/."""
        self._wait([r.save_policy.remote(folder.absolute()) for r in self._ranks], "save policy")

    def load(self, folder: Path) -> None:
        """Restore exactly what `save` wrote."""
        self._wait([r.load.remote(folder.absolute()) for r in self._ranks], "load")

    def _wait(self, calls: "Sequence[ray.ObjectRef[T]]", what: str) -> list[T]:
        return wait_all(calls, deadline_s=self._config.deadline_s, peer=f"learner ranks ({what})")


def _shares(passes: Sequence[Pass]) -> list[list[MicroParts]]:
    """Turn passes over, to [ranks][passes]; there is at least one pass."""
    return [list(share) for share in zip(*passes, strict=True)]


def learn_figures(stats: Sequence[RankStats]) -> dict[str, float]:
    """Combine what the ranks measured; see `loss_figures`.

    mismatch_* compare the learner's log-probabilities before the update with the sampler's, before
    anything is clipped.
    """
    names = dict.fromkeys(name for s in stats for name in s.sums)
    sums = {name: sum(s.sums.get(name, 0.0) for s in stats) for name in names}
    maxima = {
        name: max(s.maxima.get(name, 0.0) for s in stats)
        for name in dict.fromkeys(name for s in stats for name in s.maxima)
    }
    figures = loss_figures(sums, maxima)
    return {"loss": sums["loss"], **figures, "grad_norm": stats[0].grad_norm}
