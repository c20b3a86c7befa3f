"""Expression tables as text or Parquet, read in order, a bounded block of rows at a time.

A table has one column of row names, label columns that are named by the caller, columns to ignore,
and numbers in all others. What is no number, a line with a field too many, and a file that is cut
off or claims more than its bytes can hold are errors that name the place. Left out: Excel files,
decimal commas, comment lines.

Shapes: B rows of a block, N columns of numbers.
"""

import csv
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.data.h5ad_matrix import DoubleArray
from c2s_rl.data.spool import as_texts
from c2s_rl.errors import DataError, UnknownColumnError

VALUES_PER_BLOCK = 4_000_000  # numbers of a Parquet table held at a time: 32 MB
MIN_BLOCK_BYTES = 2 * 2**20  # of text parsed at a time; more where lines are longer
# Arrow spends some microseconds a column of a block, so wide tables get larger blocks.
LINES_AT_ONCE, MOST_BLOCK_BYTES = 64, 8 * 2**20
# A number may take more characters than its column's name does.
LINES_PER_HEADER = 8
MAX_LINE = 64 * 2**20  # characters: the names of three million cells
# Numbers that a stored byte of Parquet may stand for. Real tables of counts, nearly all zeros and
# run-length coded, reach some hundreds; beyond this the file claims what it does not hold.
MAX_VALUES_PER_BYTE = 2_000


@dataclass(frozen=True)
class TableColumns:
    """What each column of a table is."""

    names: tuple[str, ...]
    """As in the header."""
    id_place: int
    label_places: tuple[int, ...]
    number_places: tuple[int, ...]
    """[N]"""

    @property
    def numbers(self) -> tuple[str, ...]:
        """[N] names of the columns of numbers."""
        return tuple(self.names[place] for place in self.number_places)


@dataclass(frozen=True, eq=False)
class TableBlock:
    """Consecutive rows."""

    ids: list[str]
    """[B]"""
    labels: list[list[str]]
    """[B] texts of each label column, '' where missing."""
    values_B_N: DoubleArray


def sort_columns(
    names: Sequence[str],
    *,
    id_column: str | None,
    labels: Sequence[str],
    ignored: Sequence[str],
    place: str,
) -> TableColumns:
    """Tell the columns of a table apart.

    Args:
        names: The header.
        id_column: The column of row names; None takes the first.
        labels: Columns of texts.
        ignored: Columns that are left out.
        place: The file, for messages.

    Raises:
        DataError: If a column that is named is not there or there twice, or no numbers are left.
    """
    asked = [*([] if id_column is None else [id_column]), *labels, *ignored]
    for name in asked:
        if name not in names:
            message = unknown_name("a column of the table", name, names, place)
            raise UnknownColumnError(message, name) if name in labels else DataError(message)
        if names.count(name) > 1:
            raise DataError(
                f"a column that is asked for must be there once, got {name!r} "
                f"{names.count(name)} times in {place}"
            )
    id_place = 0 if id_column is None else names.index(id_column)
    label_places = tuple(names.index(name) for name in labels)
    taken = {id_place, *label_places, *(names.index(name) for name in ignored)}
    numbers = tuple(place for place in range(len(names)) if place not in taken)
    if not numbers:
        raise DataError(f"a table must have columns of numbers, got only {shown(names)} in {place}")
    return TableColumns(tuple(names), id_place, label_places, numbers)


@contextmanager
def opened_text(path: Path) -> Iterator[TextIO]:
    """Open plain or gzip-compressed text; damage becomes one line.

    Raises:
        DataError: If the file is cut off, not what its name says, or not UTF-8.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield file
        else:
            with path.open(encoding="utf-8-sig", newline="") as file:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise DataError(f"a text file must be whole, got {error} in {path}") from error


def read_header(path: Path, delimiter: str) -> tuple[str, ...]:
    """Read the names of the columns; a name that R leaves out over the row names is ''.

    Raises:
        DataError: If there is no header and no row, a line has no end, or the text is damaged.
    """
    try:
        with opened_text(path) as file:
            rows = list(islice(csv.reader(_lines(file, path), delimiter=delimiter), 2))
    except csv.Error as error:
        raise DataError(
            f"a table must be text with one line a row, got {error} in {path}"
        ) from error
    if len(rows) < 2:
        raise DataError(f"a table must have a header and rows, got {len(rows)} lines in {path}")
    header, first = rows
    return ("", *header) if len(first) == len(header) + 1 else tuple(header)


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Read lines; a packed file of a few kB may hold one that no memory holds."""
    number = 1
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise DataError(
                f"a line of a table must have at most {MAX_LINE} characters, got more at line "
                f"{number} of {path}"
            )
        yield line
        number += 1


