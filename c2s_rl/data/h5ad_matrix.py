"""The matrix of an .h5ad file, read a few rows at a time: CSR, CSC or dense, in bounded memory.

A CSC matrix lies by gene, so reading cells from it means turning it first; that is done once, in
two streamed passes into files of a temporary folder. Here only the layout is checked (bounds,
lengths, one entry a gene); what the numbers mean is checked in `values.py`.

Shapes: C cells, N columns, Z stored entries.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import numpy.typing as npt

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray
from c2s_rl.errors import C2SError, DataError
from c2s_rl.types import IntArray

DoubleArray = npt.NDArray[np.float64]

ENTRIES_PER_PASS = 4_000_000  # entries of a CSC matrix turned at a time: about 50 MB


@dataclass(frozen=True, eq=False)
class CsrChunk:
    """Consecutive rows of a matrix in compressed-row form."""

    start: int
    """Row of the file that the first row is."""
    indptr: IndexArray
    """[rows + 1] row bounds, from 0."""
    columns: IntArray
    """[Z] column of each stored entry, in 0..N-1, at most once a row."""
    values: DoubleArray
    """[Z] as stored: counts or log1p; may hold explicit zeros."""


class RowMatrix(Protocol):
    """A matrix that can be read by rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, columns."""

    def read_rows(self, start: int, stop: int) -> CsrChunk:
        """Read rows start..stop-1."""


class Sliceable(Protocol):
    """A one-dimensional array that lies in a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> npt.NDArray[np.generic]: ...


@contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """Turn what HDF5 says of a damaged file into one line; errors of the system pass through.

    Raises:
        DataError: If the file is truncated, not HDF5, or a part of it cannot be decompressed.
    """
    try:
        yield
    except OSError as error:
        # HDF5's own errors carry no number; a full disk or a missing permission does.
        if isinstance(error, C2SError) or error.errno is not None:
            raise
        reason = " ".join(str(error).split())
        raise DataError(
            f"a file of cells must be a whole HDF5 file, got {reason} in {path}"
        ) from error


def open_matrix(node: h5py.Group | h5py.Dataset, *, place: str, folder: Path) -> RowMatrix:
    """Make a matrix of an .h5ad file readable by rows.

    Args:
        node: The matrix's group (sparse) or dataset (dense).
        place: Matrix and file, for error messages.
        folder: An empty folder for the turned copy of a CSC matrix.

    Raises:
        DataError: If the encoding is unknown or the sparse arrays contradict each other.
    """
    if isinstance(node, h5py.Dataset):
        if node.ndim != 2 or node.dtype.kind not in "fiub":
            raise DataError(
                f"a matrix must be two-dimensional and numeric, got {node.ndim} dimensions "
                f"of {node.dtype} in {place}"
            )
        return DenseMatrix(node)
    # Files from before anndata 0.7 name the format 'csr' in another attribute.
    encoding = str(node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", "none")))
    shape_attribute = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    kind = encoding.removesuffix("_matrix")
    if kind not in ("csr", "csc") or shape_attribute is None:
        raise DataError(f"a matrix must be csr, csc or dense, got encoding {encoding!r} in {place}")
    shape = (int(shape_attribute[0]), int(shape_attribute[1]))
    if kind == "csr":
        indptr = _checked_indptr(node, shape[0], place)
        return CsrMatrix(shape, indptr, node["indices"], node["data"], place=place)
    return _turn_csc(node, shape, place=place, folder=folder)


class DenseMatrix:
    """A dense dataset; zeros are left out of the rows."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, columns."""
        num_rows, num_columns = self._dataset.shape
        return int(num_rows), int(num_columns)

    def read_rows(self, start: int, stop: int) -> CsrChunk:
        """Read rows start..stop-1; not-a-number counts as stored, so that it is noticed."""
        block = np.asarray(self._dataset[start:stop], dtype=np.float64)
        rows, columns = np.nonzero(block)
        indptr = np.zeros(stop - start + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=stop - start), out=indptr[1:])
        return CsrChunk(start, indptr, columns.astype(np.int32), block[rows, columns])


