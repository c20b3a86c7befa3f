"""Metrics of populations as rows of the table: averaged over conditions, with intervals.

Intervals are value +- 1.96 bootstrap standard errors: drawn are the prompts of a policy with all
their answers, and the real cells by themselves; or donors with both. The discrimination score is
one number a condition, so conditions are drawn.

Shape suffix: S draws.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from c2s_rl.evaluation.bootstrap import (
    NOTHING,
    Interval,
    standard_error_ends,
    stratified_interval,
)
from c2s_rl.evaluation.distribution import DistributionMetric
from c2s_rl.evaluation.metrics import MetricInfo
from c2s_rl.evaluation.population_cells import NO_POPULATION
from c2s_rl.evaluation.population_metrics import (
    ACTIVITY_ERROR,
    CHANGED_GENES,
    DISCRIMINATION,
    Estimate,
    Estimates,
)
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.evaluation.result import Difference, MethodResult
from c2s_rl.evaluation.summary import gains

# A mean of fewer conditions than this is drawn from too few to have an interval.
MIN_CONDITIONS = 5
NEVER_NEGATIVE = (
    DistributionMetric.WASSERSTEIN.value,
    DistributionMetric.SCFID.value,
    ACTIVITY_ERROR,
    CHANGED_GENES,
)


@dataclass(frozen=True)
class PopulationTable:
    """Estimates and how they are averaged."""

    estimates: Estimates
    """Method, key, condition."""
    info: Mapping[str, MetricInfo]
    """Rows of the table."""
    num_prompts: Mapping[str, int]
    """Condition to its prompts."""
    tier_of: Mapping[str, str]
    """Condition to its held-out tier."""
    bootstrap_draws: int
    """Draws of conditions behind the discrimination score's interval."""
    seed: int
    """Seeds them."""


def add_to_method(result: MethodResult, table: PopulationTable) -> MethodResult:
    """Add the metrics of populations to a method's own."""
    by_key = table.estimates.get(result.name, {})

    def at(conditions: Iterable[str]) -> dict[str, Interval]:
        wanted = list(conditions)
        return {
            key: _interval(key, _of(by_key.get(key, {}), wanted), table, is_difference=False)
            for key in table.info
            if key in by_key
        }

    reason = "" if result.absent_reason else NO_POPULATION.get(result.name, "")
    return result.model_copy(
        update={
            "metrics": result.metrics | at(table.tier_of),
            "per_tier": {
                tier: found | at(_in_tier(tier, table)) for tier, found in result.per_tier.items()
            },
            "per_condition": {c: found | at([c]) for c, found in result.per_condition.items()},
            "not_applicable": {key: reason for key in table.info if reason and not by_key.get(key)},
        }
    )


def add_to_difference(difference: Difference, table: PopulationTable) -> Difference:
    """Add the differences of metrics of populations, drawn in pairs."""
    first = table.estimates.get(difference.candidate, {})
    second = table.estimates.get(difference.baseline, {})

    def at(conditions: Iterable[str]) -> dict[str, Interval]:
        wanted = list(conditions)
        return {
            key: _interval(
                key,
                _minus(_of(first.get(key, {}), wanted), _of(second.get(key, {}), wanted)),
                table,
                is_difference=True,
            )
            for key in table.info
        }

    overall = at(table.tier_of)
    start = {key: _mean(_of(second.get(key, {}), first.get(key, {}))) for key in table.info}
    return difference.model_copy(
        update={
            "metrics": difference.metrics | overall,
            "gains": difference.gains | gains(overall, start),
            "per_tier": {
                tier: found | at(_in_tier(tier, table))
                for tier, found in difference.per_tier.items()
            },
            "per_condition": {c: found | at([c]) for c, found in difference.per_condition.items()},
        }
    )


def _in_tier(tier: str, table: PopulationTable) -> list[str]:
    return [condition for condition, own in table.tier_of.items() if own == tier]


def _of(by_condition: Mapping[str, Estimate], wanted: Iterable[str]) -> dict[str, Estimate]:
    """Estimates that have a value, of the conditions wanted."""
    return {
        condition: by_condition[condition]
        for condition in sorted(wanted)
        if condition in by_condition and not np.isnan(by_condition[condition].value)
    }


def _minus(first: Mapping[str, Estimate], second: Mapping[str, Estimate]) -> dict[str, Estimate]:
    return {
        condition: Estimate(
            estimate.value - second[condition].value,
            estimate.draws_S - second[condition].draws_S,
        )
        for condition, estimate in first.items()
        if condition in second
    }


def _mean(estimates: Mapping[str, Estimate]) -> float | None:
    return float(np.mean([e.value for e in estimates.values()])) if estimates else None


def _interval(
    key: str, estimates: Mapping[str, Estimate], table: PopulationTable, *, is_difference: bool
) -> Interval:
    mean = _mean(estimates)
    if mean is None:
        return NOTHING
    found = (sum(table.num_prompts[condition] for condition in estimates), len(estimates))
    if key == DISCRIMINATION:
        if len(estimates) < MIN_CONDITIONS:
            return Interval(mean, None, None, *found)
        values = [estimate.value for estimate in estimates.values()]
        drawn = stratified_interval(
            values, ["all"] * len(values), num_draws=table.bootstrap_draws, seed=table.seed
        )
        return Interval(mean, drawn.low, drawn.high, *found)
    is_positive = key.partition("/")[0] in NEVER_NEGATIVE and not is_difference
    low, high = standard_error_ends(
        mean, _mean_of_draws(estimates), lowest=0.0 if is_positive else None
    )
    return Interval(mean, low, high, *found)


def _mean_of_draws(estimates: Mapping[str, Estimate]) -> DoubleArray:
    """[S] mean over conditions; one that has no value in a draw is missing from that draw."""
    draws = np.stack([estimate.draws_S for estimate in estimates.values()])
    has_value = ~np.isnan(draws)
    num_S = has_value.sum(axis=0)
    means_S = np.full(draws.shape[1], np.nan)
    np.divide(np.where(has_value, draws, 0.0).sum(axis=0), num_S, out=means_S, where=num_S > 0)
    return means_S
