"""Is the true partner the nearest? FOSCTTM of paired samples, discrimination of perturbations.

Both are ranks, free of the unit of the vectors. Equal distances count half: with vectors that do
not differ at all both say chance, where counting only closer ones would call them perfect.

Shape suffixes: S paired samples, P perturbations, D dimensions.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.cell_metrics import Better
from c2s_rl.evaluation.distances import as_pair
from c2s_rl.evaluation.metric_info import DistributionInfo
from c2s_rl.evaluation.rank import DoubleArray

# 2,048 x 50,000 distances are 0.8 GB.
CHUNK_ROWS = 2_048
# Far above the rounding of 64-bit sums, far below any difference between vectors of float32.
TIE_TOLERANCE = 1e-12


class Closeness(StrEnum):
    """What 'near' means."""

    COSINE = "cosine"
    """1 - cosine; a vector of zeros is at distance 1 of every other."""
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"


class MatchingMetric(StrEnum):
    """Metrics of who is nearest to whom."""

    FOSCTTM = "foscttm"
    DISCRIMINATION = "discrimination"


MATCHING_METRICS: Mapping[MatchingMetric, DistributionInfo] = {
    MatchingMetric.FOSCTTM: DistributionInfo(
        label="FOSCTTM",
        meaning="Share of samples that are closer to a sample than its true partner is: 0 = every "
        "partner is the nearest, 0.5 = random.",
        better=Better.LOWER,
        best=0.0,
        unit="share",
        baseline="0.5, vectors that know nothing of the pairing",
        ceiling="technical replicates of one sample",
        source="C2S-Scale 4.6; Liu et al. 2019, doi:10.4230/LIPIcs.WABI.2019.10",
    ),
    MatchingMetric.DISCRIMINATION: DistributionInfo(
        label="discrimination score",
        meaning="Where the true perturbation stands among all by distance to the predicted effect: "
        "1 = always nearest, 0.5 = random.",
        better=Better.HIGHER,
        best=1.0,
        unit="share",
        baseline="one effect for every perturbation: 0.5 + 1 / (2 P)",
        ceiling="effects measured on one half of the cells against the other half",
        source="Virtual Cell Challenge 2025, perturbation discrimination; cell-eval 0.8.2",
    ),
}


def foscttm(
    first_S_D: npt.ArrayLike,
    second_S_D: npt.ArrayLike,
    *,
    closeness: Closeness = Closeness.COSINE,
) -> float:
    """Fraction of samples closer than the true match, mean over samples and both directions.

    f_i = (closer_i + equal_i / 2) / (S - 1), counted over the other samples of the other side.

    Args:
        first_S_D: [S, D] one view of the samples.
        second_S_D: [S, D] the other view, same samples in the same order.
        closeness: Distance between vectors; the paper's is cosine.

    Returns:
        In [0, 1]; 0 is best, 0.5 random.

    Raises:
        ValueError: If the views differ in shape or have fewer than 2 samples.

    Source: see MATCHING_METRICS.
    """
    first, second = as_pair(first_S_D, second_S_D, min_cells=2)
    if len(first) != len(second):
        raise ValueError(
            f"both views must hold the same samples, got {len(first)} and {len(second)}"
        )
    ahead = closer_shares(first, second, closeness), closer_shares(second, first, closeness)
    return float(np.mean(ahead))


def closer_shares(
    first_S_D: DoubleArray,
    second_S_D: DoubleArray,
    closeness: Closeness = Closeness.COSINE,
    *,
    chunk_rows: int = CHUNK_ROWS,
) -> DoubleArray:
    """[S] share of the other samples of the second view that are closer than the own partner.

    One direction of `foscttm`, sample by sample. Distances are taken `chunk_rows` samples at a
    time, so memory grows with the number of samples and not with its square.

    Args:
        first_S_D: [S, D] the samples that are asked.
        second_S_D: [S, D] their partners, in the same order.
        closeness: Distance between vectors.
        chunk_rows: Samples at a time; changes memory only.
    """
    num = len(first_S_D)
    ahead_S = np.empty(num)
    for start in range(0, num, chunk_rows):
        rows = np.arange(start, min(start + chunk_rows, num))
        distances = distance_matrix(first_S_D[rows], second_S_D, closeness)
        own = distances[rows - start, rows][:, None]
        # Distances that are equal come out of a matrix product with different last bits.
        slack = TIE_TOLERANCE * (1.0 + np.abs(own))
        closer = (distances < own - slack).sum(axis=1)
        equal = (np.abs(distances - own) <= slack).sum(axis=1) - 1  # without the partner itself
        ahead_S[rows] = closer + equal / 2
    return ahead_S / (num - 1)


def discrimination_score(
    real_P_D: npt.ArrayLike,
    generated_P_D: npt.ArrayLike,
    *,
    closeness: Closeness = Closeness.MANHATTAN,
    target_columns_P: Sequence[int | None] | None = None,
) -> DoubleArray:
    """How well each predicted effect singles out its own perturbation among all.

    s_p = 1 - (closer_p + equal_p / 2) / P: real effects that lie closer to the predicted effect of
    p than the real effect of p does. Without equal distances these are the values of cell-eval.

    Args:
        real_P_D: [P, D] real effects: pseudobulk of the perturbation minus that of the control.
        generated_P_D: [P, D] predicted effects, same perturbations in the same order.
        closeness: Distance between effects; the challenge's is Manhattan.
        target_columns_P: [P] column of the gene that is knocked out, which is left out of that
            perturbation's distances, because its change is known in advance; None where there is
            none.

    Returns:
        [P] one score a perturbation, in [1 / P, 1]; 1 is best, 0.5 + 1 / (2 P) random.

    Raises:
        ValueError: If the sides differ in shape or have fewer than 2 perturbations.

    Source: see MATCHING_METRICS.
    """
    real, generated = as_pair(real_P_D, generated_P_D, min_cells=2)
    num = len(real)
    columns = [None] * num if target_columns_P is None else list(target_columns_P)
    if not len(generated) == len(columns) == num:
        raise ValueError(
            "each perturbation needs a real effect, a predicted one and a target column or None, "
            f"got {num}, {len(generated)} and {len(columns)}"
        )
    ahead_P = np.empty(num)
    for p, column in enumerate(columns):
        kept = np.arange(real.shape[1]) != column
        distances = distance_matrix(generated[p : p + 1, kept], real[:, kept], closeness)
        ahead_P[p] = _num_ahead(distances, distances[:, p])[0]
    return 1.0 - ahead_P / num


def distance_matrix(
    first_S_D: DoubleArray, second_S_D: DoubleArray, closeness: Closeness
) -> DoubleArray:
    """Distance of every row of the first to every row of the second."""
    from sklearn.metrics import pairwise_distances

    distances: DoubleArray = pairwise_distances(first_S_D, second_S_D, metric=closeness.value)
    return distances


def _num_ahead(distances_S_S: DoubleArray, own_S: DoubleArray) -> DoubleArray:
    """[S] others of a row that are closer than its own partner, equal ones by half."""
    closer = (distances_S_S < own_S[:, None]).sum(axis=1)
    equal = (distances_S_S == own_S[:, None]).sum(axis=1) - 1  # without the partner itself
    return np.asarray(closer + equal / 2, dtype=np.float64)
