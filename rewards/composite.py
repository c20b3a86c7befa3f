"""Several weighted rewards as one score per completion.

`Combiner` is arithmetic over results that are there; who computed them, where and in how many
tries is not its affair. `CompositeReward` computes them here, in this process: what scoring offline
and measurements need.

Shape suffixes: G completions of one prompt, B = all completions of a batch, group after group.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

from pydantic import Field

from c2s_rl.cells.vocabulary import Vocabulary
from c2s_rl.config import FrozenConfig
from c2s_rl.errors import ConfigError
from c2s_rl.evaluation.material import RewardMaterial
from c2s_rl.grpo.advantage import AdvantageScale, group_advantages
from c2s_rl.types import Group, ScoredGroup
from rewards.base import CheckedResult, FailureKind, RewardBatch, RewardFailure, RewardScope
from rewards.calling import split_by_scope
from rewards.checking import join_results, raise_failures, score_checked, split_result
from rewards.spec import RewardSpec, build_reward, is_per_condition

__all__ = [
    "Aggregation",
    "Combiner",
    "CompositeConfig",
    "CompositeReward",
    "RewardSpec",
    "build_reward",
    "is_per_condition",
]

# Squares and sums of scores stay finite below it, whatever the weights (at most 1e9).
MAX_SCORE = 1e100


class Aggregation(StrEnum):
    """What comes first, the sum over rewards or the comparison within a group."""

    SUM_THEN_NORMALISE = "sum_then_normalise"
    """total = sum_k w_k r_k; its spread decides how much each reward counts."""
    NORMALISE_THEN_SUM = "normalise_then_sum"
    """total = sum_k w_k (r_k - mean_k) / (std_k + eps) over the group; weights alone decide. Totals
    average 0 in every group: whether a run gets better is seen in the single rewards."""


class CompositeConfig(FrozenConfig):
    """How the rewards of a run become one."""

    aggregation: Aggregation = Field(
        Aggregation.SUM_THEN_NORMALISE,
        description="sum_then_normalise, or normalise_then_sum: each reward within its group first",
    )


class Combiner:
    """Weighs what several rewards gave; pure.

    total_i = sum_k w_k(version) clip_k(r_ki) over the rewards k that did not abstain on i, or the
    same with r_ki centred and scaled within its group; see `Aggregation`. None where all abstained
    and where a reward with a weight failed. The version is that of the group's oldest completion.

    Source: normalise_then_sum: GDPO, arXiv:2601.05242; eps as for advantages.
    """

    def __init__(self, specs: Sequence[RewardSpec], config: CompositeConfig | None = None) -> None:
        """Take the weights.

        Raises:
            ConfigError: If two rewards share a label, or none has a weight.
        """
        self._specs = {spec.key: spec for spec in specs}
        if len(self._specs) != len(specs):
            keys = ", ".join(repr(spec.key) for spec in specs)
            raise ConfigError(f"each reward of a run must have its own label, got {keys}")
        if not any(spec.weight or spec.schedule for spec in specs):
            raise ConfigError("a reward of a run must have a weight other than 0, got none")
        config = config or CompositeConfig()
        self._is_normalised = config.aggregation is Aggregation.NORMALISE_THEN_SUM

    def combine(
        self, groups: Sequence[Group], results: Mapping[str, CheckedResult]
    ) -> list[ScoredGroup]:
        """Give every completion its total.

        Args:
            groups: Whole groups.
            results: Reward key to its [B] result over those groups.

        Returns:
            The groups in order. Components are the scores as given; diagnostics tell what was
            clipped and what a changing weight was.

        Raises:
            ValueError: If a reward's result is missing or not one score a completion.
        """
        num = sum(len(group.completions_G) for group in groups)
        given = {name: len(result.scores) for name, result in results.items()}
        if given != dict.fromkeys(self._specs, num):
            raise ValueError(f"each of {list(self._specs)} must have {num} scores, got {given}")
        sizes = [len(group.completions_G) for group in groups]
        parts = {name: split_result(results[name], sizes) for name in self._specs}
        return [
            self._combine(group, {name: parts_P[index] for name, parts_P in parts.items()})
            for index, group in enumerate(groups)
        ]

    def _combine(self, group: Group, parts: Mapping[str, CheckedResult]) -> ScoredGroup:
        version = min((c.policy_version for c in group.completions_G), default=0)
        weights = {name: spec.weight_at(version) for name, spec in self._specs.items()}
        clipped = {name: self._clipped(name, part) for name, part in parts.items()}
        parts = {name: _bounded(part, clipped[name]) for name, part in parts.items()}
        failed = {i for name, part in parts.items() if weights[name] for i in part.failures}
        terms = {
            name: tuple(None if i in failed else score for i, score in enumerate(clipped[name]))
            for name in parts
            if weights[name]
        }
        if self._is_normalised:
            terms = {name: _standardised(scores_G) for name, scores_G in terms.items()}
        return ScoredGroup(
            group,
            tuple(
                _weighted_sum({name: scores_G[i] for name, scores_G in terms.items()}, weights)
                for i in range(len(group.completions_G))
            ),
            {name: part.scores for name, part in parts.items()},
            self._diagnostics(parts, clipped, weights),
            {
                name: tuple(
                    str(part.failures[i]) if i in part.failures else None
                    for i in range(len(part.scores))
                )
                for name, part in parts.items()
                if part.failures
            },
        )

    def _clipped(self, name: str, part: CheckedResult) -> tuple[float | None, ...]:
        clip = self._specs[name].clip
        if clip is None:
            return part.scores
        return tuple(None if score is None else clip.apply(score) for score in part.scores)

    def _diagnostics(
        self,
        parts: Mapping[str, CheckedResult],
        clipped: Mapping[str, tuple[float | None, ...]],
        weights: Mapping[str, float],
    ) -> dict[str, tuple[float, ...]]:
        figures: dict[str, tuple[float, ...]] = {}
        for name, part in parts.items():
            figures |= {f"{name}/{key}": values for key, values in part.diagnostics.items()}
            if self._specs[name].clip:
                pairs = zip(part.scores, clipped[name], strict=True)
                figures[f"{name}/clipped"] = tuple(float(a != b) for a, b in pairs)
            if self._specs[name].schedule:
                figures[f"{name}/weight"] = (weights[name],) * len(part.scores)
        return figures


class CompositeReward:
    """The rewards of a run, in this process."""

    def __init__(
        self,
        specs: Sequence[RewardSpec],
        vocabulary: Vocabulary,
        *,
        config: CompositeConfig | None = None,
        material: RewardMaterial | None = None,
    ) -> None:
        """Load every plug-in.

        Args:
            specs: Which rewards.
            vocabulary: Gene symbols that the completions were parsed with.
            config: How they become one.
            material: Real cells for rewards that ask for them.

        Raises:
            ConfigError: If a name or an option is wrong, or two rewards share a label.
        """
        self._combiner = Combiner(specs, config)
        self._rewards = {spec.key: build_reward(spec) for spec in specs}
        self._vocabulary = vocabulary
        self._material = material or RewardMaterial()

    def score(self, groups: Sequence[Group], *, keeps_failures: bool = False) -> list[ScoredGroup]:
        """Score whole groups, in order.

        Args:
            groups: The groups.
            keeps_failures: Give completions that a plug-in fails on no total, and say why, instead
                of raising.

        Raises:
            RewardError: If a plug-in fails; no score is made up in its place.
        """
        results = {name: self._results(name, groups) for name in self._rewards}
        if not keeps_failures:
            for result in results.values():
                raise_failures(result)
        return self._combiner.combine(groups, results)

    def _results(self, name: str, groups: Sequence[Group]) -> CheckedResult:
        """Call a reward once a group, or once a condition where it must see all of one.

        Once a group, although a call may hold many: how groups come together in training depends
        on who is ready when, and there a reward that notices is called for each group alone.
        """
        reward = self._rewards[name]
        if reward.scope is RewardScope.GROUP:
            calls = [(index,) for index in range(len(groups))]
        else:
            calls = split_by_scope(reward.scope, groups)
        found: dict[int, CheckedResult] = {}
        for indices in calls:
            asked = tuple(groups[i] for i in indices)
            batch = RewardBatch(asked, self._vocabulary, self._material)
            result = score_checked(reward, batch, name)
            sizes = [len(group.completions_G) for group in asked]
            found |= zip(indices, split_result(result, sizes), strict=True)
        return join_results([found[i] for i in range(len(groups))])


def _bounded(part: CheckedResult, clipped_G: Sequence[float | None]) -> CheckedResult:
    """Count scores whose squares are beyond floating point as failures: no total is infinite."""
    wild = {
        i: RewardFailure(
            FailureKind.NOT_FINITE, f"a score must be within +-{MAX_SCORE:g}, got {score}"
        )
        for i, score in enumerate(clipped_G)
        if score is not None and abs(score) > MAX_SCORE
    }
    return CheckedResult(part.scores, part.diagnostics, {**part.failures, **wild})


def _standardised(scores_G: tuple[float | None, ...]) -> tuple[float | None, ...]:
    """Centre and scale within the group; 0 for equal scores and for one score alone."""
    if len(scores_G) < 2:
        return tuple(None if score is None else 0.0 for score in scores_G)
    scaled_G = group_advantages(scores_G, scale=AdvantageScale.GROUP)
    return tuple(None if s is None else v for s, v in zip(scores_G, scaled_G, strict=True))


def _weighted_sum(terms: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    given = [weights[name] * score for name, score in terms.items() if score is not None]
    return sum(given) if given else None
