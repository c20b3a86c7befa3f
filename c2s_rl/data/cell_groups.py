"""Cells that share labels, and samples of several cells made of them.

Left out: pseudobulks of groups (`pseudobulk.py`).

Shape suffixes: C cells of a folder, S samples, k cells of one sample.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.data.cell_reader import CellReader
from c2s_rl.errors import DataError


@dataclass(frozen=True, eq=False)
class SampledRows:
    """Which cells make which sample."""

    rows_S_k: IndexArray
    """[S, k] rows of each sample."""
    names: tuple[str, ...]
    """[S] unique: the labels and the sample's number in its group."""
    labels: tuple[tuple[str, ...], ...]
    """[S] labels that the cells share."""
    num_unlabelled: int
    """Cells left out: they lack one of the labels."""
    num_left_over: int
    """Cells left out: too few remained for a sample."""


def sample_rows(cells: CellReader, columns: Sequence[str], size: int) -> SampledRows:
    """Cut the cells of every group into samples of k, in the order of the folder.

    Neighbours in the folder stay together, so that a range of samples lies in few parts of it.

    Args:
        cells: The cells.
        columns: obs columns whose labels make a group.
        size: k.

    Returns:
        Samples in the order of their first cells.

    Raises:
        DataError: If a column is unknown or no group has k cells.
    """
    key_C, groups = group_codes(cells, columns)
    is_labelled_C = key_C >= 0
    order = np.argsort(key_C, kind="stable")[np.count_nonzero(~is_labelled_C) :]
    found, starts, counts = np.unique(key_C[order], return_index=True, return_counts=True)
    pieces: list[IndexArray] = []
    numbered: list[tuple[int, int]] = []
    for key, start, count in zip(found.tolist(), starts.tolist(), counts.tolist(), strict=True):
        num = count // size
        pieces.append(order[start : start + num * size].reshape(num, size))
        numbered += [(key, number) for number in range(num)]
    if not numbered:
        raise DataError(
            f"a sample needs {size} cells with equal {', '.join(columns)}, got groups "
            f"of at most {int(counts.max(initial=0))} in {cells.folder}"
        )
    rows_S_k = np.concatenate(pieces)
    by_first_cell = np.argsort(rows_S_k[:, 0])
    ordered = [numbered[i] for i in by_first_cell.tolist()]
    return SampledRows(
        rows_S_k=rows_S_k[by_first_cell],
        names=tuple(f"{' | '.join(groups[key])} | {number}" for key, number in ordered),
        labels=tuple(groups[key] for key, _ in ordered),
        num_unlabelled=int(np.count_nonzero(~is_labelled_C)),
        num_left_over=int((counts % size).sum()),
    )


def group_codes(
    cells: CellReader, columns: Sequence[str]
) -> tuple[IndexArray, list[tuple[str, ...]]]:
    """Number the combinations of labels that occur.

    Returns:
        [C] number of each cell's combination, -1 where a label is missing; and the labels of each
        number, in alphabetical order.
    """
    parts = [cells.labels(column) for column in columns]
    key_C = np.zeros(len(cells), dtype=np.int64)
    is_missing_C = np.zeros(len(cells), dtype=np.bool_)
    for part in parts:
        key_C = key_C * len(part.categories) + part.codes_C
        is_missing_C |= part.codes_C < 0
    found, number_C = np.unique(key_C[~is_missing_C], return_inverse=True)
    result_C = np.full(len(cells), -1, dtype=np.int64)
    result_C[~is_missing_C] = number_C
    groups: list[tuple[str, ...]] = []
    for key in found.tolist():
        labels: list[str] = []
        for part in reversed(parts):
            key, code = divmod(key, len(part.categories))  # noqa: PLW2901
            labels.append(part.categories[code])
        groups.append(tuple(reversed(labels)))
    return result_C, groups


def matching_rows(cells: CellReader, where: Mapping[str, Collection[str]]) -> IndexArray:
    """Rows of the cells that have one of the named labels in every named column; all without any.

    Raises:
        DataError: If a column is unknown, a label does not occur in it, or no cell has them all.
    """
    is_wanted_C = np.ones(len(cells), dtype=np.bool_)
    for column, wanted in where.items():
        labels = cells.labels(column)
        for label in wanted:
            if label not in labels.categories:
                what = f"a label of {column}"
                raise DataError(unknown_name(what, label, labels.categories, str(cells.folder)))
        codes = [labels.categories.index(label) for label in wanted]
        is_wanted_C &= np.isin(labels.codes_C, codes)
    rows: IndexArray = np.flatnonzero(is_wanted_C)
    if not len(rows):
        named = {column: list(wanted) for column, wanted in where.items()}
        raise DataError(f"at least one cell must match, got none for {named} in {cells.folder}")
    return rows
