"""Several actors behind one role: pools of rollout and reward workers, and the learner's ranks.

Each class fills a Protocol of `c2s_rl/grpo/roles.py`. Work is dealt out by position, so that
results depend on the number of workers and on nothing else.
Shape suffixes: P prompts, G completions of one prompt.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ray
from ray.actor import ActorHandle

from actors.calls import wait_all, wait_each
from actors.learner import (
    LOOPBACK,
    LearnerConfig,
    NodeAddress,
    RankBatch,
    RankPlace,
    RankStats,
)
from actors.reward import RewardPoolConfig
from actors.weight_publish import SyncTarget
from c2s_rl.errors import DeadlineError, RewardError, StageError
from c2s_rl.grpo.batch import Row, micro_batches, rows_of, split_between_ranks
from c2s_rl.grpo.roles import LearnBatch, LearnStats, PublishedWeights, RolloutRequest
from c2s_rl.types import Group, ScoredGroup

logger = logging.getLogger(__name__)

T = TypeVar("T")


class RolloutPool:
    """Fills `RolloutWorker` with one or more vLLM actors."""

    def __init__(
        self, workers: Sequence[ActorHandle], *, deadline_s: float, sync_deadline_s: float
    ) -> None:
        self._workers = list(workers)
        self._deadline_s = deadline_s
        self._sync_deadline_s = sync_deadline_s

    def generate(self, requests: Sequence[RolloutRequest]) -> list[Group]:
        """Sample one group a request, in the order of the requests."""
        num_workers = len(self._workers)
        shares = [list(requests[i::num_workers]) for i in range(num_workers)]
        answers = wait_all(
            [w.generate.remote(share) for w, share in zip(self._workers, shares, strict=True)],
            deadline_s=self._deadline_s,
            peer="rollout workers",
        )
        return [answers[i % num_workers][i // num_workers] for i in range(len(requests))]

    def update_weights(self, weights: PublishedWeights) -> None:
        """Load a published version into every engine."""
        what = f"taking weights version {weights.version}"
        wait_each(
            [worker.update_weights.remote(weights) for worker in self._workers],
            deadline_s=self._sync_deadline_s,
            peers=[f"rollout worker {i} ({what})" for i in range(len(self._workers))],
        )


class RewardPool:
    """Fills `RewardWorker` with one or more reward actors, retrying what fails."""

    def __init__(self, start_worker: Callable[[], ActorHandle], config: RewardPoolConfig) -> None:
        self._start_worker = start_worker
        self._config = config
        self.workers = [start_worker() for _ in range(config.num_workers)]

    def ready(self) -> None:
        """Wait until every plug-in is loaded."""
        wait_all(
            [worker.ready.remote() for worker in self.workers],
            deadline_s=self._config.deadline_s,
            peer="reward workers (start)",
        )

    def score(self, groups: Sequence[Group], *, step: int) -> list[ScoredGroup | None]:
        """Score every group, in order; None marks a group whose reward failed after retries."""
        # Groups of one condition stay together: some rewards compare all of them.
        conditions = list(dict.fromkeys(group.record.condition for group in groups))
        num_workers = len(self.workers)
        shares: list[list[int]] = [[] for _ in range(num_workers)]
        for index, group in enumerate(groups):
            shares[conditions.index(group.record.condition) % num_workers].append(index)
        calls = {
            w: self.workers[w].score.remote([groups[i] for i in share])
            for w, share in enumerate(shares)
            if share
        }
        results: dict[int, ScoredGroup | None] = {}
        for w, call in calls.items():
            try:
                (scored,) = self._wait(w, call)
            except (RewardError, DeadlineError, StageError) as error:
                logger.warning("step %d: %s; trying its groups one by one", step, error)
                scored = [self._retry(w, groups[i], step) for i in shares[w]]
            results |= dict(zip(shares[w], scored, strict=True))
        return [results[i] for i in range(len(groups))]

    def _retry(self, worker: int, group: Group, step: int) -> ScoredGroup | None:
        for _ in range(self._config.max_retries):
            try:
                ((scored,),) = self._wait(worker, self.workers[worker].score.remote([group]))
            except (RewardError, DeadlineError, StageError) as error:
                logger.warning("step %d: %s", step, error)
            else:
                return scored
        return None

    def _wait(
        self, worker: int, call: "ray.ObjectRef[list[ScoredGroup]]"
    ) -> list[list[ScoredGroup]]:
        """Wait for one call; a worker that hangs or died is replaced before the error goes on."""
        try:
            return wait_all([call], deadline_s=self._config.deadline_s, peer="a reward worker")
        except (DeadlineError, StageError):
            ray.kill(self.workers[worker])
            self.workers[worker] = self._start_worker()
            raise


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
    ) -> None:
        self._ranks = list(ranks)
        self._config = config
        self._rate = LearningRate(config, num_steps)

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

    def learn(self, batch: LearnBatch) -> LearnStats:
        """Take one optimiser step over all ranks."""
        groups = [scored.group for scored in batch.groups]
        rows = [
            rows_of([groups[i] for i in share], [batch.advantages[i] for i in share])
            for share in split_between_ranks(groups, len(self._ranks))
        ]
        lr = self._rate.at(batch.step)
        num_completions = sum(len(share) for share in rows)
        num_passes = self._num_passes(rows)
        stats: list[RankStats] = self._wait(
            [
                rank.learn.remote(RankBatch(tuple(share), num_completions, num_passes, lr))
                for rank, share in zip(self._ranks, rows, strict=True)
            ],
            "step",
        )
        return LearnStats(learn_figures(stats) | {"lr": lr})

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
        """Make the current weights readable by rollout workers."""
        handles: list[PublishedWeights] = self._wait(
            [r.publish.remote(version) for r in self._ranks], "publish"
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
