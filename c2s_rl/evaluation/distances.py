"""Distances between two populations of cells: MMD, energy distance, Wasserstein.

Pure functions on vectors; how cells become vectors is `c2s_rl/models/cell_embedder.py`. Populations
need not be of one size, and no cell is paired with another by the caller. The distances to a
Gaussian fit (scFID) are in `frechet.py`.

Shape suffixes: C cells (of either side; their numbers may differ), D embedding.
"""

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.rank import DoubleArray

# Of the median distance, as in the multi-kernel MMD of Li et al. 2015 (arXiv:1502.02761): one
# width alone is blind to differences much finer or much coarser than itself.
BANDWIDTH_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
# Pivots of the network simplex: reached by none of our sizes, and an error where it is.
MAX_PIVOTS = 10_000_000


def median_bandwidths(real_C_D: npt.ArrayLike) -> tuple[float, ...]:
    """Widths of the RBF kernels: the median distance between different real cells, times scales.

    Only real cells decide, so that every method is measured with the same kernel.

    Args:
        real_C_D: [C, D] real cells.

    Returns:
        One width per BANDWIDTH_SCALES, in the unit of the vectors.

    Raises:
        ValueError: If no two real cells differ.

    Source: Gretton et al. 2012, section 8 (median heuristic).
    """
    distances = _self_distances(as_population(real_C_D, "real"))
    # Cells that express no gene of a small program coincide; their zeros would make the width 0.
    apart = distances[distances > 0]
    if not len(apart):
        raise ValueError(f"a bandwidth needs real cells that differ, got {len(distances)} equal")
    return tuple(float(np.median(apart)) * scale for scale in BANDWIDTH_SCALES)


def rbf_kernel(
    first_C_D: DoubleArray, second_C_D: DoubleArray, bandwidths: tuple[float, ...]
) -> DoubleArray:
    """Mean over the widths b of exp(-|x - y|^2 / (2 b^2)).

    Returns:
        [C, C] in (0, 1], rows of the first by rows of the second.
    """
    from scipy.spatial.distance import cdist

    squares = cdist(first_C_D, second_C_D, "sqeuclidean")
    kernel = np.zeros_like(squares)
    for width in bandwidths:
        kernel += np.exp(squares / (-2.0 * width**2))
    return kernel / len(bandwidths)


def mmd(
    real_C_D: npt.ArrayLike,
    generated_C_D: npt.ArrayLike,
    *,
    bandwidths: tuple[float, ...] | None = None,
    is_unbiased: bool = True,
) -> float:
    """Squared maximum mean discrepancy with a mixture of RBF kernels.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y), x real and y generated.

    Args:
        real_C_D: [C, D] real cells.
        generated_C_D: [C, D] generated cells.
        bandwidths: Widths of the kernels; None takes `median_bandwidths` of the real cells.
        is_unbiased: Leave each cell's kernel with itself out (U-statistic): 0 on average for equal
            populations of any size, a little below 0 at times. False keeps it (V-statistic, >= 0),
            which charges small populations.

    Returns:
        MMD^2 without unit.

    Raises:
        ValueError: If a side has no cell (unbiased: fewer than 2), the sides differ in D, or the
            real cells give no bandwidth.

    Source: Gretton et al. 2012, JMLR 13:723, equations 3 (unbiased) and 5 (biased).
    """
    real, generated = as_pair(real_C_D, generated_C_D, min_cells=2 if is_unbiased else 1)
    widths = median_bandwidths(real) if bandwidths is None else bandwidths
    within = [
        _mean_within(rbf_kernel(side, side, widths), is_unbiased=is_unbiased)
        for side in (real, generated)
    ]
    return float(sum(within) - 2.0 * rbf_kernel(real, generated, widths).mean())


def energy_distance(
    real_C_D: npt.ArrayLike, generated_C_D: npt.ArrayLike, *, is_unbiased: bool = True
) -> float:
    """Squared energy distance: 2 E|x - y| - E|x - x'| - E|y - y'|.

    In one dimension the biased form is the square of `scipy.stats.energy_distance`.

    Args:
        real_C_D: [C, D] real cells.
        generated_C_D: [C, D] generated cells.
        is_unbiased: Leave each cell's distance to itself out, see `mmd`.

    Returns:
        In the unit of the vectors; 0 for equal distributions.

    Raises:
        ValueError: If a side has no cell (unbiased: fewer than 2) or the sides differ in D.

    Source: Szekely and Rizzo 2013, doi:10.1016/j.jspi.2013.03.018, equation 2.
    """
    from scipy.spatial.distance import cdist

    real, generated = as_pair(real_C_D, generated_C_D, min_cells=2 if is_unbiased else 1)
    within = [
        _mean_within(cdist(side, side), is_unbiased=is_unbiased) for side in (real, generated)
    ]
    return float(2.0 * cdist(real, generated).mean() - sum(within))


