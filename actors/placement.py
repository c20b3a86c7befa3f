"""Where an alignment's workers sit: which of them share a GPU or cores, and which are apart.

One Ray placement group holds the engines and the learner's ranks. Left out: reward workers, which
Ray puts where there is room, and how weights travel between what is placed here.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import ray
from pydantic import Field
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from actors.learner_config import LearnerConfig
from actors.rollout import RolloutConfig
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import ConfigError, DeadlineError

logger = logging.getLogger(__name__)

MIN_CPUS = 0.001  # Ray refuses a bundle of nothing


class PlacementMode(StrEnum):
    """How engines and the learner's ranks stand to each other."""

    COLOCATED = "colocated"
    """They share GPUs or cores and take turns."""
    DISAGGREGATED = "disaggregated"
    """Each has its own."""


class PlacementConfig(FrozenConfig):
    """Who shares what."""

    mode: PlacementMode = Field(
        PlacementMode.COLOCATED,
        description="colocated: engines and ranks share GPUs or cores; disaggregated: each has its "
        "own",
    )
    sleep: bool = Field(
        default=False,
        description="Engines on a GPU give its memory back while nothing is sampled (vLLM's sleep "
        "mode); needs align.streaming=false",
    )
    deadline_s: float = Field(
        120.0, gt=0, description="Longest wait for the cluster to have room, seconds"
    )


@dataclass(frozen=True)
class Seat:
    """One worker's place."""

    bundle: int
    """Index of the placement group's bundle."""
    num_threads: int
    """Threads it computes with on CPU."""


@dataclass(frozen=True)
class Seating:
    """Everybody's place."""

    bundles: tuple[dict[str, float], ...]
    """Ray resources of each bundle."""
    engines: tuple[Seat, ...]
    """One a rollout worker."""
    ranks: tuple[Seat, ...]
    """One a learner rank."""


def check_sharing(config: PlacementConfig, rollout: RolloutConfig, learner: LearnerConfig) -> None:
    """Check what does not depend on the machine.

    Raises:
        ValueError: If engines and ranks cannot share GPUs as asked, or cannot sleep.
    """
    if config.sleep and rollout.num_gpus == 0:
        raise ValueError(
            "placement.sleep needs engines on GPUs, for vLLM cannot sleep on a CPU, "
            "got rollout.num_gpus=0"
        )
    if config.sleep and config.mode is not PlacementMode.COLOCATED:
        raise ValueError(
            "placement.sleep needs placement.mode=colocated, for elsewhere nobody uses the memory, "
            f"got {config.mode}"
        )
    if not shares_gpus(config, rollout, learner):
        return
    if rollout.num_gpus + learner.num_gpus > 1:
        raise ValueError(
            "rollout.num_gpus + learner.num_gpus must be at most 1 with placement.mode=colocated, "
            f"where an engine and a rank share a GPU, got {rollout.num_gpus:g} + "
            f"{learner.num_gpus:g}"
        )
    if rollout.num_workers != learner.num_workers:
        raise ValueError(
            "rollout.num_workers and learner.num_workers must be equal with "
            "placement.mode=colocated on GPUs, where each engine shares a rank's GPU, got "
            f"{rollout.num_workers} and {learner.num_workers}"
        )


def shares_gpus(config: PlacementConfig, rollout: RolloutConfig, learner: LearnerConfig) -> bool:
    """Whether each engine has the GPU of a rank."""
    is_on_gpus = rollout.num_gpus > 0 and learner.num_gpus > 0
    return config.mode is PlacementMode.COLOCATED and is_on_gpus


def reserved_gpus(config: PlacementConfig, rollout: RolloutConfig, learner: LearnerConfig) -> float:
    """GPUs that engines and ranks hold together; a shared one is held whole, and counts once."""
    if shares_gpus(config, rollout, learner):
        return rollout.num_workers
    return sum(pool.num_workers * pool.num_gpus for pool in (rollout, learner))


