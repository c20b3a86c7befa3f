"""95 % intervals by bootstrap: over prompts within conditions, or over donors across them.

The unit that is drawn again is the prompt: completions of one prompt share its target and are not
independent, so their mean is one value. Conditions are strata: each keeps its number of prompts in
every draw, and all weigh the same in the mean. Where cells come from several donors, prompts of one
donor are not independent either; then donors are drawn, each with all its prompts.

What it leaves out: the spread between training seeds; an interval here is about these policies, not
about the method.

Shape suffixes: P prompts, D draws, U units (donors), S strata (conditions).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.rank import DoubleArray

COVERAGE = 0.95
NORMAL_QUANTILE = 1.959964  # of 97.5 %: half the width of a 95 % interval in standard errors


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval."""

    mean: float | None
    """Mean over conditions of the mean over prompts; None when no prompt has a value."""
    low: float | None
    """Lower end (2.5 %); None when no condition has two prompts to draw from."""
    high: float | None
    """Upper end (97.5 %); None when `low` is."""
    num_prompts: int
    """Prompts with a value."""
    num_conditions: int
    """Conditions with at least one such prompt."""
    num_units: int | None = None
    """Donors behind the draws; None where prompts are drawn."""


NOTHING = Interval(None, None, None, 0, 0)


def stratified_interval(
    values_P: npt.ArrayLike, conditions_P: Sequence[str], *, num_draws: int, seed: int
) -> Interval:
    """Mean over conditions of the mean over prompts, with its percentile bootstrap interval.

    A condition with a single prompt cannot vary between draws; its spread is missing from the
    interval. When all are like that there is no interval at all, rather than one of width 0.

    Args:
        values_P: [P] one value a prompt; nan = no value, left out (`num_prompts` tells).
        conditions_P: [P] stratum of each prompt.
        num_draws: Bootstrap draws.
        seed: Seeds the draws; equal strata and seeds draw the same prompts.

    Returns:
        The interval, in the unit of the values.

    Raises:
        ValueError: If the two sides differ in length.

    Source: Efron and Tibshirani 1993, percentile interval; strata as in Davison and Hinkley 1997,
        section 3.2.
    """
    values = np.asarray(values_P, dtype=np.float64)
    strata = list(_strata(values, conditions_P))
    num_prompts = sum(len(stratum) for stratum in strata)
    if not strata:
        return NOTHING
    mean = float(np.mean([stratum.mean() for stratum in strata]))
    if all(len(stratum) == 1 for stratum in strata):
        return Interval(mean, None, None, num_prompts, len(strata))
    low, high = _percentiles(_draw_means(strata, num_draws, seed))
    return Interval(mean, low, high, num_prompts, len(strata))


def clustered_interval(
    values_P: npt.ArrayLike,
    conditions_P: Sequence[str],
    units_P: Sequence[str],
    *,
    num_draws: int,
    seed: int,
) -> Interval:
    """The same mean, with an interval that draws donors instead of prompts.

    A donor is drawn with all its prompts, in whichever condition they are, as often as it comes
    up; a condition of which no donor comes up is missing from that draw's mean. With few donors
    the interval is too narrow, as every bootstrap over few units.

    Args:
        values_P: [P] one value a prompt; nan = no value, left out.
        conditions_P: [P] condition of each prompt.
        units_P: [P] donor of each prompt.
        num_draws: Bootstrap draws.
        seed: Seeds the draws; the same donors are drawn for equal sets of donors.

    Returns:
        The interval, in the unit of the values; without ends when there is only one donor.

    Raises:
        ValueError: If the sides differ in length.

    Source: Davison and Hinkley 1997, section 3.8 (resampling of whole groups).
    """
    values = np.asarray(values_P, dtype=np.float64)
    if not len(values) == len(conditions_P) == len(units_P):
        raise ValueError(
            f"each value needs its condition and unit, got {len(values)} values, "
            f"{len(conditions_P)} conditions and {len(units_P)} units"
        )
    has_value = ~np.isnan(values)
    if not has_value.any():
        return NOTHING
    conditions, stratum_P = np.unique(np.asarray(conditions_P)[has_value], return_inverse=True)
    units, unit_P = np.unique(np.asarray(units_P)[has_value], return_inverse=True)
    sums_U_S = np.zeros((len(units), len(conditions)))
    counts_U_S = np.zeros_like(sums_U_S)
    np.add.at(sums_U_S, (unit_P, stratum_P), values[has_value])
    np.add.at(counts_U_S, (unit_P, stratum_P), 1.0)
    mean = float((sums_U_S.sum(axis=0) / counts_U_S.sum(axis=0)).mean())
    found = (int(has_value.sum()), len(conditions), len(units))
    if len(units) == 1:
        return Interval(mean, None, None, *found)
    drawn_D_U = np.random.default_rng(seed).integers(len(units), size=(num_draws, len(units)))
    times_D_U = np.stack([(drawn_D_U == unit).sum(axis=1) for unit in range(len(units))], axis=1)
    counts_D_S = times_D_U @ counts_U_S
    means_D_S = np.full(counts_D_S.shape, np.nan)
    np.divide(times_D_U @ sums_U_S, counts_D_S, out=means_D_S, where=counts_D_S > 0)
    # Every draw holds at least one donor, and every donor is in at least one condition.
    low, high = _percentiles(np.nanmean(means_D_S, axis=1))
    return Interval(mean, low, high, *found)


