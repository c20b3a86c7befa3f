"""Differential expression of cells written as sentences: which genes change, and which way.

The effect on a gene is a mean over cells of what each single cell contributes, for both kinds of
effect; so the effect without any one cell is one subtraction. Left out: p values. Which genes
count is settled by the size of the effect in the real cells.

Shape suffixes: C cells, R control cells, N genes, M changed genes, B effects.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.jit import kernel
from c2s_rl.evaluation.leave_one_out import LeaveOneOut
from c2s_rl.evaluation.rank import DoubleArray
from c2s_rl.types import FloatArray

IndexArray = npt.NDArray[np.int64]
# Means of equal numbers differ by rounding, and would count as tiny changes of many genes.
EFFECT_DECIMALS = 9


class EffectKind(StrEnum):
    """How a change is measured."""

    MEAN = "mean"
    """Difference of mean expression, log1p(CP10k): a log fold change."""
    WILCOXON = "wilcoxon"
    """P(cell > control) + P(equal) / 2 - 1/2: the rank-sum statistic, scaled to [-1/2, 1/2]."""


@dataclass(frozen=True, eq=False)
class ChangedGenes:
    """Genes that real cells change most, and by how much."""

    up_M: IndexArray
    """Columns that rise, strongest first."""
    down_M: IndexArray
    """Columns that fall, strongest first."""
    effect_N: DoubleArray
    """[N] effect on every gene."""

    @property
    def both_M(self) -> IndexArray:
        """Up, then down."""
        return np.concatenate([self.up_M, self.down_M])


def cell_effects(cells_C_N: FloatArray, controls_R_N: FloatArray, kind: EffectKind) -> DoubleArray:
    """What every cell contributes to the effect of its population; the effect is their mean.

    Args:
        cells_C_N: [C, N] expression.
        controls_R_N: [R, N] expression of control cells, R >= 1.
        kind: How a change is measured.

    Returns:
        [C, N] in log1p(CP10k) (mean) or in [-1/2, 1/2] (wilcoxon).
    """
    if kind is EffectKind.MEAN:
        controls_N = controls_R_N.mean(axis=0, dtype=np.float64)
        return np.asarray(cells_C_N - controls_N, dtype=np.float64)
    return _superiority(np.ascontiguousarray(cells_C_N.T), np.sort(controls_R_N.T, axis=1)).T


def mean_effect(effects_C_N: DoubleArray) -> DoubleArray:
    """[N] effect of a population: the mean over its cells, exactly 0 where nothing changes."""
    return np.asarray(np.round(effects_C_N.mean(axis=0), EFFECT_DECIMALS), dtype=np.float64)


def changed_genes(effect_N: DoubleArray, top_k: int) -> ChangedGenes:
    """The `top_k` genes that rise most and the `top_k` that fall most; ties by column.

    A gene without any change is neither, so there may be fewer.
    """
    order = np.argsort(-effect_N, kind="stable")
    up = order[:top_k]
    down = np.argsort(effect_N, kind="stable")[:top_k]
    return ChangedGenes(up[effect_N[up] > 0], down[effect_N[down] < 0], effect_N)


def effects_without_each(effects_C_N: DoubleArray) -> DoubleArray:
    """[C + 1, N] effect of all cells first, then the effect without each of them, C >= 2."""
    total_N = effects_C_N.sum(axis=0)
    rest_C_N = (total_N - effects_C_N) / (len(effects_C_N) - 1)
    return np.round(np.vstack([total_N / len(effects_C_N), rest_C_N]), EFFECT_DECIMALS)


def top_overlap(effects_B_N: DoubleArray, real: ChangedGenes) -> DoubleArray:
    """Share of the real top genes that are top genes of an effect, in the same direction.

    (|up and up_real| + |down and down_real|) / (|up_real| + |down_real|); as many genes are taken
    from the effect as from the real cells.

    Returns:
        [B] in [0, 1].

    Source: overlap at k of cell-eval, by direction.
    """
    shared_B = []
    for effect_N in effects_B_N:
        own = changed_genes(effect_N, max(len(real.up_M), len(real.down_M)))
        up, down = own.up_M[: len(real.up_M)], own.down_M[: len(real.down_M)]
        shared_B.append(np.isin(up, real.up_M).sum() + np.isin(down, real.down_M).sum())
    return np.array(shared_B) / len(real.both_M)


def separation(effects_B_N: DoubleArray, real: ChangedGenes) -> DoubleArray:
    """How well an effect ranks the real up genes first and the real down genes last.

    AUROC(up genes against all others) - AUROC(down genes against all others), or twice the one
    that there is, minus its chance value.

    Returns:
        [B] in [-1, 1]; 0 = chance; equal effects count half.
    """
    from scipy.stats import rankdata

    ranks_B_N = rankdata(effects_B_N, axis=1)  # 1 = falls most
    signed = [
        sign * (2.0 * _auroc(ranks_B_N, genes_M) - 1.0)
        for sign, genes_M in ((1.0, real.up_M), (-1.0, real.down_M))
        if len(genes_M)
    ]
    return np.asarray(np.mean(signed, axis=0), dtype=np.float64)


def sign_match(effects_B_N: DoubleArray, real: ChangedGenes) -> DoubleArray:
    """Share of the real top genes that an effect moves the right way; unmoved ones count half.

    Returns:
        [B] in [0, 1]; 1/2 = chance.
    """
    genes_M = real.both_M
    agreement = np.sign(effects_B_N[:, genes_M]) * np.sign(real.effect_N[genes_M])
    return np.asarray((agreement.mean(axis=1) + 1.0) / 2.0, dtype=np.float64)


def recovered_change(effects_B_N: DoubleArray, real: ChangedGenes) -> DoubleArray:
    """Mean over the real top genes of effect / real effect, each cut to [-1, 1].

    Returns:
        [B] in [-1, 1]; 1 = every gene moves at least as far as in real cells, 0 = copying the
        control.
    """
    genes_M = real.both_M
    shares = np.clip(effects_B_N[:, genes_M] / real.effect_N[genes_M], -1.0, 1.0)
    return np.asarray(shares.mean(axis=1), dtype=np.float64)


def for_full_answers(scores_G: DoubleArray, shares_G: DoubleArray) -> DoubleArray:
    """Cut positive scores to the share of the wanted genes that an answer names, at most 1."""
    return np.where(scores_G > 0, scores_G * np.minimum(shares_G, 1.0), scores_G)


def as_leave_one_out(values_B: DoubleArray) -> LeaveOneOut:
    """Read values of `effects_without_each` rows as a metric with and without each cell."""
    return LeaveOneOut(float(values_B[0]), values_B[1:])


def _auroc(ranks_B_N: DoubleArray, genes_M: IndexArray) -> DoubleArray:
    num_in = len(genes_M)
    num_out = ranks_B_N.shape[1] - num_in
    if num_out == 0:
        return np.full(len(ranks_B_N), 0.5)
    above = ranks_B_N[:, genes_M].sum(axis=1) - num_in * (num_in + 1) / 2
    return np.asarray(above / (num_in * num_out), dtype=np.float64)


@kernel
def _superiority(cells_N_C: FloatArray, controls_N_R: FloatArray) -> DoubleArray:
    """P(control < cell) + P(control = cell) / 2 - 1/2; the controls of a gene are sorted."""
    num_genes, num_cells = cells_N_C.shape
    num_controls = controls_N_R.shape[1]
    effects_N_C = np.empty((num_genes, num_cells))
    for n in range(num_genes):
        controls_R = controls_N_R[n]
        below = np.searchsorted(controls_R, cells_N_C[n], side="left")
        not_above = np.searchsorted(controls_R, cells_N_C[n], side="right")
        for c in range(num_cells):
            effects_N_C[n, c] = (below[c] + not_above[c]) / (2.0 * num_controls) - 0.5
    return effects_N_C
