"""The learner's ranks behind the role `Learner`.

Groups are dealt out by their place in the step, and cut into micro-batches in that order, so that
results depend on the number of ranks and on nothing else (`c2s_rl/grpo/dealing.py`).
Shape suffixes: P prompts, G completions of one prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ray
from ray.actor import ActorHandle

from actors.calls import wait_all
from actors.learner import (
    LOOPBACK,
    LearnerConfig,
    NodeAddress,
    RankPlace,
    RankPlan,
    RankStats,
)
from c2s_rl.grpo.batch import PaddedCutter, Row, micro_batches, rows_of, split_between_ranks
from c2s_rl.grpo.dealing import Dealer
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
        weights_path: Path,
    ) -> None:
        self._ranks = list(ranks)
        self._config = config
        self._rate = LearningRate(config, num_steps)
        self._weights_path = weights_path

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

    def begin(self, plan: StepPlan) -> None:
        """Start an optimiser step on all ranks."""
        self._plan = plan
        self._dealer: Dealer[Row] = Dealer(
            len(self._ranks), lambda: PaddedCutter(self._config.micro_batch_tokens)
        )
        rank_plan = RankPlan(plan.num_completions, self._rate.at(plan.step))
        self._wait([rank.begin.remote(rank_plan) for rank in self._ranks], "start of step")

    def accumulate(
        self, groups: Sequence[ScoredGroup], advantages: Sequence[Sequence[float]]
    ) -> None:
        """Deal out the next groups of the step; ranks learn from every full micro-batch."""
        for scored, advantages_G in zip(groups, advantages, strict=True):
            self._dealer.add(rows_of([scored.group], [advantages_G], version=self._plan.step))
        passes = self._dealer.ready()
        if passes[0]:
            self._wait(
                [r.accumulate.remote(p) for r, p in zip(self._ranks, passes, strict=True)], "pass"
            )

    def finish(self) -> LearnStats:
        """Learn from what is left and update the policy."""
        passes = self._dealer.rest()
        stats: list[RankStats] = self._wait(
            [r.finish.remote(p) for r, p in zip(self._ranks, passes, strict=True)], "step"
        )
        return LearnStats(learn_figures(stats) | {"lr": self._rate.at(self._plan.step)})

    def learn(self, batch: LearnBatch) -> LearnStats:
        """Take one optimiser step over all ranks."""
        self.begin(batch.plan)
        self.accumulate(batch.groups, batch.advantages)
        return self.finish()

    def logprobs(self, groups: Sequence[Group]) -> list[list[list[float]]]:
        """[P][G][T] log-probabilities of the completion tokens under the current policy."""
        shares = split_between_ranks(groups, len(self._ranks))
        no_advantage = [[0.0] * len(group.completions_G) for group in groups]
        rows = [
            rows_of([groups[i] for i in share], [no_advantage[i] for i in share])
            for share in shares
        ]
        num_passes = self._num_passes(rows)
        answers = self._wait(
            [r.logprobs.remote(s, num_passes) for r, s in zip(self._ranks, rows, strict=True)],
            "scoring",
        )
        result: list[list[list[float]]] = [[] for _ in groups]
        for share, answer in zip(shares, answers, strict=True):
            start = 0
            for index in share:
                stop = start + len(groups[index].completions_G)
                result[index] = answer[start:stop]
                start = stop
        return result

    def publish(self, version: int) -> PublishedWeights:
        """Make the current weights readable by rollout workers on rank 0's node."""
        handles: list[PublishedWeights] = self._wait(
            [r.publish.remote(self._weights_path, version) for r in self._ranks], "publish"
        )
        return handles[0]

    def save(self, folder: Path) -> None:
        """Write policy, optimiser and random states of every rank into an existing folder."""
        self._wait([r.save.remote(folder.absolute()) for r in self._ranks], "save")

    def load(self, folder: Path) -> None:
        """Restore exactly what `save` wrote."""
        self._wait([r.load.remote(folder.absolute()) for r in self._ranks], "load")

    def _num_passes(self, rows: Sequence[Sequence[Row]]) -> int:
        return max(len(micro_batches(share, self._config.micro_batch_tokens)) for share in rows)

    def _wait(self, calls: "Sequence[ray.ObjectRef[T]]", what: str) -> list[T]:
        return wait_all(calls, deadline_s=self._config.deadline_s, peer=f"learner ranks ({what})")


def learn_figures(stats: Sequence[RankStats]) -> dict[str, float]:
    """Combine the ranks' sums into means over the step's completion tokens.

    kl is the mean k3 estimate a token; mismatch_* compare the learner's log-probabilities before
    the update with the sampler's, before anything is clipped.
    """
    total = {name: sum(s.sums[name] for s in stats) for name in stats[0].sums}
    num_tokens = max(total["tokens"], 1.0)
    return {
        "loss": total["loss"],
        "kl": total["kl"] / num_tokens,
        "clip_share": total["clipped"] / num_tokens,
        "entropy": total["entropy_proxy"] / num_tokens,
        "mismatch_mean": total["mismatch"] / num_tokens,
        "mismatch_abs": total["mismatch_abs"] / num_tokens,
        "mismatch_max": max(s.mismatch_max for s in stats),
        "grad_norm": stats[0].grad_norm,
    }
