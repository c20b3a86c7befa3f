"""Distances between two populations whose cells are drawn again and again, without measuring anew.

All distances of `distribution.py` follow from the distances and inner products of the cells as they
are: a draw only picks rows of those matrices. One draw of 100 cells a side takes some milliseconds
in any embedding. The width of the MMD kernels stays that of the real cells before the draw.

Shape suffixes: C cells (their number may differ between the sides), D embedding, S draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.sentence import stable_hash
from c2s_rl.evaluation.distances import as_pair, median_bandwidths, rbf_kernel, transport_cost
from c2s_rl.evaluation.distribution import DistributionMetric
from c2s_rl.evaluation.rank import DoubleArray, IndexArray


def draw_rows(
    units_C: Sequence[str], drawable: Sequence[str], *, num_draws: int, seed: int
) -> list[IndexArray]:
    """Draw units with replacement, each with all its cells.

    Args:
        units_C: [C] unit of every cell.
        drawable: Units to draw from, sorted; some may have no cell here. The same list and seed
            draw the same units, so that methods of the same prompts are compared in pairs.
        num_draws: S.
        seed: Seeds the draws.

    Returns:
        [S] rows of the cells, repeats included; empty where no unit drawn has a cell.
    """
    rows_of: dict[str, list[int]] = {}
    for row, unit in enumerate(units_C):
        rows_of.setdefault(unit, []).append(row)
    rng = np.random.default_rng(stable_hash("|".join(drawable), seed))
    draws = []
    for _ in range(num_draws):
        picked = rng.integers(len(drawable), size=len(drawable))
        rows = [row for pick in picked for row in rows_of.get(drawable[pick], ())]
        draws.append(np.array(rows, dtype=np.int64))
    return draws


def fewer_dimensions(vectors_C_D: npt.ArrayLike) -> DoubleArray:
    """Turn vectors into ones of at most C dimensions with the same distances and inner products.

    C cells span at most C directions; written in an orthonormal basis of those, distances cost less
    and stay what they were (up to rounding).

    Args:
        vectors_C_D: [C, D] cells of all populations that will be compared.

    Returns:
        [C, min(C, D)].
    """
    vectors = np.asarray(vectors_C_D, dtype=np.float64)
    if vectors.shape[1] <= vectors.shape[0]:
        return vectors
    triangle: DoubleArray = np.asarray(np.linalg.qr(vectors.T, mode="r"))
    return triangle.T


@dataclass(frozen=True, eq=False)
class _Pair:
    """Everything that a draw picks from; rows real, columns generated in the mixed matrices."""

    kernels: tuple[DoubleArray, DoubleArray, DoubleArray] | None
    """Real with real, generated with generated, mixed; None where real cells do not differ."""
    distances: tuple[DoubleArray, DoubleArray, DoubleArray]
    products: tuple[DoubleArray, DoubleArray, DoubleArray]


def resampled_distances(
    real_C_D: npt.ArrayLike,
    generated_C_D: npt.ArrayLike,
    real_rows_S: Sequence[IndexArray],
    generated_rows_S: Sequence[IndexArray],
) -> dict[DistributionMetric, DoubleArray]:
    """Every distance of every draw.

    Args:
        real_C_D: [C, D] real cells.
        generated_C_D: [C, D] generated cells.
        real_rows_S: [S] rows of the real cells that a draw holds, repeats allowed.
        generated_rows_S: [S] the same of the generated cells.

    Returns:
        Metric to [S] distances; nan for draws with fewer than 2 cells on a side.

    Raises:
        ValueError: If the sides differ in D or hold a value that is not finite.
    """
    pair = _measure(*as_pair(real_C_D, generated_C_D, min_cells=1))
    draws = {metric: np.full(len(real_rows_S), np.nan) for metric in DistributionMetric}
    for s, (real, generated) in enumerate(zip(real_rows_S, generated_rows_S, strict=True)):
        if min(len(real), len(generated)) < 2:
            continue
        for metric, value in _one_draw(pair, real, generated).items():
            draws[metric][s] = value
    return draws


def _measure(real_C_D: DoubleArray, generated_C_D: DoubleArray) -> _Pair:
    from scipy.spatial.distance import cdist

    # Around their common centre inner products are small, so that little is lost in differences.
    centre_D = np.concatenate([real_C_D, generated_C_D]).mean(axis=0)
    real, generated = real_C_D - centre_D, generated_C_D - centre_D
    sides = ((real, real), (generated, generated), (real, generated))
    kernels = None
    if not (real == real[0]).all():
        widths = median_bandwidths(real)
        within, other, mixed = (rbf_kernel(a, b, widths) for a, b in sides)
        kernels = (within, other, mixed)
    distances = (cdist(real, real), cdist(generated, generated), cdist(real, generated))
    products = (real @ real.T, generated @ generated.T, real @ generated.T)
    return _Pair(kernels, distances, products)


def _one_draw(
    pair: _Pair, real: IndexArray, generated: IndexArray
) -> dict[DistributionMetric, float]:
    costs = pair.distances[2][np.ix_(real, generated)] ** 2
    mmd = float("nan")
    if pair.kernels is not None:
        mmd = _contrast(pair.kernels, real, generated)
    return {
        DistributionMetric.MMD: mmd,
        DistributionMetric.ENERGY: -_contrast(pair.distances, real, generated),
        DistributionMetric.WASSERSTEIN: transport_cost(costs) ** 0.5,
        DistributionMetric.SCFID: _scfid(pair.products, real, generated),
    }


def _contrast(
    matrices: tuple[DoubleArray, DoubleArray, DoubleArray], real: IndexArray, generated: IndexArray
) -> float:
    """Mean within both sides minus twice the mean between them, own pairs left out."""
    first, second, mixed = matrices
    within = _mean_within(first[np.ix_(real, real)]) + _mean_within(
        second[np.ix_(generated, generated)]
    )
    return float(within - 2.0 * mixed[np.ix_(real, generated)].mean())


def _mean_within(matrix_C_C: DoubleArray) -> float:
    num = len(matrix_C_C)
    return float((matrix_C_C.sum() - np.trace(matrix_C_C)) / (num * (num - 1)))


def _scfid(
    products: tuple[DoubleArray, DoubleArray, DoubleArray], real: IndexArray, generated: IndexArray
) -> float:
    """Frechet distance from inner products alone.

    With A and B the centred cells over sqrt(C - 1), tr (S_r S_g)^(1/2) is the sum of the singular
    values of A B', which is the centred mixed matrix.
    """
    within = products[0][np.ix_(real, real)]
    other = products[1][np.ix_(generated, generated)]
    mixed = products[2][np.ix_(real, generated)]
    shift = within.mean() + other.mean() - 2.0 * mixed.mean()
    variance = _total_variance(within) + _total_variance(other)
    centred = mixed - mixed.mean(axis=0) - mixed.mean(axis=1, keepdims=True) + mixed.mean()
    overlap = np.linalg.svd(centred, compute_uv=False).sum()
    overlap /= np.sqrt((len(real) - 1) * (len(generated) - 1))
    return max(float(shift + variance - 2.0 * overlap), 0.0)


def _total_variance(products_C_C: DoubleArray) -> float:
    """Trace of the covariance: mean square around the mean, C - 1 in the denominator."""
    num = len(products_C_C)
    return float((np.trace(products_C_C) - num * products_C_C.mean()) / (num - 1))
