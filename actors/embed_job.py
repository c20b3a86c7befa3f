"""Embedding as a Ray job: workers with a model each take shards until none is left.

The caller connects to Ray first (`actors.session.ray_session`). What a shard is and what becomes of
it is in `c2s_rl/pipeline/embed.py`; workers write their shards themselves, so the output folder and
the inputs must be on a file system that all nodes see.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.calls import wait_all
from actors.engine_env import learner_env, num_cores
from c2s_rl.errors import DeadlineError
from c2s_rl.pipeline.embed_config import EmbedWorkersConfig
from c2s_rl.pipeline.embed_shards import EmbedJob, Execute, embed_shard, load_embedder

# How long workers that are still at it may take after one has failed.
GRACE_S = 2.0


class EmbedWorker:
    """One model, in a process of its own."""

    def __init__(self, job: EmbedJob) -> None:
        self._embedder = load_embedder(job)

    def embed(self, job: EmbedJob, shard: int) -> int:
        """Embed one shard of a job with the same model; returns its number."""
        embed_shard(self._embedder, job, shard)
        return shard


@contextmanager
def embed_workers(config: EmbedWorkersConfig) -> Iterator[Execute]:
    """Give what runs shards on Ray actors, which start when needed and end with the block.

    All jobs of a block must be of one policy.
    """
    env = {"env_vars": learner_env(_threads(config), is_cpu=config.num_gpus == 0)}
    remote = ray.remote(EmbedWorker).options(
        num_cpus=config.num_cpus, num_gpus=config.num_gpus, runtime_env=env
    )
    workers: list[ActorHandle] = []

    def execute(job: EmbedJob, shards: Sequence[int]) -> Iterator[int]:
        shared = ray.put(job)
        num_needed = min(config.num_workers, len(shards))
        workers.extend(remote.remote(shared) for _ in range(num_needed - len(workers)))
        return shared_out(workers, shared, shards, deadline_s=config.deadline_s)

    try:
        yield execute
    finally:
        for worker in workers:
            ray.kill(worker)


def shared_out(
    workers: Sequence[ActorHandle],
    job: "ObjectRef[EmbedJob]",
    shards: Sequence[int],
    *,
    deadline_s: float,
) -> Iterator[int]:
    """Give every worker its next shard as soon as it is free; yields shards as they are done.

    Raises:
        DeadlineError: If no worker finishes a shard within the deadline.
        StageError: If a worker dies.
        C2SError: As a worker raises it.
    """
    remaining = list(reversed(shards))
    running: dict[ObjectRef[int], ActorHandle] = {}

    def start(worker: ActorHandle) -> None:
        if remaining:
            running[worker.embed.remote(job, remaining.pop())] = worker

    for worker in workers:
        start(worker)
    try:
        while running:
            ready, _ = ray.wait(list(running), num_returns=1, timeout=deadline_s)
            if not ready:
                raise DeadlineError(
                    f"an embedding worker must finish a shard within {deadline_s:g} s, got none "
                    f"from {len(running)}; embed_workers.deadline_s allows more"
                )
            for call in ready:
                worker = running.pop(call)
                (shard,) = wait_all([call], deadline_s=deadline_s, peer="an embedding worker")
                yield shard
                start(worker)
    finally:
        # Where one failed others may have failed too; Ray would print what nobody has looked at.
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=GRACE_S)
        for call in running:
            with suppress(RayError):
                ray.get(call, timeout=0)


def _threads(config: EmbedWorkersConfig) -> int:
    return config.num_threads or max(1, num_cores() // config.num_workers)
