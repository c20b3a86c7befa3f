"""All rewards of a run behind the role `RewardWorker`, and starting them.

Every reward has workers of its own, so that what one plug-in does costs no other its scores. A
worker is two processes: about 100 MB of its own for the actor, 75 MB for the smallest plug-in's.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle

from actors.engine_env import common_env
from actors.reward import RewardHost
from actors.reward_messages import PluginSetup
from actors.reward_pool import RewardPool
from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.types import Group, ScoredGroup
from rewards import reward_class
from rewards.base import CheckedResult, RewardScope
from rewards.calling import split_by_scope
from rewards.checking import join_results, split_result
from rewards.composite import Combiner, CompositeConfig, RewardSpec
from rewards.pool_config import RewardPoolConfig

CALLS_AT_ONCE = 2  # of an actor: `close` and `pid` beside a call that is under way


@dataclass(frozen=True, eq=False)
class RewardStart:
    """What the workers of all rewards are started from."""

    specs: tuple[RewardSpec, ...]
    """The rewards."""
    vocabulary: Vocabulary
    """Gene symbols of the prompts."""
    material: RewardMaterial
    """Real cells; absolute paths."""
    default: RewardPoolConfig
    """Workers of rewards that say nothing else."""
    composite: CompositeConfig = field(default_factory=CompositeConfig)
    """How the rewards become one."""

    def config(self, spec: RewardSpec) -> RewardPoolConfig:
        """Workers of one reward."""
        return spec.workers or self.default


class RewardPools:
    """Fills `RewardWorker`."""

    def __init__(self, pools: Sequence[RewardPool], combiner: Combiner) -> None:
        """Take the workers.

        Args:
            pools: One a reward.
            combiner: Makes one total of what they give.
        """
        self._pools = tuple(pools)
        self._combiner = combiner

    @property
    def max_calls(self) -> int:
        """Calls of `score` that are worked on at once: enough to fill every pool's queue."""
        return max(pool.max_waiting for pool in self._pools)

    @property
    def is_per_condition(self) -> bool:
        """All groups of a step that share a condition have to be in one call."""
        return any(pool.is_per_condition for pool in self._pools)

    def ready(self) -> None:
        """Wait until every plug-in is loaded.

        Raises:
            ConfigError: If one cannot be built.
        """
        for pool in self._pools:
            pool.ready()

    def score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Score every group by every reward, in order; a completion's failures stand beside it."""
        asked = {pool.name: _ask(pool, groups) for pool in self._pools}
        # no deadline of its own: the pool's calls have theirs
        results = {name: _gather(parts, groups) for name, parts in asked.items()}
        return self._combiner.combine(groups, results)

    def figures(self) -> dict[str, float]:
        """What the workers did since the last call; see `RewardFigures.lap`."""
        return {key: value for pool in self._pools for key, value in pool.figures.lap().items()}


_Asked = Mapping[tuple[int, ...], "Future[CheckedResult]"]


def _ask(pool: RewardPool, groups: Sequence[Group]) -> _Asked:
    """Queue groups one by one, or by condition where they are compared."""
    if pool.is_per_condition:
        together = split_by_scope(RewardScope.CONDITION, groups)
    else:
        together = [(index,) for index in range(len(groups))]
    return {indices: pool.submit([groups[i] for i in indices]) for indices in together}


def _gather(asked: _Asked, groups: Sequence[Group]) -> CheckedResult:
    parts: dict[int, CheckedResult] = {}
    for indices, future in asked.items():
        sizes = [len(groups[i].completions_G) for i in indices]
        parts |= dict(zip(indices, split_result(future.result(), sizes), strict=True))
    return join_results([parts[i] for i in range(len(groups))])


@contextmanager
def reward_pools(start: RewardStart) -> Iterator[RewardPools]:
    """Start the workers of all rewards, and end them when the block does; `ready` waits for them.

    Raises:
        ConfigError: If a reward is unknown, two share a label, or the cluster lacks a resource.
    """
    combiner = Combiner(start.specs, start.composite)
    _check_resources([start.config(spec) for spec in start.specs])
    with ExitStack() as stack:
        pools: list[RewardPool] = []
        for spec in start.specs:
            scope = reward_class(spec.name).scope
            setup = PluginSetup(spec, scope, start.vocabulary, start.material)
            pools.append(_start_pool(setup, start.config(spec)))
            stack.callback(pools[-1].close)
        yield RewardPools(pools, combiner)


def _start_pool(setup: PluginSetup, config: RewardPoolConfig) -> RewardPool:
    return RewardPool(
        setup.spec.key,
        lambda: start_host(setup, config),
        config,
        is_per_condition=setup.scope is RewardScope.CONDITION,
    )


def start_host(setup: PluginSetup, config: RewardPoolConfig) -> ActorHandle:
    """Start one worker; its plug-in is loaded in a process beside it."""
    env = common_env(config.num_threads)
    if config.num_gpus == 0:
        env["CUDA_VISIBLE_DEVICES"] = ""  # a worker that reserved no GPU must not find one
    remote = ray.remote(RewardHost).options(
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
        resources=dict(config.resources),
        max_concurrency=CALLS_AT_ONCE,
        runtime_env={"env_vars": env},
    )
    return remote.remote(setup, config)


def _check_resources(configs: Sequence[RewardPoolConfig]) -> None:
    """Ask for nothing that no node offers: Ray would wait for it without a word."""
    offered: dict[str, float] = ray.cluster_resources()
    for config in configs:
        for name, amount in config.resources.items():
            if amount > offered.get(name, 0.0):
                raise ConfigError(
                    f"reward workers must reserve what the cluster has, got {amount:g} {name!r} of "
                    f"{offered.get(name, 0.0):g}"
                )
