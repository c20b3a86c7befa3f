"""From answers to numbers with intervals: one result a method, and the paired comparison.

Pure: the same answers, seed and draws give the same result. Words are in `verdict.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.bootstrap import Interval, paired_interval, stratified_interval
from c2s_rl.evaluation.cell_metrics import MethodScores, Metric, Yardstick, score_method
from c2s_rl.evaluation.methods import Method
from c2s_rl.evaluation.rank import IndexArray
from c2s_rl.evaluation.result import Difference, MethodResult
from c2s_rl.types import PromptRecord


@dataclass(frozen=True)
class Resampling:
    """How intervals are drawn."""

    num_draws: int
    """Bootstrap draws behind every interval."""
    seed: int
    """Seeds them; all methods and metrics share the draws."""


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
    """Mean and interval of every metric, over all conditions and within each."""
    method, scores = scored.method, scored.scores
    conditions_P = _conditions(records_P)

    def alone(metric: Metric, rows: IndexArray) -> Interval:
        return stratified_interval(
            scores.values[metric][rows],
            conditions_P[rows].tolist(),
            num_draws=resampling.num_draws,
            seed=resampling.seed,
        )

    overall, per_condition = _intervals(conditions_P, alone)
    return MethodResult(
        name=method.name,
        kind=method.kind,
        definition=method.definition,
        absent_reason=method.absent_reason,
        metrics=overall,
        per_condition=per_condition,
        num_answers=scores.num_answers,
        num_flat={metric: num for metric, num in scores.num_flat.items() if num},
    )


def compare(
    candidate: ScoredMethod,
    baseline: ScoredMethod,
    records_P: Sequence[PromptRecord],
    resampling: Resampling,
) -> Difference:
    """Paired difference candidate - baseline of every metric, overall and within conditions."""
    conditions_P = _conditions(records_P)

    def paired(metric: Metric, rows: IndexArray) -> Interval:
        return paired_interval(
            candidate.scores.values[metric][rows],
            baseline.scores.values[metric][rows],
            conditions_P[rows].tolist(),
            num_draws=resampling.num_draws,
            seed=resampling.seed,
        )

    overall, per_condition = _intervals(conditions_P, paired)
    return Difference(
        candidate=candidate.method.name,
        baseline=baseline.method.name,
        metrics=overall,
        per_condition=per_condition,
    )


def _conditions(records_P: Sequence[PromptRecord]) -> npt.NDArray[np.str_]:
    return np.array([record.condition for record in records_P], dtype=np.str_)


def _intervals(
    conditions_P: npt.NDArray[np.str_], interval: Callable[[Metric, IndexArray], Interval]
) -> tuple[dict[Metric, Interval], dict[str, dict[Metric, Interval]]]:
    """Run `interval` on the rows of all prompts, and on those of each condition."""
    every_row = np.arange(len(conditions_P))
    overall = {metric: interval(metric, every_row) for metric in Metric}
    per_condition = {
        str(condition): {
            metric: interval(metric, np.flatnonzero(conditions_P == condition)) for metric in Metric
        }
        for condition in np.unique(conditions_P)
    }
    return overall, per_condition
