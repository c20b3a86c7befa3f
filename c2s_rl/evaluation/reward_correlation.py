"""How the rewards of a run go together: their correlations over all its completions.

Two rewards that always agree are one reward with twice the weight; two that oppose each other
cancel in the sum. The total stands beside them: it shows which reward decides. GRPO compares the
answers to one prompt only, so what counts there is also given: the correlation within prompts.

Shape suffixes: B completions of a run, K rewards and the total.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby
from pathlib import Path

import numpy as np

from c2s_rl.data.completions import completion_files, read_scores
from c2s_rl.evaluation.rank import DoubleArray, IndexArray

MIN_PAIRS = 3  # two points always lie on a line

Coefficient = Callable[[DoubleArray, DoubleArray], float]


@dataclass(frozen=True)
class PairCorrelation:
    """Two rewards over the completions that both scored; None where one of them is constant."""

    first: str
    second: str
    num_completions: int
    pearson: float | None
    """Over all completions."""
    spearman: float | None
    """Of the ranks, over all completions."""
    within: float | None
    """Pearson's r of what is left after subtracting each group's mean."""


@dataclass(frozen=True)
class RewardCorrelation:
    """All pairs of a run's rewards and their total."""

    names: tuple[str, ...]
    """[K] in the order of the config; the total is last."""
    pairs: tuple[PairCorrelation, ...]
    """[K (K - 1) / 2] each pair once, first names first."""


def reward_correlation(
    scores: Mapping[str, Sequence[float | None]], group_B: Sequence[int]
) -> RewardCorrelation:
    """Correlate every two rewards over the completions that both of them scored.

    Args:
        scores: Reward name to [B] scores; None where it abstained or failed.
        group_B: [B] number of the group that each completion belongs to.

    Raises:
        ValueError: If a reward has not one value for each completion.
    """
    columns: dict[str, DoubleArray] = {}
    for name, values in scores.items():
        if len(values) != len(group_B):
            raise ValueError(f"{name} must have {len(group_B)} scores, got {len(values)}")
        columns[name] = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    groups_B = np.asarray(group_B, dtype=np.int64)
    pairs = [
        _correlate(pair, columns[pair[0]], columns[pair[1]], groups_B)
        for pair in combinations(columns, 2)
    ]
    return RewardCorrelation(tuple(columns), tuple(pairs))


def run_correlation(folder: Path) -> RewardCorrelation | None:
    """Correlate the rewards of a run over all its files of completions.

    Args:
        folder: `completions/` of an alignment.

    Returns:
        None where the run kept no completions, or has one reward only.

    Raises:
        DataError: If a file cannot be read.
    """
    if not folder.is_dir() or not any(folder.glob("*.parquet")):
        return None
    stored = [read_scores(path) for path in completion_files(folder)]
    names = list(dict.fromkeys(name for one in stored for name in one.scores))
    if len(names) < 3:  # with one reward, the total is that reward
        return None
    scores: dict[str, list[float | None]] = {name: [] for name in names}
    group_B: list[int] = []
    for one in stored:
        num = len(one.prompt_ids)
        for name in names:
            scores[name] += one.scores.get(name, [None] * num)
        for _, members in groupby(one.prompt_ids):
            number = group_B[-1] + 1 if group_B else 0
            group_B += [number] * len(list(members))
    return reward_correlation(scores, group_B)


def _correlate(
    pair: tuple[str, str], x_B: DoubleArray, y_B: DoubleArray, groups_B: IndexArray
) -> PairCorrelation:
    from scipy.stats import pearsonr, spearmanr

    both = np.isfinite(x_B) & np.isfinite(y_B)
    x, y, groups = x_B[both], y_B[both], groups_B[both]

    def pearson(a: DoubleArray, b: DoubleArray) -> float:
        return float(pearsonr(a, b).statistic)

    def spearman(a: DoubleArray, b: DoubleArray) -> float:
        return float(spearmanr(a, b).statistic)

    return PairCorrelation(
        *pair,
        num_completions=int(both.sum()),
        pearson=_coefficient(pearson, x, y),
        spearman=_coefficient(spearman, x, y),
        within=_coefficient(pearson, _centred(x, groups), _centred(y, groups)),
    )


def _coefficient(coefficient: Coefficient, x: DoubleArray, y: DoubleArray) -> float | None:
    # against rounding: centred equal numbers can miss 0 by the last bit
    is_constant = any(len(v) == 0 or np.ptp(v) <= 1e-12 * np.abs(v).max() for v in (x, y))
    return None if len(x) < MIN_PAIRS or is_constant else coefficient(x, y)


def _centred(values: DoubleArray, groups: IndexArray) -> DoubleArray:
    """Subtract each group's mean; what is rounding only becomes 0."""
    if not len(values):
        return values
    numbers, counts = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    means = np.bincount(numbers, weights=values) / counts
    centred: DoubleArray = values - means[numbers]
    centred[np.abs(centred) <= 1e-12 * np.abs(values).max()] = 0.0
    return centred
