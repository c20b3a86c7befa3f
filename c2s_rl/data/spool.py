"""Cells as compressed rows in a scratch folder: what formats that are read from end to end become.

Text, Parquet and sentences cannot be read from the middle. They are parsed once (`made_once`) into
rows on disk, from which any range of cells is cut. Entries may arrive by cell or in any order; then
a counting sort on disk brings them into rows. Memory does not grow with the file either way.

Shapes: C cells, N columns, Z entries.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from c2s_rl.data.h5ad_matrix import CsrMatrix
from c2s_rl.data.scratch import NumpyRows, new_array_file
from c2s_rl.data.text_column import TextArray

BOUNDS, COLUMNS, VALUES, TEXTS = "bounds.npy", "columns.npy", "values.npy", "texts.arrow"
ENTRIES_PER_PASS = 4_000_000  # entries put in order at a time: about 200 MB with intermediates

Integers = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]


@contextmanager
def row_spool(folder: Path) -> Iterator[Callable[[Integers, Integers, Doubles], None]]:
    """Give a function that adds whole rows in order: entries of each row, columns, values."""
    with (
        NumpyRows(folder / BOUNDS, np.dtype(np.int64), None) as bounds,
        NumpyRows(folder / COLUMNS, np.dtype(np.int32), None) as columns,
        NumpyRows(folder / VALUES, np.dtype(np.float64), None) as values,
    ):
        bounds.append(np.zeros(1, dtype=np.int64))
        num_entries = 0

        def add(lengths: Integers, column_Z: Integers, value_Z: Doubles) -> None:
            nonlocal num_entries
            bounds.append(num_entries + np.cumsum(lengths, dtype=np.int64))
            columns.append(column_Z)
            values.append(value_Z)
            num_entries += len(column_Z)

        yield add


@contextmanager
def entry_spool(
    folder: Path, num_rows: int
) -> Iterator[Callable[[Integers, Integers, Doubles], None]]:
    """Give a function that adds entries in any order: rows (0..C-1), columns, values.

    When the block ends without an error, the entries lie by row, within a row as they came.
    """
    bounds = new_array_file(folder / BOUNDS, np.dtype(np.int64), num_rows + 1)
    last_row, is_sorted = 0, True
    raw = (folder / "rows.raw.npy", folder / "columns.raw.npy", folder / "values.raw.npy")
    with (
        NumpyRows(raw[0], np.dtype(np.int64), None) as rows,
        NumpyRows(raw[1], np.dtype(np.int32), None) as columns,
        NumpyRows(raw[2], np.dtype(np.float64), None) as values,
    ):

        def add(row_Z: Integers, column_Z: Integers, value_Z: Doubles) -> None:
            nonlocal last_row, is_sorted
            if not len(row_Z):
                return
            is_sorted &= bool(np.all(row_Z[1:] >= row_Z[:-1])) and int(row_Z[0]) >= last_row
            last_row = int(row_Z[-1])
            present, counts = np.unique(row_Z, return_counts=True)
            bounds[present + 1] += counts
            rows.append(row_Z)
            columns.append(column_Z)
            values.append(value_Z)

        yield add
    np.cumsum(bounds, out=bounds)
    if is_sorted:
        raw[1].rename(folder / COLUMNS)
        raw[2].rename(folder / VALUES)
    else:
        _turn(folder, raw, bounds)
    bounds.flush()
    for path in raw:
        path.unlink(missing_ok=True)


def _turn(folder: Path, raw: Sequence[Path], bounds: npt.NDArray[np.int64]) -> None:
    """Bring entries into rows, some millions at a time."""
    source = [np.load(path, mmap_mode="r") for path in raw]
    num_entries = len(source[0])
    turned = [
        new_array_file(folder / name, array.dtype, num_entries)
        for name, array in zip((COLUMNS, VALUES), source[1:], strict=True)
    ]
    free = np.array(bounds[:-1])
    for first in range(0, num_entries, ENTRIES_PER_PASS):
        row_Z, *parts = (array[first : first + ENTRIES_PER_PASS] for array in source)
        order = np.argsort(row_Z, kind="stable")
        present, starts, counts = np.unique(row_Z[order], return_index=True, return_counts=True)
        within = np.arange(len(row_Z)) - np.repeat(starts, counts)
        slots = np.repeat(free[present], counts) + within
        free[present] += counts
        for array, part in zip(turned, parts, strict=True):
            array[slots] = part[order]
    for array in turned:
        array.flush()


def spooled_rows(folder: Path, num_columns: int, *, place: str) -> CsrMatrix:
    """Open the rows of a folder."""
    bounds, columns, values = (
        np.load(folder / name, mmap_mode="r") for name in (BOUNDS, COLUMNS, VALUES)
    )
    return CsrMatrix((len(bounds) - 1, num_columns), bounds, columns, values, place=place)


@contextmanager
def text_spool(
    folder: Path, num_columns: int
) -> Iterator[Callable[[Sequence[Sequence[str]]], None]]:
    """Give a function that adds the texts of the next rows, a list for each column."""
    schema = pa.schema([(str(place), pa.large_string()) for place in range(num_columns)])
    with pa.OSFile(str(folder / TEXTS), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:

        def add(columns: Sequence[Sequence[str]]) -> None:
            arrays = [pa.array(texts, pa.large_string()) for texts in columns]
            writer.write_batch(pa.record_batch(arrays, schema=schema))

        yield add


def spooled_texts(folder: Path) -> list["ArrowTexts"]:
    """Map the columns that `text_spool` wrote, in their order."""
    with pa.memory_map(str(folder / TEXTS)) as source:
        table = pa.ipc.open_file(source).read_all()
    return [ArrowTexts(column) for column in table.columns]


@dataclass(frozen=True, eq=False)
class ArrowTexts:
    """A column of Arrow values, as text."""

    column: pa.ChunkedArray

    def __len__(self) -> int:
        return len(self.column)

    def read(self, start: int, stop: int) -> TextArray:
        """Return the texts of rows start..stop-1; '' where missing."""
        return np.array(as_texts(self.column.slice(start, stop - start)), dtype=np.str_)


def as_texts(column: pa.Array | pa.ChunkedArray) -> list[str]:
    """Write values as anndata's labels are written (True, 10.0); '' where missing."""
    values = column.to_pylist()
    # Not-a-number, which is not equal to itself, is a missing label too.
    return ["" if value is None or value != value else str(value) for value in values]  # noqa: PLR0124
