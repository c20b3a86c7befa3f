"""From answers to numbers with intervals: one result a method, and the paired comparison.

Pure: the same answers, seed and draws give the same result. Metrics of single answers only: those
of populations join in `population.py`. Words are in `verdict.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.evaluation.bootstrap import (
    Interval,
    clustered_interval,
    mean_over_conditions,
    stratified_interval,
)
from c2s_rl.evaluation.cell_metrics import MethodScores, Metric, Yardstick, score_method
from c2s_rl.evaluation.methods import Method
from c2s_rl.evaluation.rank import DoubleArray, IndexArray
from c2s_rl.evaluation.result import Difference, MethodResult
from c2s_rl.types import PromptRecord

Intervals = dict[str, Interval]


@dataclass(frozen=True)
class Resampling:
    """How intervals are drawn."""

    num_draws: int
    """Bootstrap draws behind every interval."""
    seed: int
    """Seeds them; all methods and metrics share the draws."""
    units_P: tuple[str, ...] | None = None
    """[P] donor of each prompt, drawn with all its prompts; None draws prompts."""

    def interval(
        self, values_P: DoubleArray, conditions_P: Sequence[str], rows: IndexArray
    ) -> Interval:
        """Interval of the mean over some of the prompts.

        Args:
            values_P: [P] one value for each prompt of the evaluation.
            conditions_P: [P] their conditions.
            rows: Which of them.
        """
        values = values_P[rows]
        conditions = [conditions_P[row] for row in rows]
        if self.units_P is None:
            return stratified_interval(values, conditions, num_draws=self.num_draws, seed=self.seed)
        units = [self.units_P[row] for row in rows]
        return clustered_interval(
            values, conditions, units, num_draws=self.num_draws, seed=self.seed
        )


@dataclass(frozen=True, eq=False)
class ScoredMethod:
    """A method with its scores a prompt, kept for paired comparisons."""

    method: Method
    scores: MethodScores


def score_methods(
    methods: Sequence[Method], records_P: Sequence[PromptRecord], yardstick: Yardstick
) -> dict[str, ScoredMethod]:
    """Score every method on the same prompts; returns them by name, in the order given."""
    return {
        method.name: ScoredMethod(method, score_method(method.answers_P, records_P, yardstick))
        for method in methods
    }


def summarise(
    scored: ScoredMethod, records_P: Sequence[PromptRecord], resampling: Resampling
) -> MethodResult:
    """Mean and interval of every metric, over all conditions, within each tier and condition."""
    method, scores = scored.method, scored.scores
    found = _intervals(records_P, resampling, lambda metric: scores.values[metric])
    return MethodResult(
        name=method.name,
        kind=method.kind,
        definition=method.definition,
        absent_reason=method.absent_reason,
        metrics=found.overall,
        per_tier=found.per_tier,
        per_condition=found.per_condition,
        num_answers=scores.num_answers,
        num_flat={metric: num for metric, num in scores.num_flat.items() if num},
    )


def compare(
    candidate: ScoredMethod,
    baseline: ScoredMethod,
    records_P: Sequence[PromptRecord],
    resampling: Resampling,
) -> Difference:
    """Paired difference candidate - baseline of every metric: overall, by tier and condition."""
    first, second = candidate.scores.values, baseline.scores.values
    found = _intervals(records_P, resampling, lambda metric: first[metric] - second[metric])
    conditions_P = [record.condition for record in records_P]
    # Of the prompts that both have a value of, like the difference.
    start: dict[str, float | None] = {
        metric: mean_over_conditions(second[metric] + 0 * first[metric], conditions_P)
        for metric in Metric
    }
    return Difference(
        candidate=candidate.method.name,
        baseline=baseline.method.name,
        metrics=found.overall,
        gains=gains(found.overall, start),
        per_tier=found.per_tier,
        per_condition=found.per_condition,
    )


def gains(
    difference: Mapping[str, Interval], baseline: Mapping[str, float | None]
) -> dict[str, float]:
    """Differences as shares of the baseline's means, where those are above 0.

    A share of 0 or of a negative correlation says nothing, so there is none.
    """
    found: dict[str, float] = {}
    for metric, change in difference.items():
        start = baseline[metric]
        if change.mean is not None and start is not None and start > 0:
            found[metric] = change.mean / start
    return found


@dataclass(frozen=True)
class _Found:
    """Intervals of every metric."""

    overall: Intervals
    per_tier: dict[str, Intervals]
    per_condition: dict[str, Intervals]


def _intervals(
    records_P: Sequence[PromptRecord],
    resampling: Resampling,
    values_of: Callable[[Metric], DoubleArray],
) -> _Found:
    """Intervals of all prompts, and of those of each tier and of each condition."""
    conditions_P = [record.condition for record in records_P]

    def at(rows: IndexArray) -> Intervals:
        return {
            metric: resampling.interval(values_of(metric), conditions_P, rows) for metric in Metric
        }

    def by(labels_P: Sequence[str]) -> dict[str, Intervals]:
        labels = np.array(labels_P, dtype=np.str_)
        return {str(name): at(np.flatnonzero(labels == name)) for name in np.unique(labels)}

    tiers_P = [record.tier for record in records_P]
    return _Found(
        overall=at(np.arange(len(records_P))),
        per_tier=by(tiers_P) if len(set(tiers_P)) > 1 else {},
        per_condition=by(conditions_P),
    )
