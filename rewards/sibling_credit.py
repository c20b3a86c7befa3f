"""What each completion does to a metric of all completions of its condition: the common loop.

The metrics are those of `population.py` and `differential_expression.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from c2s_rl.evaluation.leave_one_out import LeaveOneOut
from c2s_rl.evaluation.populations import populations
from c2s_rl.types import ParsedCell, PromptRecord
from rewards.base import RewardBatch, RewardResult


@dataclass(frozen=True, eq=False)
class Measured:
    """A population that could be compared with real cells."""

    metric: LeaveOneOut
    """Of all completions, and without each."""
    num_real: int
    """Real cells behind it."""


def sibling_credit(
    batch: RewardBatch,
    measure: Callable[[PromptRecord, Sequence[ParsedCell]], Measured | None],
    *,
    num_together: int,
    name: str,
    is_distance: bool,
) -> RewardResult:
    """Credit every completion with what the metric of its population loses without it.

    Args:
        batch: Completions of any conditions.
        measure: Gets a record of the condition and the generated cells, two or more; None makes
            all of them abstain.
        num_together: Most completions of one population.
        name: The metric's, in the diagnostics.
        is_distance: Whether smaller is better.

    Returns:
        Scores, with the metric and the numbers of generated and of real cells as diagnostics; nan
        where abstained.
    """
    samples = list(batch.samples())
    scores: list[float | None] = [None] * len(samples)
    figures = [(math.nan, math.nan, math.nan)] * len(samples)
    for part in populations([sample.record for sample in samples], num_together):
        if len(part) < 2:
            continue
        measured = measure(samples[part[0]].record, [samples[index].cell for index in part])
        if measured is None:
            continue
        figure = (measured.metric.of_all, float(len(part)), float(measured.num_real))
        credits_G = measured.metric.credit_G(is_distance=is_distance).tolist()
        for index, credit in zip(part, credits_G, strict=True):
            scores[index] = credit
            figures[index] = figure
    names = (name, "generated_cells", "real_cells")
    diagnostics = {name: tuple(f[i] for f in figures) for i, name in enumerate(names)}
    return RewardResult(tuple(scores), diagnostics)
