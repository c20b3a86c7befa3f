"""What each generated cell does to a distance between populations: credit by leave-one-out.

For a distance V (lower is better) between n generated cells and the real ones,

    credit_i = (n - 1) (V without i - V of all),    larger is better

which is V minus the jackknife's pseudo-value of cell i. The factor makes it independent of n:
where V is a mean of values v_i of single cells, credit_i = mean(v) - v_i exactly. A score (higher
is better) takes the same with the sign turned.

MMD and the energy distance are updated in closed form, scFID by rank-one updates of mean and
covariance, Wasserstein is solved again for every cell. MMD counts pairs of a cell with itself
(V-statistic, as does the energy distance): its credit is then, but for a constant, twice the
witness function, mean_r k(x_r, y_i) - mean_{j != i} k(y_j, y_i), and REINFORCE with it as reward
follows the gradient of -MMD^2 of the policy without bias.

Shape suffixes: G generated cells, R real cells, D embedding.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.distances import (
    as_pair,
    median_bandwidths,
    pair_costs,
    rbf_kernel,
    transport_cost,
)
from c2s_rl.evaluation.frechet import frechet_distance, moments
from c2s_rl.evaluation.rank import DoubleArray


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """A metric of all cells, and without each of them."""

    of_all: float
    """The metric of the whole population."""
    without_G: DoubleArray
    """[G] the metric of the population without that cell."""

    def credit_G(self, *, is_distance: bool) -> DoubleArray:
        """[G] (n - 1) times what the metric loses without each cell; larger is better."""
        change_G = self.without_G - self.of_all
        sign = 1.0 if is_distance else -1.0
        return sign * (len(change_G) - 1) * change_G


def mmd_without_each(
    real_R_D: npt.ArrayLike,
    generated_G_D: npt.ArrayLike,
    *,
    bandwidths: tuple[float, ...] | None = None,
    within_real: float | None = None,
) -> LeaveOneOut:
    """Squared MMD (biased form, `distances.mmd`) without each generated cell; O(G (G + R)).

    Args:
        real_R_D: Real cells.
        generated_G_D: Generated cells.
        bandwidths: Of the kernel; null: `distances.median_bandwidths` of the real cells.
        within_real: `mean_kernel` of the real cells, where it is known already.

    Raises:
        ValueError: If there are fewer than 2 generated cells, no real one, or the real cells give
            no bandwidth.
    """
    real, generated = _checked(*_used_columns(real_R_D, generated_G_D))
    widths = median_bandwidths(real) if bandwidths is None else bandwidths
    kernel = partial(rbf_kernel, bandwidths=widths)
    if within_real is None:
        within_real = mean_kernel(real, widths)
    across, own = _without_each(kernel(real, generated), kernel(generated, generated))
    return LeaveOneOut(
        within_real + own.of_all - 2.0 * across.of_all,
        within_real + own.without_G - 2.0 * across.without_G,
    )


def mean_kernel(cells_C_D: npt.ArrayLike, bandwidths: tuple[float, ...]) -> float:
    """Mean of `distances.rbf_kernel` over all pairs of cells, each with itself among them."""
    cells, _ = _used_columns(cells_C_D, cells_C_D)
    return float(rbf_kernel(cells, cells, bandwidths).mean())


def mean_distance(cells_C_D: npt.ArrayLike) -> float:
    """Mean Euclidean distance over all pairs of cells, each with itself (0) among them."""
    from scipy.spatial.distance import cdist

    cells, _ = _used_columns(cells_C_D, cells_C_D)
    return float(cdist(cells, cells).mean())


def energy_without_each(
    real_R_D: npt.ArrayLike, generated_G_D: npt.ArrayLike, *, within_real: float | None = None
) -> LeaveOneOut:
    """Squared energy distance (biased form) without each generated cell; O(G (G + R)).

    Args:
        real_R_D: Real cells.
        generated_G_D: Generated cells.
        within_real: `mean_distance` of the real cells, where it is known already.

    Raises:
        ValueError: If there are fewer than 2 generated cells or no real one.
    """
    from scipy.spatial.distance import cdist

    real, generated = _checked(*_used_columns(real_R_D, generated_G_D))
    if within_real is None:
        within_real = mean_distance(real)
    across, own = _without_each(cdist(real, generated), cdist(generated, generated))
    return LeaveOneOut(
        2.0 * across.of_all - within_real - own.of_all,
        2.0 * across.without_G - within_real - own.without_G,
    )


def wasserstein_without_each(
    real_R_D: npt.ArrayLike, generated_G_D: npt.ArrayLike, *, order: int
) -> LeaveOneOut:
    """Exact Wasserstein distance without each generated cell: G + 1 transport problems.

    The costs are computed once. A problem of 64 x 64 cells takes about a millisecond, one of
    256 x 256 about 20: meant for at most a few hundred cells.

    Raises:
        ValueError: If there are fewer than 2 generated cells or no real one.
    """
    real, generated = _checked(*_used_columns(real_R_D, generated_G_D))
    costs_R_G = pair_costs(real, generated, order)
    without_G = [
        transport_cost(np.delete(costs_R_G, g, axis=1)) ** (1.0 / order)
        for g in range(len(generated))
    ]
    return LeaveOneOut(transport_cost(costs_R_G) ** (1.0 / order), np.array(without_G))


def scfid_without_each(
    real_R_D: npt.ArrayLike, generated_G_D: npt.ArrayLike, *, shrinkage: float = 0.0
) -> LeaveOneOut:
    """Fréchet distance without each generated cell.

    Without shrinkage: with P = A_r (Y - mean)' the overlap tr (S_r S_g)^{1/2} is the sum of the
    singular values of P / sqrt(G - 1); leaving cell i out drops its column and adds P_i / (G - 1)
    to the others. So one product and G decompositions of a small matrix, never a D x D one.
    With shrinkage every population is fitted again.

    Raises:
        ValueError: If there are fewer than 2 cells on a side.
    """
    real, generated = _checked(real_R_D, generated_G_D, min_real=2)
    fit = moments(real, shrinkage=shrinkage)
    of_all = frechet_distance(fit, moments(generated, shrinkage=shrinkage))
    num = len(generated)
    if shrinkage:
        rest = (np.delete(generated, g, axis=0) for g in range(num))
        without = [frechet_distance(fit, moments(part, shrinkage=shrinkage)) for part in rest]
        return LeaveOneOut(of_all, np.array(without))
    centred = generated - generated.mean(axis=0)
    shift_G = _shifts_without_each(fit.mean_D, generated)
    # Of n - 1 cells: sum of squares sum |y|^2 - |y_i|^2 n / (n - 1), over n - 2 degrees of freedom.
    squares_G = (centred**2).sum(axis=1)
    freedom = max(num - 2, 1)
    variance_G = np.maximum(squares_G.sum() - squares_G * num / (num - 1), 0.0) / freedom
    projected_F_G = fit.factor_F_D @ centred.T
    overlap_G = np.empty(num)
    for g in range(num):
        others = np.delete(projected_F_G, g, axis=1) + projected_F_G[:, g : g + 1] / (num - 1)
        overlap_G[g] = np.linalg.svd(others, compute_uv=False).sum() / np.sqrt(freedom)
    without_G = shift_G + fit.total_variance + variance_G - 2.0 * overlap_G
    return LeaveOneOut(of_all, np.maximum(without_G, 0.0))


def _shifts_without_each(real_mean_D: DoubleArray, generated_G_D: DoubleArray) -> DoubleArray:
    """[G] squared distance between the real mean and the generated mean without each cell."""
    total_D = generated_G_D.sum(axis=0)
    means_G_D = (total_D - generated_G_D) / (len(generated_G_D) - 1)
    return np.asarray(((means_G_D - real_mean_D) ** 2).sum(axis=1), dtype=np.float64)


def _without_each(across_R_G: DoubleArray, own_G_G: DoubleArray) -> tuple[LeaveOneOut, LeaveOneOut]:
    """Means of a matrix real x generated and of one generated x generated, without each cell."""
    num_real, num = across_R_G.shape
    columns_G = across_R_G.sum(axis=0)
    across = LeaveOneOut(
        float(across_R_G.mean()), (columns_G.sum() - columns_G) / (num_real * (num - 1))
    )
    # A cell takes its row and its column with it; the diagonal is in both.
    taken_G = 2.0 * own_G_G.sum(axis=1) - np.diag(own_G_G)
    own = LeaveOneOut(float(own_G_G.mean()), (own_G_G.sum() - taken_G) / (num - 1) ** 2)
    return across, own


def _used_columns(
    first_C_D: npt.ArrayLike, second_C_D: npt.ArrayLike
) -> tuple[DoubleArray, DoubleArray]:
    """Leave out the columns that are 0 in every cell of both: they add nothing to a distance.

    A cell sentence of 80 genes leaves most of a vocabulary of 13,000 at 0.
    """
    first, second = np.asarray(first_C_D), np.asarray(second_C_D)
    if first.ndim == second.ndim == 2 and first.shape[1] == second.shape[1]:
        used_D = first.any(axis=0) | second.any(axis=0)
        if used_D.any():
            first, second = first[:, used_D], second[:, used_D]
    return first.astype(np.float64), second.astype(np.float64)


def _checked(
    real_R_D: npt.ArrayLike, generated_G_D: npt.ArrayLike, *, min_real: int = 1
) -> tuple[DoubleArray, DoubleArray]:
    real, generated = as_pair(real_R_D, generated_G_D, min_cells=min_real)
    if len(generated) < 2:
        raise ValueError(f"leaving one out needs at least 2 generated cells, got {len(generated)}")
    return real, generated
