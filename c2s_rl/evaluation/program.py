"""How active a gene program is in a cell: ssGSEA, and a rank-based z score with its p value.

Both look only at the order of a cell's genes. In a sentence most genes are not named and share the
last place; the order that a file happens to give them must not count, so ties are kept fair here.

Shape suffixes: C cells, N genes, M genes of the program.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.types import IntArray

_SET = "program"


def ssgsea(values_C_N: npt.ArrayLike, program_M: IntArray, *, weight: float = 0.0) -> DoubleArray:
    """Single-sample GSEA enrichment of a program in every cell, by gseapy.

    ES = sum over places i of P_in(i) - P_out(i): the cumulative shares of the program's genes
    (weighted by rank^weight) and of all other genes, highest value first. With weight 0 that is
    the mean rank of the others minus the mean rank of the program. It is divided by N / 2, the
    largest ES with weight 0, so that data sets of different size compare.

    gseapy orders equal values as they stand in the table. Each cell is scored in the order of the
    table and in the opposite one, and the mean is taken: with weight 0 that gives tied genes their
    mean rank exactly.

    Args:
        values_C_N: [C, N] expression or anything in its order; larger = earlier.
        program_M: [M] columns of the program's genes, each once; 0 < M < N.
        weight: Exponent of the rank; the paper's is 0.

    Returns:
        [C] in [-1, 1] with weight 0: 1 = the program's genes are the highest, 0 = anywhere,
        -1 = the lowest.

    Raises:
        ValueError: If the values are no finite matrix, or the program is no part of the genes.

    Source: Barbie et al. 2009, doi:10.1038/nature08460; C2S-Scale 4.8 (`sample_norm_method='rank'`,
        `weight=0`).
    """
    values = _as_cells(values_C_N)
    num_genes = values.shape[1]
    _check_program(program_M, num_genes)
    if not len(values):
        return np.zeros(0)
    is_in_N = np.zeros(num_genes, dtype=bool)
    is_in_N[program_M] = True
    forward = _gseapy_scores(values, is_in_N, weight)
    backward = _gseapy_scores(values[:, ::-1], is_in_N[::-1], weight)
    scores_C: DoubleArray = (forward + backward) / num_genes
    return scores_C


def _gseapy_scores(
    values_C_N: DoubleArray, is_in_N: npt.NDArray[np.bool_], weight: float
) -> DoubleArray:
    """ES of gseapy for every cell."""
    import gseapy
    import pandas as pd

    # Made-up names of one case: gseapy folds the case of real ones when most are upper case.
    names = [f"g{n}" for n in range(len(is_in_N))]
    table = pd.DataFrame(
        values_C_N.T, index=names, columns=[str(c) for c in range(len(values_C_N))]
    )
    result = gseapy.ssgsea(
        data=table,
        gene_sets={_SET: [names[n] for n in np.flatnonzero(is_in_N)]},
        outdir=None,
        sample_norm_method="rank",
        weight=weight,
        min_size=1,
        max_size=len(names),
        threads=1,
        no_plot=True,
    )
    scores = result.res2d.set_index("Name")["ES"].loc[table.columns]
    return np.asarray(scores, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ProgramActivity:
    """Rank-based activity of a program in cells."""

    z_C: DoubleArray
    """[C] (expected - observed mean rank) / its standard deviation under random order; above 0 =
    active. 0 where all genes of a cell are tied."""
    p_C: DoubleArray
    """[C] one-sided Wilcoxon rank-sum p of the program's genes being higher; 1 where all tie."""


def rank_activity(values_C_N: npt.ArrayLike, program_M: IntArray) -> ProgramActivity:
    """Compare the mean rank of a program's genes with that of as many random genes.

    z = ((N + 1) / 2 - mean rank) / sqrt(v (N - M) / (M (N - 1))), rank 1 = highest, tied genes at
    their mean rank, v the variance of all N ranks, which holds ties exactly. p is that of
    `scipy.stats.mannwhitneyu` (asymptotic, with continuity correction).

    Args:
        values_C_N: [C, N] expression or anything in its order; larger = earlier.
        program_M: [M] columns of the program's genes, each once; 0 < M < N.

    Returns:
        z and p of every cell.

    Raises:
        ValueError: If the values are no finite matrix, or the program is no part of the genes.

    Source: C2S-Scale 4.8; variance of a mean drawn without replacement: Cochran 1977, theorem 2.2.
    """
    from scipy.stats import mannwhitneyu, rankdata

    values = _as_cells(values_C_N)
    num_genes = values.shape[1]
    _check_program(program_M, num_genes)
    if not len(values):
        return ProgramActivity(np.zeros(0), np.zeros(0))
    ranks = rankdata(-values, axis=1)
    num_in = len(program_M)
    spread_C = np.sqrt(ranks.var(axis=1) * (num_genes - num_in) / (num_in * (num_genes - 1)))
    above_C = (num_genes + 1) / 2 - ranks[:, program_M].mean(axis=1)
    is_tied_C = spread_C == 0
    z_C = np.divide(above_C, spread_C, out=np.zeros(len(values)), where=~is_tied_C)
    others = np.delete(values, program_M, axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 where all genes are tied, replaced below
        p_C = mannwhitneyu(
            values[:, program_M], others, axis=1, alternative="greater", method="asymptotic"
        ).pvalue
    return ProgramActivity(z_C, np.where(is_tied_C, 1.0, p_C))


def _as_cells(values_C_N: npt.ArrayLike) -> DoubleArray:
    values = np.asarray(values_C_N, dtype=np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ValueError(f"cells must be a finite matrix [cells, genes], got {values.shape}")
    return values


def _check_program(program_M: IntArray, num_genes: int) -> None:
    num_different = len(np.unique(program_M))
    if not 0 < len(program_M) == num_different < num_genes:
        raise ValueError(
            f"a program must be some but not all of the {num_genes} genes, each once, "
            f"got {len(program_M)} genes, {num_different} of them different"
        )
    if not 0 <= program_M.min() <= program_M.max() < num_genes:
        raise ValueError(
            f"a program's genes must be columns from 0 to {num_genes - 1}, "
            f"got {program_M.min()} to {program_M.max()}"
        )
