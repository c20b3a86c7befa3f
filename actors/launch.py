"""Wiring: starts the actors of an alignment or an evaluation and hands them over as roles."""

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.actor import ActorHandle

from actors.calls import wait_all
from actors.engine_env import common_env, learner_env, num_cores, rollout_env
from actors.groups import LearnerGroup, RewardPool, RolloutPool
from actors.learner import DeepSpeedLearnerRank, LearnerConfig
from actors.reward import CompositeRewardWorker, RewardPoolConfig
from actors.rollout import RolloutConfig, VLLMRolloutWorker
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.errors import ConfigError
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline.align import AlignConfig, AlignWorkers
from rewards.composite import RewardSpec

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def rollout_pool(
    policy: Path, vocabulary: Vocabulary, sampling: SamplingConfig, config: RolloutConfig
) -> Iterator[RolloutPool]:
    """Start vLLM engines on a policy, and end them when the block does."""
    actors = [
        _start_rollout(policy, vocabulary, sampling, config) for _ in range(config.num_workers)
    ]
    try:
        wait_all(
            [actor.node.remote() for actor in actors],
            deadline_s=config.deadline_s,
            peer="rollout workers (start)",
        )
        yield RolloutPool(actors, deadline_s=config.deadline_s)
    finally:
        _end(actors)


@contextmanager
def align_workers(  # noqa: PLR0913 one argument a config section
    policy: Path,
    vocabulary: Vocabulary,
    *,
    align: AlignConfig,
    rewards: Sequence[RewardSpec],
    rollout: RolloutConfig,
    learner: LearnerConfig,
    reward_pool: RewardPoolConfig,
    output: Path,
) -> Iterator[AlignWorkers]:
    """Start all actors of an alignment, side by side, and end them when the block does.

    Raises:
        ConfigError: If a rollout worker is not on the node of learner rank 0, where the published
            weights are.
    """
    engines = [
        _start_rollout(policy, vocabulary, align.sampling, rollout)
        for _ in range(rollout.num_workers)
    ]
    ranks = [_start_rank(policy, vocabulary, align, learner) for _ in range(learner.num_workers)]
    weights_path = _weights_path(output)
    pool = RewardPool(lambda: start_reward(rewards, vocabulary, reward_pool), reward_pool)
    try:
        group = LearnerGroup(ranks, learner, num_steps=align.num_steps, weights_path=weights_path)
        node = group.start()
        nodes = wait_all(
            [engine.node.remote() for engine in engines],
            deadline_s=rollout.deadline_s,
            peer="rollout workers (start)",
        )
        if set(nodes) != {node}:
            raise ConfigError(
                "weights go through shared memory, so rollout workers must be on the node of "
                f"learner rank 0 ({node}), got nodes {', '.join(nodes)}"
            )
        pool.ready()
        yield AlignWorkers(RolloutPool(engines, deadline_s=rollout.deadline_s), pool, group)
    finally:
        _end([*engines, *ranks, *pool.workers])
        weights_path.unlink(missing_ok=True)


def _weights_path(output: Path) -> Path:
    """One file a run folder: what a killed run leaves behind is overwritten by its successor."""
    folder = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    key = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:16]
    return folder / f"c2s-rl-{key}.weights"


def _start_rollout(
    policy: Path, vocabulary: Vocabulary, sampling: SamplingConfig, config: RolloutConfig
) -> ActorHandle:
    env = rollout_env(
        config.num_threads or num_cores(),
        is_cpu=config.num_gpus == 0,
        kv_cache_gib=config.kv_cache_gib,
    )
    remote = ray.remote(VLLMRolloutWorker).options(
        num_cpus=config.num_cpus, num_gpus=config.num_gpus, runtime_env={"env_vars": env}
    )
    return remote.remote(policy.absolute(), vocabulary, sampling, config)


def _start_rank(
    policy: Path, vocabulary: Vocabulary, align: AlignConfig, config: LearnerConfig
) -> ActorHandle:
    num_threads = config.num_threads or max(1, num_cores() // config.num_workers)
    env = learner_env(num_threads, is_cpu=config.num_gpus == 0)
    remote = ray.remote(DeepSpeedLearnerRank).options(
        num_cpus=config.num_cpus, num_gpus=config.num_gpus, runtime_env={"env_vars": env}
    )
    return remote.remote(policy.absolute(), config, align.loss, align.sampling, vocabulary)


def start_reward(
    specs: Sequence[RewardSpec], vocabulary: Vocabulary, config: RewardPoolConfig
) -> ActorHandle:
    """Start one reward worker; it loads its plug-ins in its own process."""
    remote = ray.remote(CompositeRewardWorker).options(
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
        runtime_env={"env_vars": common_env(1)},
    )
    return remote.remote(tuple(specs), vocabulary)


def _end(actors: Sequence[ActorHandle]) -> None:
    for actor in actors:
        ray.kill(actor)
