"""Rank to expression: one straight line per data set, which turns a sentence back into a cell.

Expression falls about linearly with log10(rank) in single cells; on some bulk assays a line in
the rank itself fits better, so the form is chosen per data set and kept with it. What is left
out: a model per cell or per cell type, which a generated sentence could not be matched to, and
many sentences at once, with repeats and unknown words (`inverse.py`).

Shapes: C cells, Z entries of all cells, K genes of one cell, N genes of the vocabulary, R ranks.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray
from c2s_rl.errors import DataError
from c2s_rl.types import FloatArray, IntArray

# Sums are kept in fixed point, so that they do not depend on the order of the cells. With
# log1p values below 16 they overflow at 10^8 cells a rank.
VALUE_UNIT = 2.0**-32
SQUARE_UNIT = 2.0**-28

# Where runs of equal values end, and what the values are.
RunArrays = tuple[IndexArray, FloatArray]
StepArrays = tuple[IndexArray, IndexArray, IndexArray]


class RankForm(StrEnum):
    """What expression is a straight line in."""

    LOG_RANK = "log_rank"
    LINEAR = "linear"


@dataclass(frozen=True)
class RankModel:
    """Expression at a rank: intercept + slope * log10(rank), or * rank; ranks count from 1."""

    form: RankForm
    slope: float
    """log1p(CP10k) per decade of rank (`log_rank`) or per rank (`linear`); negative."""
    intercept: float
    """log1p(CP10k) at log10(rank) = 0, or at rank 0."""
    r2: float
    """Share of the pooled variance of single values that the line explains."""

    def expression(self, num_ranks: int) -> FloatArray:
        """Return [num_ranks] log1p(CP10k) values at ranks 1..num_ranks, floored at 0."""
        line = self.intercept + self.slope * _abscissa(num_ranks, self.form)
        return np.maximum(line, 0.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class RankSums:
    """What a line needs to know of many cells: exact sums per rank, which add up over chunks."""

    counts_R: npt.NDArray[np.int64]
    """[R] cells that have a gene at this rank."""
    values_R: npt.NDArray[np.int64]
    """[R] sum of their values, in units of VALUE_UNIT."""
    squares_R: npt.NDArray[np.int64]
    """[R] sum of their squared values, in units of SQUARE_UNIT."""

    def __add__(self, other: "RankSums") -> "RankSums":
        """Return the sums over the cells of both."""
        size = max(len(self.counts_R), len(other.counts_R))
        return RankSums(
            _padded(self.counts_R, size) + _padded(other.counts_R, size),
            _padded(self.values_R, size) + _padded(other.values_R, size),
            _padded(self.squares_R, size) + _padded(other.squares_R, size),
        )


class RankSteps:
    """Adds up `RankSums` while cells come in.

    A cell has few different values, so a run of equal ones is added where it starts and taken off
    where it ends, not at each of its ranks: what is kept are the steps from one rank to the next.
    Whole numbers: what is added at one end is taken off at the other, exactly.
    """

    def __init__(self) -> None:
        self.arrays = _no_steps(0)
        """Steps of counts, values and squares, of as many ranks as there is room for, and 1."""

    def reserve(self, num_ranks: int) -> None:
        """Make room for cells of so many genes."""
        room = len(self.arrays[0]) - 1
        if num_ranks > room:
            former, self.arrays = self.arrays, _no_steps(max(num_ranks, 2 * room))
            for steps, old in zip(self.arrays, former, strict=True):
                steps[: len(old)] = old

    def add(self, indptr: IndexArray, values: FloatArray) -> None:
        """Add ranked cells.

        Args:
            indptr: [C + 1] cell bounds.
            values: [Z] log1p(CP10k), falling within a cell.
        """
        self.reserve(int(np.diff(indptr).max(initial=0)))
        _add_cells(indptr, values, self.arrays)

    def sums(self) -> RankSums:
        """Return the sums at each rank that a cell has reached."""
        counts_R, values_R, squares_R = (np.cumsum(steps) for steps in self.arrays)
        num_ranks = int(np.count_nonzero(counts_R))
        return RankSums(counts_R[:num_ranks], values_R[:num_ranks], squares_R[:num_ranks])


def rank_sums(indptr: IndexArray, values: FloatArray) -> RankSums:
    """Sum values and squares per rank over ranked cells; see `RankSteps.add`."""
    steps = RankSteps()
    steps.add(indptr, values)
    return steps.sums()


def _no_steps(num_ranks: int) -> StepArrays:
    counts, sums, squares = np.zeros((3, num_ranks + 1), dtype=np.int64)
    return counts, sums, squares


@kernel
def _add_cells(indptr: IndexArray, values: FloatArray, steps: StepArrays) -> None:
    longest = len(steps[0]) - 1
    ends, numbers = np.empty(longest, dtype=np.int64), np.empty(longest, dtype=np.float32)
    for cell in range(len(indptr) - 1):
        row = values[indptr[cell] : indptr[cell + 1]]
        run = 0
        for rank in range(len(row)):
            if rank + 1 == len(row) or row[rank + 1] != row[rank]:
                ends[run], numbers[run] = rank + 1, row[rank]
                run += 1
        add_runs(ends[:run], numbers[:run], values[:0], steps)


@kernel
def add_runs(ends: IndexArray, numbers: FloatArray, values: FloatArray, steps: StepArrays) -> None:
    """Add one cell.

    Args:
        ends: [runs] one past the last rank of each run of equal values, ranks from 0.
        numbers: [runs] their values, falling.
        values: [ranks of the cell] takes the value at each rank, or is empty.
        steps: See `RankSteps`.
    """
    counts, sums, squares = steps
    first = 0
    for run in range(len(ends)):
        end, number = ends[run], np.float64(numbers[run])
        in_units = np.int64(np.rint(number / VALUE_UNIT))
        square = np.int64(np.rint(number * number / SQUARE_UNIT))
        sums[first] += in_units
        sums[end] -= in_units
        squares[first] += square
        squares[end] -= square
        if len(values) > 0:
            values[first:end] = numbers[run]
        first = end
    counts[0] += 1
    counts[first] -= 1


def fit_rank_sums(sums: RankSums, *, form: RankForm) -> RankModel:
    """Fit the line by least squares over all (rank, value) pairs of all cells.

    Args:
        sums: Sums per rank of every cell.
        form: What the line is straight in.

    Returns:
        Slope, intercept and pooled R^2; a flat line when there is only one rank.

    Raises:
        DataError: If no cell has an expressed gene.

    Source:
        C2S-Scale (bioRxiv 2025.04.14.648850), section 4.2.
    """
    counts = sums.counts_R.astype(np.float64)
    num = float(counts.sum())
    if num == 0:
        raise DataError("a rank model must be fitted to at least one expressed gene, got none")
    values = sums.values_R * VALUE_UNIT
    x = _abscissa(len(counts), form)
    mean_x, mean_y = float(counts @ x) / num, float(values.sum()) / num
    spread_x = float(counts @ (x - mean_x) ** 2)
    joint = float((x - mean_x) @ (values - counts * mean_y))
    spread_y = float(sums.squares_R.sum()) * SQUARE_UNIT - num * mean_y**2
    slope = joint / spread_x if spread_x > 0 else 0.0
    r2 = slope * joint / spread_y if spread_y > 0 else 0.0
    return RankModel(form=form, slope=slope, intercept=mean_y - slope * mean_x, r2=r2)


def fit_rank_model(indptr: IndexArray, values: FloatArray, *, form: RankForm) -> RankModel:
    """Fit the rank model of ranked cells; see `fit_rank_sums`.

    Args:
        indptr: [C + 1] cell bounds.
        values: [Z] log1p(CP10k), falling within a cell.
        form: What the line is straight in.

    Raises:
        DataError: If no cell has an expressed gene.
    """
    return fit_rank_sums(rank_sums(indptr, values), form=form)


def sentence_to_expression(
    genes_K: IntArray, rank_model: RankModel, num_genes_in_vocabulary: int
) -> FloatArray:
    """Turn a sentence back into an expression vector.

    Args:
        genes_K: [K] vocabulary indices, highest expression first, each at most once.
        rank_model: The line of the data set.
        num_genes_in_vocabulary: N.

    Returns:
        [N] log1p(CP10k); 0 for genes that are not in the sentence.
    """
    expression = np.zeros(num_genes_in_vocabulary, dtype=np.float32)
    expression[genes_K] = rank_model.expression(len(genes_K))
    return expression


def _abscissa(num_ranks: int, form: RankForm) -> npt.NDArray[np.float64]:
    ranks = np.arange(1, num_ranks + 1, dtype=np.float64)
    return np.log10(ranks) if form is RankForm.LOG_RANK else ranks


def _padded(sums: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    return np.pad(sums, (0, size - len(sums)))
