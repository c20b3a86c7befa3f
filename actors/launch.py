"""Wiring: starts the actors of an alignment or an evaluation and hands them over as roles."""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.engine_env import learner_env, num_cores, rollout_env
from actors.engine_weights import EngineSync, engine_sync
from actors.groups import LearnerGroup
from actors.learner import DeepSpeedLearnerRank
from actors.learner_config import LearnerConfig
from actors.placement import PlacementConfig, Seat, plan_seating, reserve, shares_gpus
from actors.reward_pools import RewardStart, reward_pools
from actors.rollout import RolloutConfig, VLLMRolloutWorker
from actors.rollout_pool import RolloutPool
from actors.sync_config import SyncConfig, choose_backend
from actors.weight_publish import SyncTarget
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.grpo.sampling import SamplingConfig
from c2s_rl.pipeline.align import AlignConfig, AlignWorkers
from rewards.composite import CompositeConfig, RewardSpec
from rewards.pool_config import RewardPoolConfig

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")


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
    env = _rollout_env(config, config.num_threads or num_cores())
    remote = ray.remote(VLLMRolloutWorker).options(
        num_cpus=config.num_cpus, num_gpus=config.num_gpus, runtime_env={"env_vars": env}
    )
    actors = [
        remote.remote(policy.absolute(), vocabulary, sampling, config, sync)
        for _ in range(config.num_workers)
    ]
    try:
        pool = RolloutPool(actors, deadline_s=config.deadline_s, sync_deadline_s=sync.deadline_s)
        pool.start()
        yield pool
    finally:
        _end(actors)


@dataclass(frozen=True)
class AlignSections:
    """The sections of a run's file that its workers are made from."""

    align: AlignConfig
    rewards: tuple[RewardSpec, ...]
    composite: CompositeConfig
    rollout: RolloutConfig
    learner: LearnerConfig
    reward_workers: RewardPoolConfig
    sync: SyncConfig
    placement: PlacementConfig


@contextmanager
def align_workers(
    policy: Path,
    vocabulary: Vocabulary,
    sections: AlignSections,
    *,
    material: RewardMaterial,
    output: Path,
) -> Iterator[AlignWorkers]:
    """Start all actors of an alignment, side by side, and end them when the block does.

    Args:
        policy: Folder of the policy that is aligned.
        vocabulary: Gene symbols of the prompts.
        sections: How many workers of which kind, and where.
        material: Real cells for the rewards.
        output: The run's folder.

    Raises:
        ConfigError: If the workers do not fit where they are placed, or if weights go through
            shared memory and a rollout worker is not on the node of learner rank 0.
    """
    placement = sections.placement
    seating = plan_seating(placement, sections.rollout, sections.learner, num_cores=num_cores())
    sync = _engine_sync(sections)
    with (
        reserve(seating, is_one_node=sync.is_local, deadline_s=placement.deadline_s) as room,
        reward_pools(_reward_start(vocabulary, material, sections)) as rewards,
        ExitStack() as stack,
    ):
        engines = [
            _start_engine(policy, vocabulary, sections, sync, _at(room, seat))
            for seat in seating.engines
        ]
        stack.callback(_end, engines)
        ranks = [
            _start_rank(policy, vocabulary, sections, _at(room, seat)) for seat in seating.ranks
        ]
        stack.callback(_end, ranks)
        target = SyncTarget(_sync_folder(output), sync, sections.sync.bucket_bytes, tuple(engines))
        stack.callback(shutil.rmtree, target.folder, ignore_errors=True)
        learner = LearnerGroup(
            ranks,
            sections.learner,
            num_steps=sections.align.num_steps,
            max_tokens=sections.align.sampling.max_tokens,
        )
        rollout_pool = RolloutPool(
            engines,
            deadline_s=sections.rollout.deadline_s,
            sync_deadline_s=sections.sync.deadline_s,
            can_sleep=placement.sleep,
        )
        _wait_for_start(rollout_pool, learner, sync)
        learner.connect(target)
        rewards.ready()
        yield AlignWorkers(rollout_pool, rewards, learner)


def _wait_for_start(rollout: RolloutPool, learner: LearnerGroup, sync: EngineSync) -> None:
    node = learner.start()
    nodes = rollout.start()
    if sync.is_local and set(nodes) != {node}:
        raise ConfigError(
            "weights go through shared memory, so rollout workers must be on the node of "
            f"learner rank 0 ({node}), got nodes {', '.join(nodes)}"
        )


def _reward_start(
    vocabulary: Vocabulary, material: RewardMaterial, sections: AlignSections
) -> RewardStart:
    return RewardStart(
        sections.rewards, vocabulary, material, sections.reward_workers, sections.composite
    )


def _engine_sync(sections: AlignSections) -> EngineSync:
    sync, learner, rollout = sections.sync, sections.learner, sections.rollout
    backend = choose_backend(
        sync,
        learner_gpus=learner.num_gpus,
        rollout_gpus=rollout.num_gpus,
        is_colocated=shares_gpus(sections.placement, rollout, learner),
    )
    bound = sections.align.bound
    return engine_sync(
        learner.lora,
        backend=backend,
        deadline_s=sync.deadline_s,
        staleness=bound.max_versions if bound else 0,
    )


def _sync_folder(output: Path) -> Path:
    """One folder a run: what a killed run leaves behind is overwritten by its successor."""
    folder = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    key = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:16]
    return folder / f"c2s-rl-{key}"


@dataclass(frozen=True)
class Place:
    """A seat in a placement group that exists."""

    strategy: PlacementGroupSchedulingStrategy
    num_threads: int


def _at(room: PlacementGroup, seat: Seat) -> Place:
    return Place(PlacementGroupSchedulingStrategy(room, seat.bundle), seat.num_threads)


def _start_engine(
    policy: Path,
    vocabulary: Vocabulary,
    sections: AlignSections,
    sync: EngineSync,
    place: Place,
) -> ActorHandle:
    config = sections.rollout
    remote = ray.remote(VLLMRolloutWorker).options(
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
        runtime_env={"env_vars": _rollout_env(config, place.num_threads)},
        scheduling_strategy=place.strategy,
    )
    return remote.remote(
        policy.absolute(),
        vocabulary,
        sections.align.sampling,
        config,
        sync,
        can_sleep=sections.placement.sleep,
    )


def _rollout_env(config: RolloutConfig, num_threads: int) -> dict[str, str]:
    return rollout_env(num_threads, is_cpu=config.num_gpus == 0, kv_cache_gib=config.kv_cache_gib)


def _start_rank(
    policy: Path, vocabulary: Vocabulary, sections: AlignSections, place: Place
) -> ActorHandle:
    config, align = sections.learner, sections.align
    remote = ray.remote(DeepSpeedLearnerRank).options(
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
        runtime_env={"env_vars": learner_env(place.num_threads, is_cpu=config.num_gpus == 0)},
        scheduling_strategy=place.strategy,
    )
    return remote.remote(
        policy.absolute(), vocabulary, config=config, loss=align.loss, sampling=align.sampling
    )


def _end(actors: Sequence[ActorHandle]) -> None:
    for actor in actors:
        ray.kill(actor)