def plan_seating(
    config: PlacementConfig, rollout: RolloutConfig, learner: LearnerConfig, *, num_cores: int
) -> Seating:
    """Give every engine and rank a bundle and threads.

    Colocated, engine i and rank i have one bundle; an engine computes with all cores and a rank
    with its share of them, for they take turns. Disaggregated, the cores are divided between
    those workers that compute on CPU: half to the engines and half to the ranks.

    Args:
        config: Who shares what.
        rollout: Number of engines and what each reserves.
        learner: Number of ranks and what each reserves.
        num_cores: Of the machine.

    Raises:
        ConfigError: If disaggregated workers would need more cores than there are.
    """
    engine_threads = rollout.num_threads or num_cores
    rank_threads = learner.num_threads or max(1, num_cores // learner.num_workers)
    if config.mode is PlacementMode.COLOCATED:
        bundles = [
            _bundle([rollout] * (i < rollout.num_workers) + [learner] * (i < learner.num_workers))
            for i in range(max(rollout.num_workers, learner.num_workers))
        ]
        first_rank = 0
    else:
        engine_threads, rank_threads = _divide_cores(rollout, learner, num_cores)
        bundles = [_bundle([rollout])] * rollout.num_workers
        bundles += [_bundle([learner])] * learner.num_workers
        first_rank = rollout.num_workers
    return Seating(
        tuple(bundles),
        tuple(Seat(i, engine_threads) for i in range(rollout.num_workers)),
        tuple(Seat(first_rank + i, rank_threads) for i in range(learner.num_workers)),
    )


def _divide_cores(
    rollout: RolloutConfig, learner: LearnerConfig, num_cores: int
) -> tuple[int, int]:
    """Threads of an engine and of a rank, so that all together have a core each."""
    is_both = rollout.num_gpus == 0 and learner.num_gpus == 0
    share = num_cores // 2 if is_both else num_cores
    engine = rollout.num_threads or max(1, share // rollout.num_workers)
    rank = learner.num_threads or max(1, share // learner.num_workers)
    needed = sum(
        threads * pool.num_workers
        for threads, pool in ((engine, rollout), (rank, learner))
        if pool.num_gpus == 0
    )
    if needed > num_cores:
        raise ConfigError(
            f"placement.mode=disaggregated must have a core for every thread, got {num_cores} "
            f"cores for rollout {rollout.num_workers} x {engine} + learner "
            f"{learner.num_workers} x {rank} threads; fewer workers or num_threads, or colocated"
        )
    return engine, rank


def _bundle(members: list[RolloutConfig | LearnerConfig]) -> dict[str, float]:
    bundle = {"CPU": max(MIN_CPUS, sum(member.num_cpus for member in members))}
    num_gpus = sum(member.num_gpus for member in members)
    if num_gpus:
        # two that share a GPU reserve it whole: a third would find no memory on it
        is_shared = sum(member.num_gpus > 0 for member in members) > 1
        bundle["GPU"] = 1.0 if is_shared else num_gpus
    return bundle


@contextmanager
def reserve(seating: Seating, *, is_one_node: bool, deadline_s: float) -> Iterator[PlacementGroup]:
    """Hold the resources of a seating for the length of the block.

    Args:
        seating: Who needs what.
        is_one_node: All have to be on one node, for example to share memory.
        deadline_s: Longest wait for room, seconds.

    Raises:
        ConfigError: If the cluster has too little even when it is idle.
        DeadlineError: If others hold them for too long.
    """
    cluster: dict[str, float] = ray.cluster_resources()
    for name in ("CPU", "GPU"):
        needed = sum(bundle.get(name, 0.0) for bundle in seating.bundles)
        if needed > cluster.get(name, 0.0):
            raise ConfigError(
                f"rollout and learner must reserve no more than the cluster has, got {needed:g} "
                f"{name} of {cluster.get(name, 0.0):g}"
            )
    group = placement_group(
        list(seating.bundles), strategy="STRICT_PACK" if is_one_node else "PACK"
    )
    try:
        if not group.wait(deadline_s):
            raise DeadlineError(
                f"the cluster must have room for {len(seating.bundles)} bundles"
                f"{' on one node' * is_one_node} within {deadline_s:g} s, got none for "
                f"{list(seating.bundles)}: others hold it, or no node is large enough"
            )
        yield group
    finally:
        remove_placement_group(group)
