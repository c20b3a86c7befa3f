"""Wiring: starts the actors of an alignment or an evaluation and hands them over as roles."""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.actor import ActorHandle

from actors.calls import wait_all
from actors.engine_env import common_env, learner_env, num_cores, rollout_env
from actors.engine_weights import EngineSync, engine_sync
from actors.groups import LearnerGroup
from actors.learner import DeepSpeedLearnerRank
from actors.learner_config import LearnerConfig
from actors.reward import CompositeRewardWorker, RewardPoolConfig
from actors.reward_pool import RewardPool
from actors.rollout import RolloutConfig, VLLMRolloutWorker
from actors.rollout_pool import RolloutPool
from actors.sync_config import SyncConfig, choose_backend
from actors.weight_publish import SyncTarget
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.errors import ConfigError
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline.align import AlignConfig, AlignWorkers
from rewards import reward_class
from rewards.base import RewardScope
from rewards.composite import RewardSpec

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")
# Learner and engines have their own devices.
IS_COLOCATED = False


@contextmanager
def rollout_pool(
    policy: Path,
    vocabulary: Vocabulary,
    sampling: SamplingConfig,
    config: RolloutConfig,
    *,
    sync: EngineSync | None = None,
) -> Iterator[RolloutPool]:
    """Start vLLM engines on a policy, and end them when the block does."""
    sync = sync or EngineSync()
    actors = [
        _start_rollout(policy, vocabulary, sampling, config, sync)
        for _ in range(config.num_workers)
    ]
    try:
        wait_all(
            [actor.node.remote() for actor in actors],
            deadline_s=config.deadline_s,
            peer="rollout workers (start)",
        )
        yield RolloutPool(actors, deadline_s=config.deadline_s, sync_deadline_s=sync.deadline_s)
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
    sync: SyncConfig,
    output: Path,
) -> Iterator[AlignWorkers]:
    """Start all actors of an alignment, side by side, and end them when the block does.

    Raises:
        ConfigError: If weights go through shared memory and a rollout worker is not on the node of
            learner rank 0.
    """
    engine = _engine_sync(sync, align, learner, rollout)
    engines = [
        _start_rollout(policy, vocabulary, align.sampling, rollout, engine)
        for _ in range(rollout.num_workers)
    ]
    ranks = [_start_rank(policy, vocabulary, align, learner) for _ in range(learner.num_workers)]
    target = SyncTarget(_sync_folder(output), engine, sync.bucket_bytes, tuple(engines))
    pool = RewardPool(
        lambda: start_reward(rewards, vocabulary, reward_pool),
        reward_pool,
        is_per_condition=is_per_condition(rewards),
    )
    try:
        group = LearnerGroup(
            ranks,
            learner,
            num_steps=align.num_steps,
            max_tokens=align.sampling.max_tokens,
        )
        node = group.start()
        nodes = wait_all(
            [actor.node.remote() for actor in engines],
            deadline_s=rollout.deadline_s,
            peer="rollout workers (start)",
        )
        if engine.is_local and set(nodes) != {node}:
            raise ConfigError(
                "weights go through shared memory, so rollout workers must be on the node of "
                f"learner rank 0 ({node}), got nodes {', '.join(nodes)}"
            )
        group.connect(target)
        pool.ready()
        rollouts = RolloutPool(
            engines, deadline_s=rollout.deadline_s, sync_deadline_s=sync.deadline_s
        )
        yield AlignWorkers(rollouts, pool, group)
    finally:
        pool.close()
        _end([*engines, *ranks, *pool.workers])
        shutil.rmtree(target.folder, ignore_errors=True)


def _engine_sync(
    sync: SyncConfig, align: AlignConfig, learner: LearnerConfig, rollout: RolloutConfig
) -> EngineSync:
    backend = choose_backend(
        sync,
        learner_gpus=learner.num_gpus,
        rollout_gpus=rollout.num_gpus,
        is_colocated=IS_COLOCATED,
    )
    staleness = align.bound.max_versions if align.bound else 0
    return engine_sync(
        learner.lora, backend=backend, deadline_s=sync.deadline_s, staleness=staleness
    )


def _sync_folder(output: Path) -> Path:
    """One folder a run: what a killed run leaves behind is overwritten by its successor."""
    folder = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    key = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:16]
    return folder / f"c2s-rl-{key}"


def _start_rollout(
    policy: Path,
    vocabulary: Vocabulary,
    sampling: SamplingConfig,
    config: RolloutConfig,
    sync: EngineSync,
) -> ActorHandle:
    env = rollout_env(
        config.num_threads or num_cores(),
        is_cpu=config.num_gpus == 0,
        kv_cache_gib=config.kv_cache_gib,
    )
    remote = ray.remote(VLLMRolloutWorker).options(
        num_cpus=config.num_cpus, num_gpus=config.num_gpus, runtime_env={"env_vars": env}
    )
    return remote.remote(policy.absolute(), vocabulary, sampling, config, sync)


def _start_rank(
    policy: Path, vocabulary: Vocabulary, align: AlignConfig, config: LearnerConfig
) -> ActorHandle:
    num_threads = config.num_threads or max(1, num_cores() // config.num_workers)
    env = learner_env(num_threads, is_cpu=config.num_gpus == 0)
    remote = ray.remote(DeepSpeedLearnerRank).options(
        num_cpus=config.num_cpus, num_gpus=config.num_gpus, runtime_env={"env_vars": env}
    )
    return remote.remote(
        policy.absolute(), vocabulary, config=config, loss=align.loss, sampling=align.sampling
    )


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


def is_per_condition(specs: Sequence[RewardSpec]) -> bool:
    """Whether a reward of the run compares all groups of a step that share a condition."""
    return any(reward_class(spec.name).scope is RewardScope.CONDITION for spec in specs)


def _end(actors: Sequence[ActorHandle]) -> None:
    for actor in actors:
        ray.kill(actor)
