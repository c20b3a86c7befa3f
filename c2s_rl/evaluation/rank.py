"""Kendall's tau and Pearson's r between gene orders, and the paper's rank convention.

The reward (`rewards/kendall.py`) and the evaluation call the same functions, so that a policy is
judged by what it was trained on. What a missing value is worth (0? the worst score? abstain?) is
not decided here: a side without any order gives nan, and the caller says what that means.

Shape suffixes: B completions, P programs, N genes of a program, K genes of one cell, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.jit import kernel
from c2s_rl.types import IntArray

DoubleArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
UIntArray = npt.NDArray[np.uint32]


# Up to so many genes, counting all pairs in vector instructions is faster than sorting.
MOST_GENES_BY_PAIRS = 256


class TauVariant(StrEnum):
    """Which of Kendall's coefficients."""

    A = "a"
    """(n_c - n_d) / (n (n - 1) / 2), as the C2S-Scale paper prints it; ties pull it towards 0."""
    B = "b"
    """(n_c - n_d) / sqrt((n_0 - n_x) (n_0 - n_y)), tie-corrected; what scipy computes."""


def kendall_tau(x: npt.ArrayLike, y: npt.ArrayLike, *, variant: TauVariant | str) -> float:
    """Kendall's tau between two sets of paired values.

    n_c counts concordant and n_d discordant pairs; n_0 = n (n - 1) / 2; n_x and n_y count the
    pairs tied in x and in y.

    Args:
        x: [N] values, larger = later; only their order matters.
        y: [N] values paired with `x`.
        variant: 'b' corrects for ties, 'a' is the printed formula.

    Returns:
        tau in [-1, 1]; nan when a side is constant or holds a nan, in both variants: a constant
        side orders nothing, which is not the same as an order unrelated to the other one.

    Raises:
        ValueError: If the sides differ in length or have fewer than 2 values.

    Source: Kendall 1945, doi:10.1093/biomet/33.3.239; variant a: C2S-Scale 4.5.2.
    """
    x_N = np.asarray(x, dtype=np.float64)
    y_N = np.asarray(y, dtype=np.float64)
    _check_pair(x_N, y_N)
    return _tau(x_N, y_N, TauVariant(variant) is TauVariant.B)


def program_ranks(genes_K: IntArray, program_N: IntArray, num_vocabulary: int) -> IntArray:
    """Rank of every program gene in a cell sentence.

    A gene at position p (from 1) has rank p; all genes that the sentence lacks share rank K + 1.

    Args:
        genes_K: [K] vocabulary indices, highest expression first, no repeats.
        program_N: [N] vocabulary indices to rank.
        num_vocabulary: Number of genes that an index can name.

    Returns:
        [N] int32 ranks from 1 to K + 1, in the order of `program_N`.

    Raises:
        ValueError: If an index lies outside the vocabulary.

    Source: C2S-Scale 4.5.2 (950 genes generated: the other 28 landmarks share rank 951).
    """
    _check_indices(genes_K, num_vocabulary, "genes of a sentence")
    _check_indices(program_N, num_vocabulary, "genes of a program")
    position_V = np.zeros(num_vocabulary, dtype=np.int32)
    return _ranks(_int32(genes_K), _int32(program_N), position_V)


def program_tau(
    cells: Sequence[IntArray],
    target_genes_K: IntArray,
    program_N: IntArray,
    *,
    num_vocabulary: int,
    variant: TauVariant | str,
    control_genes_K: IntArray | None = None,
) -> DoubleArray:
    """Kendall's tau of many sentences against one target over a gene program, in one call.

    The case of one program of `programs_tau`, which says what the arguments mean.

    Returns:
        [B] tau in the order of `cells`; nan where a side is constant, for example when a sentence
        holds no program gene.

    Raises:
        ValueError: If the program has fewer than 2 genes or an index is outside the vocabulary.
    """
    taus_B: DoubleArray = programs_tau(
        cells,
        target_genes_K,
        [program_N],
        num_vocabulary=num_vocabulary,
        variant=variant,
        control_genes_K=control_genes_K,
    ).taus_P_B[0]
    return taus_B