def read_text_blocks(path: Path, delimiter: str, columns: TableColumns) -> Iterator[TableBlock]:
    """Read a .csv or .tsv file.

    Raises:
        DataError: If a line has another number of fields than the header, or a field is no number.
    """
    header_bytes = sum(len(name.encode()) + 1 for name in columns.names)
    wide_block = min(LINES_AT_ONCE * header_bytes, MOST_BLOCK_BYTES)
    names = [str(place) for place in range(len(columns.names))]  # the file's own may repeat
    texts = {names[place] for place in (columns.id_place, *columns.label_places)}
    kept = [names[p] for p in (columns.id_place, *columns.label_places, *columns.number_places)]
    try:
        with pa.input_stream(str(path), compression="detect") as stream:
            reader = pacsv.open_csv(
                stream,
                read_options=pacsv.ReadOptions(
                    use_threads=False,
                    column_names=names,
                    skip_rows=1,
                    block_size=max(MIN_BLOCK_BYTES, wide_block, LINES_PER_HEADER * header_bytes),
                ),
                parse_options=pacsv.ParseOptions(delimiter=delimiter),
                convert_options=pacsv.ConvertOptions(
                    column_types={n: pa.string() if n in texts else pa.float64() for n in names},
                    include_columns=kept,
                    # An empty field is no number; it must not become a zero in silence.
                    null_values=[],
                ),
            )
            for batch in reader:
                yield _block(batch, len(columns.label_places))
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(_explained(str(error), columns, path)) from error


def read_parquet_header(path: Path) -> tuple[tuple[str, ...], str | None]:
    """Read the names of the columns and, where pandas wrote one, of the column of row names.

    Raises:
        DataError: If the file is damaged or claims more numbers than its bytes can hold.
    """
    with _parquet_errors(path):
        file = pq.ParquetFile(path)
        schema, metadata = file.schema_arrow, file.metadata
    num_values = metadata.num_rows * len(schema)
    size = path.stat().st_size
    if num_values > MAX_VALUES_PER_BYTE * size:
        raise DataError(
            f"a Parquet file must hold what it claims, got {metadata.num_rows} rows of "
            f"{len(schema)} columns in {size} bytes in {path}"
        )
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    named = [name for name in index if isinstance(name, str)]
    return tuple(schema.names), named[0] if len(named) == 1 else None


def read_parquet_blocks(path: Path, columns: TableColumns) -> Iterator[TableBlock]:
    """Read a .parquet file.

    Raises:
        DataError: If a column that is no label holds something other than numbers, or the file is
            damaged.
    """
    with _parquet_errors(path):
        file = pq.ParquetFile(path, buffer_size=2**20)
        _require_numbers(file.schema_arrow, columns, path)
        places = (columns.id_place, *columns.label_places, *columns.number_places)
        wanted = [columns.names[place] for place in places]
        rows = max(1, VALUES_PER_BLOCK // len(wanted))
        for batch in file.iter_batches(batch_size=rows, columns=wanted, use_threads=False):
            block = batch.select(wanted)
            _require_no_nulls(block, columns, path)
            yield _block(block, len(columns.label_places))


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, DataError) or (isinstance(error, OSError) and error.errno is not None):
            raise
        reason = " ".join(str(error).split())
        raise DataError(f"a Parquet file must be whole, got {reason} in {path}") from error


def _require_numbers(schema: pa.Schema, columns: TableColumns, path: Path) -> None:
    types = schema.types  # a list that is made anew at each call
    for place in columns.number_places:
        kind = types[place]
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise DataError(
                f"a column that is no label must hold a gene's numbers, got {kind} in column "
                f"{columns.names[place]!r} of {path}; name labels in obs or combine, others in "
                "ignore"
            )


def _require_no_nulls(batch: pa.RecordBatch, columns: TableColumns, path: Path) -> None:
    first = 1 + len(columns.label_places)
    for name, column in zip(batch.schema.names[first:], batch.columns[first:], strict=True):
        if column.null_count:
            row = column.is_null().index(pa.scalar(value=True)).as_py()
            raise DataError(
                "expression must be a number, got null at row "
                f"{batch.column(0)[row].as_py()!r}, column {name!r} in {path}"
            )


def _block(batch: pa.RecordBatch, num_labels: int) -> TableBlock:
    ids, *labels = (as_texts(batch.column(place)) for place in range(1 + num_labels))
    numbers = batch.select(list(range(1 + num_labels, batch.num_columns)))
    values_B_N = numbers.to_tensor(row_major=True).to_numpy().astype(np.float64, copy=False)
    return TableBlock(ids, labels, values_B_N)


def _explained(message: str, columns: TableColumns, path: Path) -> str:
    """Say what Arrow said of a text file in the words of the file."""
    message = " ".join(message.split())
    if match := re.match(r"In CSV column #(\d+): (?:Row #(\d+): )?.*invalid value '(.*)'", message):
        # Arrow counts the columns of the file, ignored ones too.
        name = columns.names[int(match[1])]
        line = f"line {match[2]} of " if match[2] else ""
        return (
            f"expression must be a number, got {match[3]!r} in column {name!r} at {line}{path}; "
            "name labels in obs or combine, other columns in ignore"
        )
    if match := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        return (
            f"a line must have the {match[2]} fields of the header, got {match[3]} at "
            f"line {match[1]} of {path}"
        )
    return f"a table must be whole text, got {message} in {path}"
