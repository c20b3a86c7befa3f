"""The matrix of an .h5ad file, read a few rows at a time: CSR, CSC or dense, in bounded memory.

A CSC matrix lies by gene, so reading cells from it means turning it first; that is done once, in
two streamed passes into files of the scratch folder. Here only the layout is checked (bounds,
lengths, one entry a gene); what the numbers mean is checked in `values.py`.

Shapes: C cells, N columns, Z stored entries.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import numpy.typing as npt

from c2s_rl.cells.jit import kernel
from c2s_rl.cells.rank import IndexArray
from c2s_rl.data.hdf5_chunks import unpacked
from c2s_rl.data.hdf5_trust import require_stored
from c2s_rl.data.scratch import ArrayFile, made_once, new_array_file
from c2s_rl.errors import C2SError, DataError
from c2s_rl.types import IntArray

DoubleArray = npt.NDArray[np.float64]
ValueArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]

ENTRIES_PER_PASS = 4_000_000  # entries of a CSC matrix turned at a time: about 50 MB
# The arrays of a sparse matrix and numpy's letters for the types that each may have.
ARRAY_KINDS = {"data": "fiub", "indices": "iu", "indptr": "iu"}
TURNED = ("bounds.npy", "columns.npy", "values.npy")


@dataclass(frozen=True, eq=False)
class CsrChunk:
    """Consecutive rows of a matrix in compressed-row form."""

    start: int
    """Row of the file that the first row is."""
    indptr: IndexArray
    """[rows + 1] row bounds, from 0."""
    columns: IntArray
    """[Z] column of each stored entry, in 0..N-1, at most once a row."""
    values: ValueArray
    """[Z] as stored, explicit zeros too; in 32 bits where they hold every number of the type."""


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
    except (OSError, RuntimeError, KeyError) as error:
        # HDF5's own errors carry no number; a full disk or a missing permission does. Of a link
        # that leads nowhere h5py says a KeyError or a RuntimeError.
        if isinstance(error, C2SError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        reason = " ".join(str(error).split())
        raise DataError(
            f"a file of cells must be a whole HDF5 file, got {reason} in {path}"
        ) from error


def open_matrix(
    node: h5py.Group | h5py.Dataset, *, path: Path, place: str, scratch: Path
) -> RowMatrix:
    """Make a matrix of an .h5ad file readable by rows.

    Args:
        node: The matrix's group (sparse) or dataset (dense).
        path: The file.
        place: Matrix and file, for error messages.
        scratch: Folder for the turned copy of a CSC matrix; see `made_once`.

    Raises:
        DataError: If the encoding is unknown or the sparse arrays contradict each other.
    """
    if isinstance(node, h5py.Dataset):
        if node.ndim != 2 or node.dtype.kind not in "fiub":
            raise DataError(
                f"a matrix must be two-dimensional and numeric, got {node.ndim} dimensions "
                f"of {node.dtype} in {place}"
            )
        require_stored(node, place)
        return DenseMatrix(node)
    return open_sparse(node, path=path, place=place, scratch=scratch)


def open_sparse(node: h5py.Group, *, path: Path, place: str, scratch: Path) -> "CsrMatrix":
    """Make a sparse matrix of anndata's layout readable by rows, of an HDF5 or a zarr group.

    Args:
        node: The matrix's group.
        path: The file.
        place: Matrix and file, for error messages.
        scratch: Folder for the turned copy of a CSC matrix; see `made_once`.

    Raises:
        DataError: If the encoding is unknown or the sparse arrays contradict each other.
    """
    # Files from before anndata 0.7 name the format 'csr' in another attribute.
    encoding = str(node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", "none")))
    shape_attribute = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    kind = encoding.removesuffix("_matrix")
    if kind not in ("csr", "csc") or shape_attribute is None:
        raise DataError(f"a matrix must be csr, csc or dense, got encoding {encoding!r} in {place}")
    shape = as_shape(shape_attribute, place)
    if kind == "csc":
        turn = partial(_turn_csc, node, shape, place)
        folder = made_once(scratch, path, f"{node.name} by rows", turn)
        bounds, columns, values = (np.load(folder / name, mmap_mode="r") for name in TURNED)
        return CsrMatrix(shape, bounds, columns, values, place=place)
    check_sizes(node, shape[0], place)
    columns, values = node["indices"], node["data"]
    if isinstance(columns, h5py.Dataset):
        columns, values = unpacked(columns), unpacked(values)
    return CsrMatrix(shape, node["indptr"], columns, values, place=place)


def as_shape(stored: npt.ArrayLike, place: str) -> tuple[int, int]:
    """Return the shape that a sparse matrix says it has.

    Raises:
        DataError: If it is not two whole numbers of 0 or more.
    """
    numbers = np.asarray(stored)
    is_numeric = numbers.shape == (2,) and numbers.dtype.kind in "iuf"
    # Not-a-number is not equal to itself, and infinity is no size.
    if not is_numeric or not all(n >= 0 and n == n // 1 for n in numbers.tolist()):
        raise DataError(
            f"the shape of a sparse matrix must be two whole numbers, got {numbers.tolist()} in "
            f"{place}"
        )
    num_major, num_minor = numbers.tolist()
    return int(num_major), int(num_minor)


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
        block = as_values(np.asarray(self._dataset[start:stop]))
        rows, columns = np.nonzero(block)
        indptr = np.zeros(stop - start + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=stop - start), out=indptr[1:])
        return CsrChunk(start, indptr, columns.astype(np.int32), block[rows, columns])


class CsrMatrix:
    """Compressed rows that stay in the file, their bounds too."""

    def __init__(
        self,
        shape: tuple[int, int],
        bounds: Sliceable,
        columns: Sliceable,
        values: Sliceable,
        *,
        place: str,
    ) -> None:
        self.shape = shape
        self._bounds = bounds
        self._columns = columns
        self._values = values
        self._place = place

    def read_rows(self, start: int, stop: int) -> CsrChunk:
        """Read rows start..stop-1.

        Raises:
            DataError: If the bounds of a row contradict each other or the matrix, or a column index
                is outside the matrix or repeats in a row.
        """
        bounds = self._read_bounds(start, stop)
        first, last = int(bounds[0]), int(bounds[-1])
        columns = np.asarray(self._columns[first:last])
        # Kernels know the byte order of this machine only; a file may have the other.
        columns = columns.astype(columns.dtype.newbyteorder("="), copy=False)
        row = row_with_fault(bounds, columns, self.shape[1])
        if row >= 0:
            _check_range(columns, self.shape[1], what="column", place=self._place)
            raise DataError(
                "a sparse row must hold each gene once, got a repeated column in "
                f"row {start + row} of {self._place}"
            )
        values = as_values(np.asarray(self._values[first:last]))
        return CsrChunk(start, bounds - first, columns.astype(np.int32, copy=False), values)

    def _read_bounds(self, start: int, stop: int) -> IndexArray:
        """Read [stop - start + 1] bounds, checked before anything is read by them."""
        bounds = np.asarray(self._bounds[start : stop + 1], dtype=np.int64)
        num_entries = len(self._columns)
        is_whole = stop < self.shape[0] or bounds[-1] == num_entries
        if not is_whole:
            raise DataError(
                f"the last bound must be the number of entries, got {bounds[-1]} with "
                f"{num_entries} indices in {self._place}"
            )
        lengths = np.diff(bounds)
        starts_well = bounds[0] == 0 if start == 0 else bounds[0] >= 0
        if not starts_well or bounds[-1] > num_entries or np.any(lengths < 0):
            raise DataError(
                f"indptr must start at 0 and never fall, got otherwise in rows {start}.."
                f"{stop - 1} of {self._place}"
            )
        if np.any(lengths > self.shape[1]):
            row = int(np.argmax(lengths > self.shape[1]))
            raise DataError(
                f"a row must have at most one entry a gene, {self.shape[1]}, got {lengths[row]} "
                f"in row {start + row} of {self._place}"
            )
        return bounds


def as_values(stored: npt.NDArray[np.generic]) -> ValueArray:
    """Return numbers as floats: 32 bits where they hold every number of the stored type."""
    if stored.dtype.itemsize <= 2 or stored.dtype == np.float32:
        return stored.astype(np.float32, copy=False)
    return stored.astype(np.float64, copy=False)


def check_sizes(group: h5py.Group, num_major: int, place: str) -> None:
    """Check the three arrays of a sparse matrix against each other, without reading them.

    Raises:
        DataError: If one is missing or of another kind, or they disagree in length.
    """
    missing = [name for name in ("data", "indices", "indptr") if name not in group]
    if missing:
        raise DataError(
            f"a sparse matrix must hold data, indices, indptr, got no {missing[0]} in {place}"
        )
    for name, kinds in ARRAY_KINDS.items():
        node = group[name]
        if isinstance(node, h5py.Group) or node.ndim != 1 or node.dtype.kind not in kinds:
            what = "a group" if isinstance(node, h5py.Group) else f"{node.dtype} of {node.shape}"
            raise DataError(
                f"{name} of a sparse matrix must be a list of "
                f"{'numbers' if name == 'data' else 'whole numbers'}, got {what} in {place}"
            )
        if isinstance(node, h5py.Dataset):  # zarr has checks of its own
            require_stored(node, place)
    num_bounds = len(group["indptr"])
    num_values, num_indices = len(group["data"]), len(group["indices"])
    if num_bounds != num_major + 1:
        raise DataError(
            f"indptr must hold {num_major + 1} bounds, one more than its rows or columns, "
            f"got {num_bounds} in {place}"
        )
    if num_values != num_indices:
        raise DataError(
            f"a sparse matrix must have an index for each value, got {num_values} values and "
            f"{num_indices} indices in {place}"
        )


def _check_range(indices: npt.NDArray[np.generic], size: int, *, what: str, place: str) -> None:
    if len(indices) == 0:
        return
    low, high = int(indices.min()), int(indices.max())
    if low < 0 or high >= size:
        wrong = low if low < 0 else high
        raise DataError(f"a sparse {what} index must be in 0..{size - 1}, got {wrong} in {place}")


@kernel
def row_with_fault(bounds: IndexArray, columns: IndexArray | IntArray, num_columns: int) -> int:
    """Return the first row that names a column twice or one that is not there, or -1.

    `bounds` count from any number; entries of the first row are the first of `columns`.
    """
    last_row = np.full(0, -1, dtype=np.int64)
    for row in range(len(bounds) - 1):
        entries = columns[bounds[row] - bounds[0] : bounds[row + 1] - bounds[0]]
        if len(entries) == 0:
            continue
        lower, upper = entries[:-1], entries[1:]
        num_falls = 0
        for i in range(len(upper)):  # without a branch: the compiler takes several at a time
            num_falls += upper[i] <= lower[i]
        if num_falls == 0 and entries[0] >= 0 and entries[-1] < num_columns:
            continue
        if len(last_row) == 0:  # columns may stand in any order, which is slower to check
            last_row = np.full(num_columns, -1, dtype=np.int64)
        for column in entries:
            if not 0 <= column < num_columns or last_row[column] == row:
                return row
            last_row[column] = row
    return -1


def _turn_csc(group: h5py.Group, shape: tuple[int, int], place: str, folder: Path) -> None:
    """Turn compressed columns into compressed rows by a counting sort on disk."""
    check_sizes(group, shape[1], place)
    rows, values = group["indices"], group["data"]
    num_entries = len(rows)
    column_bounds = np.asarray(group["indptr"][:], dtype=np.int64)
    if column_bounds[0] != 0 or np.any(np.diff(column_bounds) < 0):
        raise DataError(f"indptr must start at 0 and never fall, got otherwise in {place}")
    if column_bounds[-1] != num_entries:
        raise DataError(
            f"the last bound must be the number of entries, got {column_bounds[-1]} with "
            f"{num_entries} indices in {place}"
        )
    bounds = new_array_file(folder / TURNED[0], np.dtype(np.int64), shape[0] + 1)
    for first in range(0, num_entries, ENTRIES_PER_PASS):
        block = np.asarray(rows[first : first + ENTRIES_PER_PASS])
        _check_range(block, shape[0], what="row", place=place)
        _count_rows(block.astype(np.int64), bounds)
    np.cumsum(bounds, out=bounds)
    turned_columns = new_array_file(folder / TURNED[1], np.dtype(np.int32), num_entries)
    turned_values = new_array_file(folder / TURNED[2], values.dtype, num_entries)
    free_slot = new_array_file(folder / "free", np.dtype(np.int64), shape[0])
    free_slot[:] = bounds[:-1]
    for first in range(0, num_entries, ENTRIES_PER_PASS):
        last = min(first + ENTRIES_PER_PASS, num_entries)
        entry_columns = np.searchsorted(column_bounds, np.arange(first, last), side="right") - 1
        slots = _take_slots(np.asarray(rows[first:last], dtype=np.int64), free_slot)
        turned_columns[slots] = entry_columns
        turned_values[slots] = values[first:last]
    for array in (bounds, turned_columns, turned_values):
        array.flush()
    (folder / "free").unlink()


@kernel
def _count_rows(rows: IndexArray, bounds: ArrayFile) -> None:
    """Count entries of each row in the place after it, ready to be summed up."""
    for row in rows:
        bounds[row + 1] += 1


@kernel
def _take_slots(rows: IndexArray, free_slot: ArrayFile) -> IndexArray:
    """Give each entry the next free place of its row; advances `free_slot`."""
    slots = np.empty(len(rows), dtype=np.int64)
    for entry in range(len(rows)):
        slots[entry] = free_slot[rows[entry]]
        free_slot[rows[entry]] += 1
    return slots
