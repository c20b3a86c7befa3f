"""scFID: the Fréchet distance between Gaussians fitted to real and generated cells.

The trace of the matrix root never needs a matrix root: with S = A'A, the eigenvalues of S_r S_g
are the squared singular values of A_r A_g', so the trace is a sum of singular values. That holds
with fewer cells than dimensions, where S is singular and `scipy.linalg.sqrtm` breaks down.

Shape suffixes: C cells, D embedding, F rows of a factor.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.distances import as_pair
from c2s_rl.evaluation.rank import DoubleArray


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of a population, the covariance by a factor."""

    mean_D: DoubleArray
    """[D] mean."""
    factor_F_D: DoubleArray
    """[F, D] A with covariance S = A'A; F <= D."""

    @property
    def total_variance(self) -> float:
        """Trace of S."""
        return float((self.factor_F_D**2).sum())


def moments(cells_C_D: DoubleArray, *, shrinkage: float = 0.0) -> Moments:
    """Mean and (shrunk) covariance of a population of at least one cell.

    S = (1 - s) S_sample + s (trace(S_sample) / D) I, S_sample with C - 1 in the denominator; one
    cell has no spread, S_sample = 0.

    Args:
        cells_C_D: [C, D] vectors.
        shrinkage: s in [0, 1].
    """
    num_cells, num_dimensions = cells_C_D.shape
    mean_D = cells_C_D.mean(axis=0)
    factor = (cells_C_D - mean_D) / np.sqrt(max(num_cells - 1, 1))
    if shrinkage:
        ridge = np.sqrt(shrinkage * (factor**2).sum() / num_dimensions)
        factor = np.vstack([np.sqrt(1.0 - shrinkage) * factor, ridge * np.eye(num_dimensions)])
    if len(factor) > num_dimensions:
        factor = np.linalg.qr(factor, mode="r")  # A'A = R'R
    return Moments(mean_D, factor)


def frechet_distance(first: Moments, second: Moments) -> float:
    """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^{1/2}), at least 0."""
    shift = float(((first.mean_D - second.mean_D) ** 2).sum())
    overlap = float(np.linalg.svd(first.factor_F_D @ second.factor_F_D.T, compute_uv=False).sum())
    # Equal populations may end at -1e-16.
    return max(shift + first.total_variance + second.total_variance - 2.0 * overlap, 0.0)


def scfid(
    real_C_D: npt.ArrayLike, generated_C_D: npt.ArrayLike, *, shrinkage: float = 0.0
) -> float:
    """Squared Fréchet distance between Gaussians fitted to real and generated cells.

    scFID = |mu_r - mu_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^{1/2})

    Covariances of few cells are noisy, and the noise adds to the distance: compare populations of
    equal size only, and with fewer cells than dimensions consider shrinkage. Shrinkage makes both
    covariances rounder, so that a difference in their direction counts less.

    Args:
        real_C_D: [C, D] embeddings of real cells.
        generated_C_D: [C, D] embeddings of generated cells.
        shrinkage: Share of the covariance that is replaced by a sphere of equal total variance,
            in [0, 1]; 0 is the formula above.

    Returns:
        In the squared unit of the vectors, >= 0.

    Raises:
        ValueError: If a side has fewer than 2 cells, they differ in D, or the shrinkage is no
            share.

    Source: C2S-Scale section 4.6.9; Dowson and Landau 1982, doi:10.1016/0047-259X(82)90077-X;
        shrinkage target: Ledoit and Wolf 2004, doi:10.1016/S0047-259X(03)00096-4.
    """
    if not 0.0 <= shrinkage <= 1.0:
        raise ValueError(f"shrinkage must be a share from 0 to 1, got {shrinkage}")
    real, generated = as_pair(real_C_D, generated_C_D, min_cells=2)
    return frechet_distance(
        moments(real, shrinkage=shrinkage), moments(generated, shrinkage=shrinkage)
    )