def mean_over_conditions(values_P: npt.ArrayLike, conditions_P: Sequence[str]) -> float | None:
    """Mean over conditions of the mean over prompts, nan left out; None without any value."""
    strata = list(_strata(np.asarray(values_P, dtype=np.float64), conditions_P))
    return float(np.mean([stratum.mean() for stratum in strata])) if strata else None


def paired_interval(
    candidate_P: DoubleArray,
    baseline_P: DoubleArray,
    conditions_P: Sequence[str],
    *,
    num_draws: int,
    seed: int,
) -> Interval:
    """Interval of the mean difference candidate - baseline on the same prompts.

    Both answer the same prompts, so the spread between prompts cancels: this is the interval that
    says whether one is better, even where the two single intervals overlap.

    Args:
        candidate_P: [P] values of the one.
        baseline_P: [P] values of the other, same prompts in the same order.
        conditions_P: [P] stratum of each prompt.
        num_draws: Bootstrap draws.
        seed: Seeds the draws.

    Returns:
        The interval of the difference; prompts where either side is nan are left out.
    """
    difference_P = np.asarray(candidate_P, float) - np.asarray(baseline_P, float)
    return stratified_interval(difference_P, conditions_P, num_draws=num_draws, seed=seed)


def standard_error_ends(
    value: float, draws_D: DoubleArray, *, lowest: float | None = None
) -> tuple[float | None, float | None]:
    """Ends of value +- 1.96 standard errors, the error being the spread of bootstrap draws.

    For distances between populations: cells drawn twice lie on each other, which shifts every draw
    to one side of the value, so that percentiles of draws may leave the value out. Their spread is
    not shifted.

    Args:
        value: The distance of the cells as they are.
        draws_D: [D] distances of cells drawn again; nan draws are left out.
        lowest: Least value that the distance can have.

    Returns:
        Low and high; None twice with fewer than 2 draws.

    Source: Efron and Tibshirani 1993, section 13.3, standard interval.
    """
    usable = draws_D[~np.isnan(draws_D)]
    if len(usable) < 2:
        return None, None
    half = NORMAL_QUANTILE * float(usable.std(ddof=1))
    low = value - half
    return (low if lowest is None else max(low, lowest)), value + half


def _percentiles(means_D: DoubleArray) -> tuple[float, float]:
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(means_D, [tail, 100 - tail])
    return float(low), float(high)


def _strata(values_P: DoubleArray, conditions_P: Sequence[str]) -> Iterator[DoubleArray]:
    """Values of each condition, conditions in alphabetical order, those without values skipped."""
    if len(values_P) != len(conditions_P):
        raise ValueError(
            f"each value needs its condition, got {len(values_P)} values and "
            f"{len(conditions_P)} conditions"
        )
    labels_P = np.asarray(conditions_P, dtype=str)
    for condition in sorted(set(conditions_P)):
        stratum = values_P[(labels_P == condition) & ~np.isnan(values_P)]
        if len(stratum):
            yield stratum


def _draw_means(strata: Sequence[DoubleArray], num_draws: int, seed: int) -> DoubleArray:
    rng = np.random.default_rng(seed)
    means_D = np.zeros(num_draws)
    for stratum in strata:
        drawn_D_P = rng.integers(len(stratum), size=(num_draws, len(stratum)))
        means_D += stratum[drawn_D_P].mean(axis=1)
    return means_D / len(strata)
