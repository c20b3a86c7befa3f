"""95 % intervals by a stratified bootstrap over prompts.

The unit that is drawn again is the prompt: completions of one prompt share its target and are not
independent, so their mean is one value. Conditions are strata: each keeps its number of prompts in
every draw, and all weigh the same in the mean. What it leaves out: the spread between training
seeds; an interval here is about these policies, not about the method.

Shape suffixes: P prompts, D draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.rank import DoubleArray

COVERAGE = 0.95


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
        return Interval(None, None, None, 0, 0)
    mean = float(np.mean([stratum.mean() for stratum in strata]))
    if all(len(stratum) == 1 for stratum in strata):
        return Interval(mean, None, None, num_prompts, len(strata))
    means_D = _draw_means(strata, num_draws, seed)
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(means_D, [tail, 100 - tail])
    return Interval(mean, float(low), float(high), num_prompts, len(strata))


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
