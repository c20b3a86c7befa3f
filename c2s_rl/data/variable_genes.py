"""Ranking genes by how much they vary for their mean: scanpy's dispersion flavors, from sums alone.

scanpy ranks a matrix in memory; here means and variances come from a `GeneSurvey`, which any
number of cells add up to. Left out: flavor seurat_v3 (see `gene_stats.py`).

Shapes: M genes that are ranked, B batches.
"""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import norm

from c2s_rl.cells.rank import IndexArray
from c2s_rl.data.gene_stats import (
    DETECTED,
    SQUARE_HIGH,
    UNITS_PER_ONE,
    VALUE_HIGH,
    Flavor,
    GeneSurvey,
    VariableGenesConfig,
    exact_sums,
)
from c2s_rl.errors import DataError

DoubleArray = npt.NDArray[np.float64]

NUM_BINS = 20  # of the mean, for seurat; cell_ranger takes percentiles (scanpy's defaults)
TINY_MEAN = 1e-12  # what scanpy writes for a mean of 0
MAD_SCALE = float(norm.ppf(0.75))  # median absolute deviation of a standard normal

_logger = logging.getLogger(__name__)


def most_variable(
    survey: GeneSurvey,
    genes: IndexArray,
    config: VariableGenesConfig,
    symbols: Sequence[str],
    *,
    place: str,
) -> IndexArray:
    """Rank genes as scanpy.pp.highly_variable_genes does with `n_top_genes`.

    seurat:       log(var / mean) of the expression, less its mean over genes of a like mean, over
                  their standard deviation
    cell_ranger:  var / mean of the logarithms, less their median, over their scaled median
                  absolute deviation

    Genes as good as the last one that is kept are kept too; with batches, exactly `num_genes` are.

    Args:
        survey: Of all cells, with the moments of `config.flavor`.
        genes: [M] vocabulary indices to choose from.
        config: How many, and by which flavor.
        symbols: [N] names of all genes, which order equal ones where there are batches.
        place: Where the cells come from, for messages.

    Returns:
        Rising positions in `genes`.

    Raises:
        DataError: If too many genes have the same mean to be binned.

    Source:
        scanpy 1.11.5, `_highly_variable_genes.py` (BSD-3): Satija 2015, Zheng 2017.
    """
    if survey.flavor is not config.flavor:
        raise ValueError(f"a survey must be for {config.flavor}, got one for {survey.flavor}")
    if config.num_genes > len(genes):
        _logger.warning(
            "variable_genes.num_genes is %d, but only %d genes are left in %s: all that vary are "
            "kept",
            config.num_genes,
            len(genes),
            place,
        )
    if config.batch_column is None:
        scores = _scores(survey, "", genes, config.flavor, place)
        chosen: IndexArray = np.flatnonzero(_is_top(scores, config.num_genes))
        return chosen
    num_chosen, mean_scores = _over_batches(survey, genes, config, place)
    names = np.array([symbols[gene] for gene in genes])
    order = np.lexsort((names, -mean_scores, -num_chosen))
    return np.sort(order[: config.num_genes])


def _over_batches(
    survey: GeneSurvey, genes: IndexArray, config: VariableGenesConfig, place: str
) -> tuple[IndexArray, DoubleArray]:
    """Return [M] the number of batches that choose each gene, and its mean score over batches."""
    names = sorted(survey.sums_B)
    scores = np.zeros((len(names), len(genes)))  # scanpy's score of a gene that no cell expresses
    num_chosen = np.zeros(len(genes), dtype=np.int64)
    for row, name in enumerate(names):
        expressed = np.flatnonzero(survey.sums_B[name][DETECTED][genes] > 0)
        of_batch = _scores(survey, name, genes[expressed], config.flavor, place)
        scores[row, expressed] = of_batch
        num_chosen[expressed[_is_top(of_batch, config.num_genes)]] += 1
    # Where a gene does not vary in a batch it has no score there: scanpy's mean leaves it out.
    mean_scores = pd.DataFrame(scores).mean(axis=0).fillna(-np.inf).to_numpy()
    return num_chosen, mean_scores


def _scores(
    survey: GeneSurvey, batch: str, genes: IndexArray, flavor: Flavor, place: str
) -> DoubleArray:
    """Return [M] normalised dispersions; nan where a gene has none."""
    means, variances = _moments(survey.sums_B[batch][:, genes], survey.num_cells_B[batch])
    means[means == 0] = TINY_MEAN
    dispersions = variances / means
    if flavor is Flavor.SEURAT:
        dispersions[dispersions == 0] = np.nan
        dispersions, means = np.log(dispersions), np.log1p(means)
    bins = _bins(means, flavor, place)
    grouped = pd.Series(dispersions).groupby(bins, observed=True)
    if flavor is Flavor.SEURAT:
        centre, spread = grouped.transform("mean"), grouped.transform("std")
        is_alone = spread.isna()  # the only gene of its bin scores 1
        spread, centre = spread.where(~is_alone, centre), centre.where(~is_alone, 0.0)
    else:
        centre = grouped.transform("median")
        deviations = (pd.Series(dispersions) - centre).abs() / MAD_SCALE
        spread = deviations.groupby(bins, observed=True).transform("median")
    with np.errstate(divide="ignore", invalid="ignore"):
        scores: DoubleArray = (dispersions - centre.to_numpy()) / spread.to_numpy()
    return scores


def _moments(sums: IndexArray, num_cells: int) -> tuple[DoubleArray, DoubleArray]:
    """Return [M] means and unbiased variances, each rounded once from exact integers."""
    values, squares = exact_sums(sums, VALUE_HIGH), exact_sums(sums, SQUARE_HIGH)
    per_mean, pairs = num_cells * UNITS_PER_ONE, num_cells * max(num_cells - 1, 1)
    variances = [
        max(num_cells * square * UNITS_PER_ONE - value**2, 0) / (pairs * UNITS_PER_ONE**2)
        for value, square in zip(values, squares, strict=True)
    ]
    return np.array([value / per_mean for value in values]), np.array(variances)


def _bins(means: DoubleArray, flavor: Flavor, place: str) -> pd.Categorical:
    edges: int | DoubleArray = NUM_BINS
    if flavor is Flavor.CELL_RANGER:
        edges = np.r_[-np.inf, np.percentile(means, np.arange(10, 105, 5)), np.inf]
    try:
        return pd.cut(means, bins=edges)
    except ValueError as error:
        raise DataError(
            f"flavor {flavor} needs genes of {NUM_BINS} different means, got too many alike in "
            f"{place} ({len(means)} genes); raise qc.min_cells_per_gene or take flavor seurat"
        ) from error


def _is_top(scores: DoubleArray, num: int) -> npt.NDArray[np.bool_]:
    """Tell which scores are at least the num-th highest; nan never is."""
    ranked = np.sort(scores[~np.isnan(scores)])[::-1]
    if not len(ranked):
        return np.zeros(len(scores), dtype=np.bool_)
    is_top: npt.NDArray[np.bool_] = (
        np.nan_to_num(scores, nan=-np.inf) >= ranked[min(num, len(ranked)) - 1]
    )
    return is_top
