"""How far a population of generated cells is from the real one: all distances of one table.

The one place to import from: the distances themselves are in `distances.py` and `frechet.py`.
Values are per condition; averaging over conditions is the caller's. Left out: which cells are
compared, and how they become vectors.

Shape suffixes: C cells (their number may differ between the sides), D embedding.
"""

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.cell_metrics import Better
from c2s_rl.evaluation.distances import (
    as_pair,
    energy_distance,
    mmd,
    sliced_wasserstein,
    wasserstein,
)
from c2s_rl.evaluation.frechet import scfid
from c2s_rl.evaluation.metric_info import DistributionInfo
from c2s_rl.evaluation.rank import DoubleArray

__all__ = [
    "DISTRIBUTION_METRICS",
    "MAX_CELLS",
    "DistributionInfo",
    "DistributionMetric",
    "distribution_metrics",
    "energy_distance",
    "mmd",
    "scfid",
    "sliced_wasserstein",
    "wasserstein",
]

# Cells a side that are compared pair by pair: 32 MB a matrix, seconds of optimal transport.
MAX_CELLS = 2000


class DistributionMetric(StrEnum):
    """Distances between populations, in the order of the tables."""

    MMD = "mmd"
    ENERGY = "energy"
    WASSERSTEIN = "wasserstein"
    SCFID = "scfid"


BASELINE = "the control cells of the condition, as if nothing had happened"
CEILING = "one half of the real cells against the other half"

DISTRIBUTION_METRICS: Mapping[DistributionMetric, DistributionInfo] = {
    DistributionMetric.MMD: DistributionInfo(
        label="MMD",
        meaning="Squared maximum mean discrepancy, unbiased, RBF kernels around the median "
        "distance of real cells: 0 = the same distribution; slightly below 0 is chance.",
        better=Better.LOWER,
        best=0.0,
        unit="none",
        baseline=BASELINE,
        ceiling=CEILING,
        source="Gretton et al. 2012, equation 3",
        decimals=4,
    ),
    DistributionMetric.ENERGY: DistributionInfo(
        label="energy distance",
        meaning="How much farther real and generated cells are from each other than from their "
        "own kind, unbiased: 0 = the same distribution; slightly below 0 is chance.",
        better=Better.LOWER,
        best=0.0,
        unit="embedding",
        baseline=BASELINE,
        ceiling=CEILING,
        source="Szekely and Rizzo 2013, equation 2",
    ),
    DistributionMetric.WASSERSTEIN: DistributionInfo(
        label="Wasserstein",
        meaning="Root mean squared distance that generated cells must be moved to lie where the "
        "real ones are (W2). Falls with more cells: compare equal numbers.",
        better=Better.LOWER,
        best=0.0,
        unit="embedding",
        baseline=BASELINE,
        ceiling=CEILING,
        source="C2S-Scale 4.6.9; Peyre and Cuturi 2019, equation 2.18",
    ),
    DistributionMetric.SCFID: DistributionInfo(
        label="scFID",
        meaning="Distance between Gaussians fitted to real and generated cells: are mean and "
        "spread right? Falls with more cells: compare equal numbers.",
        better=Better.LOWER,
        best=0.0,
        unit="embedding squared",
        baseline=BASELINE,
        ceiling=CEILING,
        source="C2S-Scale 4.6.9; Dowson and Landau 1982",
    ),
}


def distribution_metrics(
    real_C_D: npt.ArrayLike, generated_C_D: npt.ArrayLike, seed: int
) -> dict[DistributionMetric, float]:
    """All distances between the real and the generated cells of one condition.

    Args:
        real_C_D: [C, D] embeddings of real cells.
        generated_C_D: [C, D] embeddings of generated cells.
        seed: Seeds which MAX_CELLS cells of a larger population are compared pair by pair (all
            but scFID, which sees every cell).

    Returns:
        Each metric once, see `DISTRIBUTION_METRICS`; nan where it has no value: fewer than 2 cells
        on a side (all), no two different real cells (MMD has no width).

    Raises:
        ValueError: If the sides differ in D or hold a value that is not finite.
    """
    real, generated = as_pair(real_C_D, generated_C_D, min_cells=0)
    if min(len(real), len(generated)) < 2:
        return dict.fromkeys(DistributionMetric, float("nan"))
    rng = np.random.default_rng(seed)
    real_part, generated_part = _part(real, rng), _part(generated, rng)
    is_flat = bool((real_part == real_part[0]).all())
    return {
        DistributionMetric.MMD: float("nan") if is_flat else mmd(real_part, generated_part),
        DistributionMetric.ENERGY: energy_distance(real_part, generated_part),
        DistributionMetric.WASSERSTEIN: wasserstein(real_part, generated_part),
        DistributionMetric.SCFID: scfid(real, generated),
    }


def _part(cells_C_D: DoubleArray, rng: np.random.Generator) -> DoubleArray:
    if len(cells_C_D) <= MAX_CELLS:
        return cells_C_D
    return cells_C_D[np.sort(rng.permutation(len(cells_C_D))[:MAX_CELLS])]