class CsrMatrix:
    """Compressed rows whose entries stay in the file."""

    def __init__(
        self,
        shape: tuple[int, int],
        indptr: IndexArray,
        columns: Sliceable,
        values: Sliceable,
        *,
        place: str,
    ) -> None:
        self.shape = shape
        self._indptr = indptr
        self._columns = columns
        self._values = values
        self._place = place

    def read_rows(self, start: int, stop: int) -> CsrChunk:
        """Read rows start..stop-1.

        Raises:
            DataError: If a column index is outside the matrix or repeats in a row.
        """
        first, last = int(self._indptr[start]), int(self._indptr[stop])
        columns = np.asarray(self._columns[first:last])
        _check_range(columns, self.shape[1], what="column", place=self._place)
        chunk = CsrChunk(
            start,
            self._indptr[start : stop + 1] - first,
            columns.astype(np.int32),
            np.asarray(self._values[first:last], dtype=np.float64),
        )
        row = _row_with_repeat(chunk.indptr, chunk.columns, self.shape[1])
        if row >= 0:
            raise DataError(
                "a sparse row must hold each gene once, got a repeated column in "
                f"row {start + row} of {self._place}"
            )
        return chunk


def _checked_indptr(group: h5py.Group, num_major: int, place: str) -> IndexArray:
    """Read the bounds of a sparse matrix, checked against its other two arrays."""
    missing = [name for name in ("data", "indices", "indptr") if name not in group]
    if missing:
        raise DataError(
            f"a sparse matrix must hold data, indices, indptr, got no {missing[0]} in {place}"
        )
    indptr = np.asarray(group["indptr"][:], dtype=np.int64)
    num_values, num_indices = len(group["data"]), len(group["indices"])
    if len(indptr) != num_major + 1:
        raise DataError(
            f"indptr must hold {num_major + 1} bounds, one more than its rows or columns, "
            f"got {len(indptr)} in {place}"
        )
    if indptr[0] != 0 or np.any(np.diff(indptr) < 0):
        raise DataError(f"indptr must start at 0 and never fall, got otherwise in {place}")
    if not indptr[-1] == num_values == num_indices:
        raise DataError(
            f"the last bound must be the number of entries, got {indptr[-1]} with {num_values} "
            f"values and {num_indices} indices in {place}"
        )
    return indptr


def _check_range(indices: npt.NDArray[np.generic], size: int, *, what: str, place: str) -> None:
    if len(indices) == 0:
        return
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= size:
        wrong = low if low < 0 else high
        raise DataError(f"a sparse {what} index must be in 0..{size - 1}, got {wrong} in {place}")


@kernel
def _row_with_repeat(indptr: IndexArray, columns: IntArray, num_columns: int) -> int:
    """Return the first row that names a column twice, or -1."""
    last_row = np.full(num_columns, -1, dtype=np.int64)
    for row in range(len(indptr) - 1):
        for entry in range(indptr[row], indptr[row + 1]):
            if last_row[columns[entry]] == row:
                return row
            last_row[columns[entry]] = row
    return -1


def _turn_csc(group: h5py.Group, shape: tuple[int, int], *, place: str, folder: Path) -> CsrMatrix:
    """Turn compressed columns into compressed rows by a counting sort on disk."""
    column_bounds = _checked_indptr(group, shape[1], place)
    rows, values = group["indices"], group["data"]
    num_entries = int(column_bounds[-1])
    counts = np.zeros(shape[0], dtype=np.int64)
    for first in range(0, num_entries, ENTRIES_PER_PASS):
        block = np.asarray(rows[first : first + ENTRIES_PER_PASS])
        _check_range(block, shape[0], what="row", place=place)
        counts += np.bincount(block, minlength=shape[0])
    indptr = np.zeros(shape[0] + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    # A memory map cannot be empty.
    size = (max(num_entries, 1),)
    turned_columns = np.memmap(folder / "columns", dtype=np.int32, mode="w+", shape=size)
    turned_values = np.memmap(folder / "values", dtype=np.float64, mode="w+", shape=size)
    free_slot = indptr[:-1].copy()
    for first in range(0, num_entries, ENTRIES_PER_PASS):
        last = min(first + ENTRIES_PER_PASS, num_entries)
        entry_columns = np.searchsorted(column_bounds, np.arange(first, last), side="right") - 1
        slots = _take_slots(np.asarray(rows[first:last], dtype=np.int64), free_slot)
        turned_columns[slots] = entry_columns
        turned_values[slots] = np.asarray(values[first:last], dtype=np.float64)
    return CsrMatrix(shape, indptr, turned_columns, turned_values, place=place)


@kernel
def _take_slots(rows: IndexArray, free_slot: IndexArray) -> IndexArray:
    """Give each entry the next free place of its row; advances `free_slot`."""
    slots = np.empty(len(rows), dtype=np.int64)
    for entry in range(len(rows)):
        slots[entry] = free_slot[rows[entry]]
        free_slot[rows[entry]] += 1
    return slots
