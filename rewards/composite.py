"""Several weighted rewards as one score per completion."""

from collections.abc import Sequence

from pydantic import Field, JsonValue

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import ConfigError
from c2s_rl.types import Group, ScoredGroup
from rewards import load_reward, reward_class
from rewards.base import Reward, RewardBatch, RewardResult, RewardScope, score_checked


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


class CompositeReward:
    """Weighted sum of rewards.

    total_i = sum_k w_k r_ki over the rewards k that did not abstain on i; None where all abstained.
    """

    def __init__(self, specs: Sequence[RewardSpec], vocabulary: Vocabulary) -> None:
        """Load every plug-in.

        Raises:
            ConfigError: If a name or an option is wrong, or two rewards share a label.
        """
        self._weights = {spec.key: spec.weight for spec in specs}
        if len(self._weights) != len(specs):
            keys = ", ".join(repr(spec.key) for spec in specs)
            raise ConfigError(f"each reward of a run must have its own label, got {keys}")
        self._rewards = {spec.key: load_reward(spec.name, spec.options) for spec in specs}
        self._vocabulary = vocabulary

    def score(self, groups: Sequence[Group]) -> list[ScoredGroup]:
        """Score whole groups, in order.

        Raises:
            RewardError: If a plug-in fails; no score is made up in its place.
        """
        components: dict[str, tuple[float | None, ...]] = {}
        diagnostics: dict[str, tuple[float, ...]] = {}
        for name, reward in self._rewards.items():
            result = self._score_one(name, reward, groups)
            components[name] = result.scores
            diagnostics |= {f"{name}/{key}": v for key, v in result.diagnostics.items()}
        totals = [self._total(scores) for scores in zip(*components.values(), strict=True)]
        scored: list[ScoredGroup] = []
        start = 0
        for group in groups:
            part = slice(start, start + len(group.completions_G))
            start = part.stop
            scored.append(
                ScoredGroup(
                    group,
                    tuple(totals[part]),
                    {name: values[part] for name, values in components.items()},
                    {name: values[part] for name, values in diagnostics.items()},
                )
            )
        return scored

    def _score_one(self, name: str, reward: Reward, groups: Sequence[Group]) -> RewardResult:
        """Call a reward once, or once a condition where it must see all of one condition."""
        if reward.scope is RewardScope.GROUP:
            return score_checked(reward, RewardBatch(tuple(groups), self._vocabulary), name)
        scores: dict[int, tuple[float | None, ...]] = {}
        diagnostics: dict[str, dict[int, tuple[float, ...]]] = {}
        for condition in dict.fromkeys(group.record.condition for group in groups):
            indices = [i for i, g in enumerate(groups) if g.record.condition == condition]
            batch = RewardBatch(tuple(groups[i] for i in indices), self._vocabulary)
            result = score_checked(reward, batch, name)
            start = 0
            for index in indices:
                part = slice(start, start + len(groups[index].completions_G))
                start = part.stop
                scores[index] = result.scores[part]
                for key, values in result.diagnostics.items():
                    diagnostics.setdefault(key, {})[index] = values[part]
        return RewardResult(
            tuple(s for i in range(len(groups)) for s in scores[i]),
            {
                key: tuple(v for i in range(len(groups)) for v in by_group[i])
                for key, by_group in diagnostics.items()
            },
        )

    def _total(self, scores: Sequence[float | None]) -> float | None:
        given = [
            weight * score
            for weight, score in zip(self._weights.values(), scores, strict=True)
            if score is not None
        ]
        return sum(given) if given else None
