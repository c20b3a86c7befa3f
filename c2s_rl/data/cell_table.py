"""Ranked cells in memory, and cutting and joining them.

`CellBuffer` is for who gathers many tables one after another.

Shapes: C cells, K genes of one cell, Z ranked genes of all cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from c2s_rl.cells.rank import IndexArray
from c2s_rl.types import FloatArray, IntArray

TextArray = npt.NDArray[np.str_]

# Memory that nothing was written to costs nothing; what was written is copied when it gets short.
GROWTH = 8


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


class CellBuffer:
    """Gathers cells table after table in the same memory: fresh pages cost as much as ranking."""

    def __init__(self, *, has_values: bool) -> None:
        """Start empty.

        Args:
            has_values: Keep expression too; else the tables' values are empty.
        """
        self._has_values = has_values
        self._genes = np.empty(0, dtype=np.int32)
        self._values = np.empty(0, dtype=np.float32)
        self._size = 0
        self._tables: list[CellTable] = []

    def room(self, num_entries: int) -> tuple[IntArray, FloatArray]:
        """Return memory for genes and values of cells to come; `add` takes what is written there.

        Args:
            num_entries: Genes at most.
        """
        stop = self._size + num_entries
        if stop > len(self._genes):
            former = self._genes[: self._size], self._values[: self._size]
            self._genes = np.empty(GROWTH * stop, dtype=np.int32)
            self._values = np.empty(GROWTH * stop if self._has_values else 0, dtype=np.float32)
            self._genes[: self._size], self._values[: self._size] = former
        return self._genes[self._size : stop], self._values[self._size : stop]

    def add(
        self,
        cell_ids: tuple[str, ...],
        lengths: IndexArray,
        *,
        obs: dict[str, TextArray],
        source_rows: IndexArray,
    ) -> None:
        """Take cells whose genes are at the start of the room that was given last.

        Args:
            cell_ids: [C]
            lengths: [C] genes of each.
            obs: Column name to [C] labels; '' where missing.
            source_rows: [C] rows of the source file.
        """
        indptr = np.cumsum([0, *lengths], dtype=np.int64)
        none = self._genes[:0], self._values[:0]
        self._tables.append(CellTable(cell_ids, indptr, *none, obs, source_rows))
        self._size += int(indptr[-1])

    def taken(self) -> CellTable:
        """Return the cells, at least one `add` of them, and start again.

        Genes and values hold until the next `room`.
        """
        genes, values = self._genes[: self._size], self._values[: self._size]
        table = replace(concatenated(self._tables), genes=genes, values=values)
        self._size, self._tables = 0, []
        return table