@dataclass(frozen=True, eq=False)
class ProgramTaus:
    """Kendall's tau of B sentences on P programs."""

    taus_P_B: DoubleArray
    """[P, B] tau; nan where a side is constant."""
    written_P_B: IntArray
    """[P, B] genes of the program that the sentence holds."""


def programs_tau(
    cells: Sequence[IntArray],
    target_genes_K: IntArray,
    programs: Sequence[IntArray],
    *,
    num_vocabulary: int,
    variant: TauVariant | str,
    control_genes_K: IntArray | None = None,
) -> ProgramTaus:
    """Kendall's tau of many sentences against one target on several programs, in one call.

    Absolute form: tau(rank_generated, rank_target).
    Delta form (with a control): tau(rank_generated - rank_control, rank_target - rank_control),
    which asks for the direction of change, so that copying the control earns nothing.

    Args:
        cells: B sentences as vocabulary indices, each of its own length, no repeats.
        target_genes_K: [K] the target's genes, highest first.
        programs: P times [N] vocabulary indices of a program, N >= 2 and its own for each.
        num_vocabulary: V, number of genes that an index can name.
        variant: 'b' or 'a', see `kendall_tau`.
        control_genes_K: [K] the control cell's genes; None for the absolute form.

    Raises:
        ValueError: If a program has fewer than 2 genes or an index is outside the vocabulary.

    Source: C2S-Scale 4.5.2.
    """
    for program_N in programs:
        if len(program_N) < 2:
            raise ValueError(
                f"a program needs at least 2 genes to be ordered, got {len(program_N)}"
            )
    control = [] if control_genes_K is None else [control_genes_K]
    genes, indptr = _flatten([*cells, target_genes_K, *control])
    _check_indices(genes, num_vocabulary, "genes of a sentence")
    flat_programs, bounds = _flatten(programs)
    _check_indices(flat_programs, num_vocabulary, "genes of a program")
    is_b = TauVariant(variant) is TauVariant.B
    taus_P_B, written_P_B = _programs_tau(
        genes.view(np.uint32),
        indptr,
        flat_programs.view(np.uint32),
        bounds,
        num_vocabulary,
        len(control) > 0,
        is_b,
    )
    return ProgramTaus(taus_P_B, written_P_B)


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Pearson's r of two paired samples; nan when a side is constant.

    Raises:
        ValueError: If the sides differ in length or have fewer than 2 values.
    """
    x_N = np.asarray(x, dtype=np.float64)
    y_N = np.asarray(y, dtype=np.float64)
    _check_pair(x_N, y_N)
    return float(pearson_rows(x_N[None, :], y_N)[0])


def pearson_rows(x_B_N: npt.ArrayLike, y_N: npt.ArrayLike) -> DoubleArray:
    """Pearson's r of every row against one vector.

    Args:
        x_B_N: [B, N] samples.
        y_N: [N] what each row is compared with.

    Returns:
        [B] r in [-1, 1]; nan where a row or `y_N` is constant.
    """
    x = np.asarray(x_B_N, dtype=np.float64)
    y = np.asarray(y_N, dtype=np.float64)
    # Constancy is asked of the values themselves: a rounded mean leaves a constant row a tiny
    # spread, and its r would be noise instead of nan.
    is_constant_B = (x == x[:, :1]).all(axis=1) | bool((y == y[0]).all())
    x = x - x.mean(axis=1, keepdims=True)
    y = y - y.mean()
    norm_B = np.sqrt((x**2).sum(axis=1) * (y**2).sum())
    r_B = np.full(len(x), np.nan)
    np.divide(x @ y, norm_B, out=r_B, where=~is_constant_B)
    return np.clip(r_B, -1.0, 1.0)


def _check_pair(x_N: DoubleArray, y_N: DoubleArray) -> None:
    if x_N.ndim != 1 or x_N.shape != y_N.shape:
        raise ValueError(f"both sides must be of one length, got {x_N.shape} and {y_N.shape}")
    if len(x_N) < 2:
        raise ValueError(f"a correlation needs at least 2 values, got {len(x_N)}")


def _check_indices(genes_K: IntArray, num_vocabulary: int, what: str) -> None:
    if len(genes_K) and not 0 <= genes_K.min() <= genes_K.max() < num_vocabulary:
        raise ValueError(
            f"{what} must be vocabulary indices from 0 to {num_vocabulary - 1}, "
            f"got {genes_K.min()} to {genes_K.max()}"
        )


def _int32(values: IntArray) -> IntArray:
    return np.ascontiguousarray(values, dtype=np.int32)


def _flatten(cells: Sequence[IntArray]) -> tuple[IntArray, IndexArray]:
    """CSR-like pair (all genes, where each cell starts and ends)."""
    indptr = np.zeros(len(cells) + 1, dtype=np.int64)
    np.cumsum([len(cell) for cell in cells], out=indptr[1:])
    genes = np.concatenate(cells) if len(cells) else np.zeros(0, dtype=np.int32)
    return _int32(genes), indptr


@kernel
def _ranks(genes_K: IntArray, program_N: IntArray, position_V: IntArray) -> IntArray:
    """Ranks of the program; `position_V` is all zeros before and after, so that it is reused."""
    for k in range(len(genes_K)):
        position_V[genes_K[k]] = k + 1
    ranks_N = np.empty(len(program_N), dtype=np.int32)
    for n in range(len(program_N)):
        position = position_V[program_N[n]]
        ranks_N[n] = position if position > 0 else len(genes_K) + 1
    for k in range(len(genes_K)):
        position_V[genes_K[k]] = 0
    return ranks_N


@kernel
def _sort_counting_inversions(y: DoubleArray) -> int:
    """Sort `y` in place by bottom-up merging; return how many pairs stood in falling order."""
    n = len(y)
    spare = np.empty_like(y)
    num_inversions = 0
    width = 1
    while width < n:
        for start in range(0, n, 2 * width):
            middle = min(start + width, n)
            end = min(start + 2 * width, n)
            left, right = start, middle
            for k in range(start, end):
                if left < middle and (right >= end or y[left] <= y[right]):
                    spare[k] = y[left]
                    left += 1
                else:
                    spare[k] = y[right]
                    right += 1
                    num_inversions += middle - left
        y[:] = spare
        width *= 2
    return num_inversions


@kernel
def _tied_pairs(x: DoubleArray, y: DoubleArray) -> tuple[int, int]:
    """Pairs of equal x, and pairs equal in both, in values sorted by (x, y)."""
    ties_x, ties_xy, run_x, run_xy = 0, 0, 1, 1
    for i in range(1, len(x)):
        is_tied_x = x[i] == x[i - 1]
        is_tied_xy = is_tied_x and y[i] == y[i - 1]
        # The r-th member of a run is tied with the r - 1 before it.
        run_x = run_x + 1 if is_tied_x else 1
        run_xy = run_xy + 1 if is_tied_xy else 1
        ties_x += run_x - 1
        ties_xy += run_xy - 1
    return ties_x, ties_xy


@kernel
def _tau(x_N: DoubleArray, y_N: DoubleArray, is_b: bool) -> float:  # noqa: FBT001 - no keywords in numba
    """Knight's O(N log N) algorithm (doi:10.1080/01621459.1966.10480879): all-gene tau is cheap.

    n_c - n_d = n_0 - n_x - n_y + n_xy - 2 n_d, with n_d the inversions of y sorted by (x, y).
    """
    if np.isnan(x_N).any() or np.isnan(y_N).any():
        return np.nan
    n = len(x_N)
    order = np.argsort(y_N, kind="mergesort")
    order = order[np.argsort(x_N[order], kind="mergesort")]
    x = x_N[order]
    y = y_N[order]
    num_pairs = n * (n - 1) // 2
    ties_x, ties_xy = _tied_pairs(x, y)
    num_discordant = _sort_counting_inversions(y)
    ties_y, _ = _tied_pairs(y, y)
    if num_pairs in (ties_x, ties_y):
        return np.nan
    difference = num_pairs - ties_x - ties_y + ties_xy - 2 * num_discordant
    if not is_b:
        return difference / num_pairs
    tau = difference / np.sqrt(num_pairs - ties_x) / np.sqrt(num_pairs - ties_y)
    return float(min(1.0, max(-1.0, tau)))  # rounding may leave 1 + 2e-16


@kernel
def _tau_by_pairs(x_N: IntArray, y_N: IntArray, is_b: bool) -> float:  # noqa: FBT001 - no keywords in numba
    """Tau of whole numbers by counting every pair; without branches, so that it runs in vectors."""
    concordance, untied_x, untied_y = np.int32(0), np.int32(0), np.int32(0)
    for i in range(len(x_N)):
        x, y = x_N[i], y_N[i]
        for j in range(i):
            sign_x = np.int32(x > x_N[j]) - np.int32(x < x_N[j])
            sign_y = np.int32(y > y_N[j]) - np.int32(y < y_N[j])
            concordance += sign_x * sign_y
            untied_x += sign_x * sign_x
            untied_y += sign_y * sign_y
    if untied_x == 0 or untied_y == 0:
        return np.nan
    if not is_b:
        return concordance / (len(x_N) * (len(x_N) - 1) // 2)
    tau = concordance / np.sqrt(untied_x) / np.sqrt(untied_y)
    return float(min(1.0, max(-1.0, tau)))


@kernel
def _fill_ranks(genes_K: UIntArray, slot_V: UIntArray, ranks_U: IntArray) -> None:
    """Ranks of the genes that have a slot; place 0 takes all others, which spares a branch."""
    ranks_U[:] = len(genes_K) + 1
    for k in range(len(genes_K)):
        ranks_U[slot_V[genes_K[k]]] = k + 1


@kernel
def _programs_tau(
    genes: UIntArray,
    indptr: IndexArray,
    programs: UIntArray,
    bounds: IndexArray,
    num_vocabulary: int,
    has_control: bool,  # noqa: FBT001 - no keywords in numba
    is_b: bool,  # noqa: FBT001
) -> tuple[DoubleArray, IntArray]:
    """Sentences, then the target, then the control where there is one: [P, B] taus and counts.

    Indices are unsigned, which spares numba the check for negative ones.
    """
    slot_V = np.zeros(num_vocabulary, dtype=np.uint32)
    num_slots = 1
    for gene in programs:  # programs may share genes
        if slot_V[gene] == 0:
            slot_V[gene] = num_slots
            num_slots += 1
    slots = slot_V[programs]
    ranks_U = np.empty(num_slots, dtype=np.int32)
    target = len(indptr) - (3 if has_control else 2)
    _fill_ranks(genes[indptr[target] : indptr[target + 1]], slot_V, ranks_U)
    target_ranks = ranks_U[slots]
    control_ranks = np.zeros(len(programs), dtype=np.int32)
    if has_control:
        _fill_ranks(genes[indptr[target + 1] : indptr[target + 2]], slot_V, ranks_U)
        control_ranks = ranks_U[slots]
    target_ranks -= control_ranks
    taus_P_B = np.empty((len(bounds) - 1, target))
    written_P_B = np.zeros((len(bounds) - 1, target), dtype=np.int32)
    for b in range(target):
        length = indptr[b + 1] - indptr[b]
        _fill_ranks(genes[indptr[b] : indptr[b + 1]], slot_V, ranks_U)
        ranks = ranks_U[slots]
        for p in range(len(bounds) - 1):
            for n in range(bounds[p], bounds[p + 1]):
                written_P_B[p, b] += ranks[n] <= length
                ranks[n] -= control_ranks[n]
            x_N = ranks[bounds[p] : bounds[p + 1]]
            y_N = target_ranks[bounds[p] : bounds[p + 1]]
            if len(x_N) <= MOST_GENES_BY_PAIRS:
                taus_P_B[p, b] = _tau_by_pairs(x_N, y_N, is_b)
            else:
                taus_P_B[p, b] = _tau(x_N.astype(np.float64), y_N.astype(np.float64), is_b)
    return taus_P_B, written_P_B