def wasserstein(real_C_D: npt.ArrayLike, generated_C_D: npt.ArrayLike, *, order: int = 2) -> float:
    """Exact Wasserstein distance of two populations with equal weight on every cell.

    W_p = (min over couplings of E |x - y|^p)^(1/p), by POT's network simplex. Cost grows like
    C^3 log C: about 2,000 cells a side are a matter of seconds. It shrinks with more cells even
    between equal distributions, so compare populations of equal size only.

    Args:
        real_C_D: [C, D] real cells.
        generated_C_D: [C, D] generated cells.
        order: p, 1 or 2.

    Returns:
        In the unit of the vectors, >= 0.

    Raises:
        ValueError: If p is another, a side has no cell or the sides differ in D.
        RuntimeError: If the simplex did not end.

    Source: Peyre and Cuturi 2019, arXiv:1803.00567, equation 2.18; solver: Bonneel et al. 2011.
    """
    if order not in (1, 2):
        raise ValueError(f"the order of a Wasserstein distance must be 1 or 2, got {order}")
    real, generated = as_pair(real_C_D, generated_C_D, min_cells=1)
    return float(transport_cost(pair_costs(real, generated, order)) ** (1.0 / order))


def pair_costs(real_C_D: DoubleArray, generated_C_D: DoubleArray, order: int) -> DoubleArray:
    """|x - y|^order of every pair, rows real."""
    from scipy.spatial.distance import cdist

    return cdist(real_C_D, generated_C_D, "euclidean" if order == 1 else "sqeuclidean")


def transport_cost(costs_C_C: DoubleArray) -> float:
    """Least mean cost of moving one population onto the other, each cell of equal weight.

    Raises:
        RuntimeError: If the simplex did not end.
    """
    import ot

    cost, log = ot.emd2([], [], np.ascontiguousarray(costs_C_C), numItermax=MAX_PIVOTS, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"optimal transport must converge, got {log['warning']!r}")
    # Rounding may leave -1e-17 for equal populations, whose root would be nan.
    return max(float(cost), 0.0)


def sliced_wasserstein(
    real_C_D: npt.ArrayLike,
    generated_C_D: npt.ArrayLike,
    *,
    seed: int,
    order: int = 2,
    num_projections: int = 256,
) -> float:
    """Wasserstein distance of random one-dimensional projections, averaged; for many cells.

    SW_p = (mean over directions u of W_p(<x, u>, <y, u>)^p)^(1/p); C log C. It is smaller than
    W_p, by about sqrt(D) for a shift in one direction: never put the two in one column.

    Args:
        real_C_D: [C, D] real cells.
        generated_C_D: [C, D] generated cells.
        seed: Seeds the directions.
        order: p.
        num_projections: Number of directions.

    Returns:
        In the unit of the vectors, >= 0.

    Raises:
        ValueError: If a side has no cell or the sides differ in D.

    Source: Bonneel et al. 2015, doi:10.1007/s10851-014-0506-3.
    """
    import ot

    real, generated = as_pair(real_C_D, generated_C_D, min_cells=1)
    return float(
        ot.sliced_wasserstein_distance(
            real, generated, n_projections=num_projections, p=order, seed=seed
        )
    )


def as_pair(
    real_C_D: npt.ArrayLike, generated_C_D: npt.ArrayLike, *, min_cells: int
) -> tuple[DoubleArray, DoubleArray]:
    """Check two populations and return them as float64.

    Raises:
        ValueError: If a side is not [C, D], is not finite, has fewer than `min_cells` cells, or
            they differ in D.
    """
    real = as_population(real_C_D, "real")
    generated = as_population(generated_C_D, "generated")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            "real and generated cells must have vectors of one length, "
            f"got {real.shape[1]} and {generated.shape[1]}"
        )
    if min(len(real), len(generated)) < min_cells:
        raise ValueError(
            f"each population must have at least {min_cells} cells, "
            f"got {len(real)} real and {len(generated)} generated"
        )
    return real, generated


def as_population(cells_C_D: npt.ArrayLike, side: str) -> DoubleArray:
    """Check one population and return it as float64.

    Raises:
        ValueError: If it is not a matrix or holds a value that is not finite.
    """
    cells = np.asarray(cells_C_D, dtype=np.float64)
    if cells.ndim != 2:
        raise ValueError(f"{side} cells must be a matrix [cells, dimensions], got {cells.shape}")
    if not np.isfinite(cells).all():
        raise ValueError(f"{side} cells must have finite vectors, got nan or infinity")
    return cells


def _self_distances(cells_C_D: DoubleArray) -> DoubleArray:
    from scipy.spatial.distance import pdist

    return np.asarray(pdist(cells_C_D), dtype=np.float64)


def _mean_within(matrix_C_C: DoubleArray, *, is_unbiased: bool) -> float:
    """Mean over pairs of one population, with or without the pairs of a cell with itself."""
    if not is_unbiased:
        return float(matrix_C_C.mean())
    num_cells = len(matrix_C_C)
    return float((matrix_C_C.sum() - np.trace(matrix_C_C)) / (num_cells * (num_cells - 1)))
