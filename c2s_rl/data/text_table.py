"""Two columns from a file: a name and a text about it, one a row; a name may have several texts.

    .tsv .txt   name <tab> text; the first line is a header where it spells the two column names
    .csv        the same with commas and quotes
    .jsonl      an object with the two columns a line
    .parquet    the two columns

White space within a text becomes single spaces: a prompt keeps its lines for its own parts.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from c2s_rl.config import expand_variables
from c2s_rl.errors import DataError, MissingFileError

DELIMITERS = {".tsv": "\t", ".txt": "\t", ".csv": ","}


@dataclass(frozen=True)
class TextColumns:
    """What the two columns are called, and the file that holds them."""

    name: str
    """Column of the name: 'cluster', 'study'."""
    text: str
    """Column of the text: 'caption', 'abstract'."""
    what: str
    """The file, for messages: 'a table of captions'."""


def read_texts(path: Path, columns: TextColumns) -> dict[str, tuple[str, ...]]:
    """Read the texts of every name.

    Args:
        path: .tsv, .txt, .csv, .jsonl or .parquet; ${VARIABLES} allowed.
        columns: What they are called.

    Returns:
        Name to its texts in the order of the file, the same text once.

    Raises:
        MissingFileError: If there is no such file.
        ConfigError: If the path names a variable that is not set.
        DataError: If it is of another format, a row breaks a rule (named), or there is no row.
    """
    file = Path(expand_variables(str(path)))
    if not file.is_file():
        raise MissingFileError(f"{columns.what} must be a file that exists, got {file}")
    texts: dict[str, dict[str, None]] = {}
    for number, (name, text) in read_pairs(file, columns):
        written = " ".join(text.split())
        if not name.strip() or not written:
            raise DataError(
                f"a row must have {columns.name} and {columns.text}, got {name!r} and {text!r} "
                f"in row {number} of {file}"
            )
        texts.setdefault(name.strip(), {})[written] = None
    if not texts:
        raise DataError(f"{columns.what} must hold at least one row, got none in {file}")
    return {name: tuple(several) for name, several in texts.items()}


def read_pairs(file: Path, columns: TextColumns) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield number and two values of every row, a header left out.

    Raises:
        DataError: If the file is of another format, or a row has not just the two columns.
    """
    if file.suffix in DELIMITERS:
        yield from _delimited(file, columns)
    elif file.suffix == ".jsonl":
        yield from _jsonl(file, columns)
    elif file.suffix == ".parquet":
        yield from _parquet(file, columns)
    else:
        raise DataError(f"{columns.what} must be .tsv, .txt, .csv, .jsonl or .parquet, got {file}")


def _delimited(file: Path, columns: TextColumns) -> Iterator[tuple[int, tuple[str, str]]]:
    delimiter = DELIMITERS[file.suffix]
    header = [columns.name, columns.text]
    try:
        with file.open(encoding="utf-8", newline="") as stream:
            if delimiter == ",":
                rows: Iterator[list[str]] = csv.reader(stream, strict=True)
            else:  # a quote means nothing there: a text may open with one
                rows = (line.rstrip("\r\n").split(delimiter) for line in stream)
            for number, row in enumerate(rows, start=1):
                if not any(value.strip() for value in row):
                    continue
                if len(row) != 2:
                    raise DataError(
                        f"a row must be {columns.name} and {columns.text} separated by "
                        f"{delimiter!r}, got {len(row)} columns in row {number} of {file}"
                    )
                if number == 1 and [value.strip().lower() for value in row] == header:
                    continue
                yield number, (row[0], row[1])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{columns.what} must be UTF-8 text, got {error} in {file}") from error


def _jsonl(file: Path, columns: TextColumns) -> Iterator[tuple[int, tuple[str, str]]]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"each line must be JSON, got {error} in row {number} of {file}"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"each line must be a JSON object, got {row!r} in row {number} of {file}"
            )
        yield number, _pair(row, columns, f"row {number} of {file}")


def _parquet(file: Path, columns: TextColumns) -> Iterator[tuple[int, tuple[str, str]]]:
    try:
        rows: list[Mapping[str, object]] = pq.read_table(file).to_pylist()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{columns.what} must be whole Parquet, got {reason} in {file}") from error
    for number, row in enumerate(rows, start=1):
        yield number, _pair(row, columns, f"row {number} of {file}")


def _pair(row: Mapping[str, object], columns: TextColumns, where: str) -> tuple[str, str]:
    name, text = row.get(columns.name), row.get(columns.text)
    # Clusters are often numbers; a text never is.
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(name, str) or not isinstance(text, str):
        raise DataError(
            f"a row must have texts {columns.name} and {columns.text}, got {sorted(row)} in {where}"
        )
    return name, text
