"""Several weighted rewards as one score per completion."""

from collections.abc import Mapping, Sequence

from pydantic import Field, JsonValue

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import ConfigError
from c2s_rl.types import Group, ScoredGroup
from rewards import load_reward, reward_class
from rewards.base import CheckedResult, Reward, RewardBatch, RewardScope
from rewards.calling import split_by_scope
from rewards.checking import join_results, raise_failures, score_checked, split_result
from rewards.pool_config import RewardPoolConfig


class RewardSpec(FrozenConfig):
    """One reward of a run."""

    name: str = Field(description="Registry name, or package.module:Class")
    weight: float = Field(1.0, description="Factor in the sum; 0 only logs the reward")
    label: str | None = Field(
        None, description="Name in logs; needed where one reward is used twice"
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="Options of this reward"
    )
    workers: RewardPoolConfig | None = Field(
        None, description="Workers of this reward; null: as the section reward_workers says"
    )

    @property
    def key(self) -> str:
        """The name that logs and tables use."""
        return self.label or self.name


def is_per_condition(specs: Sequence[RewardSpec]) -> bool:
    """Whether one of the rewards compares all groups of a step that share a condition.

    Raises:
        ConfigError: If a reward is unknown.
    """
    return any(reward_class(spec.name).scope is RewardScope.CONDITION for spec in specs)


def build_reward(spec: RewardSpec) -> Reward:
    """Build one reward of a run.

    Raises:
        ConfigError: If the name or an option is wrong.
    """
    return load_reward(spec.name, spec.options)


class Combiner:
    """Weighted sum of rewards; pure.

    total_i = sum_k w_k r_ki over the rewards k that did not abstain on i; None where all abstained
    and where one failed.
    """

    def __init__(self, specs: Sequence[RewardSpec]) -> None:
        """Take the weights.

        Raises:
            ConfigError: If two rewards share a label.
        """
        self._weights = {spec.key: spec.weight for spec in specs}
        if len(self._weights) != len(specs):
            keys = ", ".join(repr(spec.key) for spec in specs)
            raise ConfigError(f"each reward of a run must have its own label, got {keys}")

    def combine(
        self, groups: Sequence[Group], results: Mapping[str, CheckedResult]
    ) -> list[ScoredGroup]:
        """Give every completion its total; [B] results by reward, the groups in order."""
        sizes = [len(group.completions_G) for group in groups]
        parts = {name: split_result(result, sizes) for name, result in results.items()}
        return [
            self._combine(group, {name: parts[name][i] for name in self._weights})
            for i, group in enumerate(groups)
        ]

    def _combine(self, group: Group, parts: Mapping[str, CheckedResult]) -> ScoredGroup:
        num = range(len(group.completions_G))
        failed = {i for part in parts.values() for i in part.failures}
        return ScoredGroup(
            group,
            tuple(
                None if i in failed else self._total({n: p.scores[i] for n, p in parts.items()})
                for i in num
            ),
            {name: part.scores for name, part in parts.items()},
            {f"{n}/{key}": v for n, part in parts.items() for key, v in part.diagnostics.items()},
            {
                name: tuple(str(part.failures[i]) if i in part.failures else None for i in num)
                for name, part in parts.items()
                if part.failures
            },
        )

    def _total(self, scores: Mapping[str, float | None]) -> float | None:
        given = [self._weights[name] * s for name, s in scores.items() if s is not None]
        return sum(given) if given else None


class CompositeReward:
    """The rewards of a run in this process, without retries: a plug-in's failure is an error."""

    def __init__(self, specs: Sequence[RewardSpec], vocabulary: Vocabulary) -> None:
        """Load every plug-in.

        Raises:
            ConfigError: If a name or an option is wrong, or two rewards share a label.
        """
        self._combiner = Combiner(specs)
        self._rewards = {spec.key: build_reward(spec) for spec in specs}
        self._vocabulary = vocabulary

    def score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Score whole groups, in order.

        Raises:
            RewardError: If a plug-in fails; no score is made up in its place.
        """
        results = {
            name: self._score_one(name, reward, groups) for name, reward in self._rewards.items()
        }
        return self._combiner.combine(groups, results)

    def _score_one(self, name: str, reward: Reward, groups: Sequence[Group]) -> CheckedResult:
        """Call a reward once, or once a condition where it must see all of one condition."""
        parts: dict[int, CheckedResult] = {}
        for indices in split_by_scope(reward.scope, groups):
            batch = RewardBatch(tuple(groups[i] for i in indices), self._vocabulary)
            result = raise_failures(score_checked(reward, batch, name))
            sizes = [len(groups[i].completions_G) for i in indices]
            parts |= dict(zip(indices, split_result(result, sizes), strict=True))
        return join_results([parts[i] for i in range(len(groups))])
