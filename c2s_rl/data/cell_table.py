"""Ranked cells in memory, and cutting and joining them.

`Joiner` is for who joins many tables one after another.

Shapes: C cells, K genes of one cell, Z ranked genes of all cells.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.rank import IndexArray
from c2s_rl.types import FloatArray, IntArray

TextArray = npt.NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class CellTable:
    """Ranked cells in memory."""

    cell_ids: tuple[str, ...]
    """[C]"""
    indptr: IndexArray
    """[C + 1] cell i holds entries indptr[i] to indptr[i + 1]."""
    genes: IntArray
    """[Z] vocabulary indices, highest expression first within a cell."""
    values: FloatArray
    """[Z] log1p(CP10k), falling within a cell."""
    obs: dict[str, TextArray] = field(default_factory=dict)
    """Column name to [C] labels; '' where missing."""
    source_rows: IndexArray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """[C] row of the source file; empty when it was not asked for."""

    def __len__(self) -> int:
        return len(self.cell_ids)

    def genes_of(self, cell: int) -> IntArray:
        """Return [K] vocabulary indices of one cell, highest first."""
        return self.genes[self.indptr[cell] : self.indptr[cell + 1]]

    def values_of(self, cell: int) -> FloatArray:
        """Return [K] log1p(CP10k) of one cell, falling."""
        return self.values[self.indptr[cell] : self.indptr[cell + 1]]


def sliced(cells: CellTable, start: int, stop: int) -> CellTable:
    """Return cells start..stop-1."""
    first, last = cells.indptr[start], cells.indptr[stop]
    return CellTable(
        cell_ids=cells.cell_ids[start:stop],
        indptr=cells.indptr[start : stop + 1] - first,
        genes=cells.genes[first:last],
        values=cells.values[first:last],
        obs={name: labels[start:stop] for name, labels in cells.obs.items()},
        source_rows=cells.source_rows[start:stop],
    )


def concatenated(tables: Sequence[CellTable]) -> CellTable:
    """Return the cells of at least one table, in order; all have the same obs columns."""
    lengths = [np.diff(table.indptr) for table in tables]
    return CellTable(
        cell_ids=tuple(chain.from_iterable(table.cell_ids for table in tables)),
        indptr=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
        genes=np.concatenate([table.genes for table in tables]),
        values=np.concatenate([table.values for table in tables]),
        obs={name: np.concatenate([table.obs[name] for table in tables]) for name in tables[0].obs},
        source_rows=np.concatenate([table.source_rows for table in tables]),
    )


class Joiner:
    """Joins tables, time after time in the same memory: fresh pages cost as much as ranking."""

    def __init__(self) -> None:
        self._genes = np.empty(0, dtype=np.int32)
        self._values = np.empty(0, dtype=np.float32)

    def joined(self, tables: Iterable[CellTable]) -> CellTable:
        """Return what `concatenated` does; its genes and values hold until the next call.

        Args:
            tables: At least one. None is kept, so that the next may be made where it was.
        """
        without_genes: list[CellTable] = []
        size = 0
        for table in tables:
            stop = size + len(table.genes)
            self._reserve(stop, size)
            self._genes[size:stop] = table.genes
            self._values[size:stop] = table.values
            without_genes.append(replace(table, genes=self._genes[:0], values=self._values[:0]))
            size = stop
        genes, values = self._genes[:size], self._values[:size]
        return replace(concatenated(without_genes), genes=genes, values=values)

    def _reserve(self, size: int, num_filled: int) -> None:
        """Make room for `size` entries; the first `num_filled` stay."""
        if size <= len(self._genes):
            return
        former = self._genes[:num_filled], self._values[:num_filled]
        self._genes = np.empty(2 * size, dtype=np.int32)
        self._values = np.empty(2 * size, dtype=np.float32)
        self._genes[:num_filled], self._values[:num_filled] = former
