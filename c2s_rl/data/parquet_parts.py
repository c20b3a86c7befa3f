"""Parquet parts that a stage makes one by one: whole or not there, and found again after a kill.

    folder/part-00000.parquet, part-00001.parquet, ...

Left out: what is in them.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

log = logging.getLogger(__name__)


def part_path(folder: Path, part: int) -> Path:
    """File of a part."""
    return folder / f"part-{part:05d}.parquet"


def bounds_of(part: int, rows_per_part: int, num_rows: int) -> tuple[int, int]:
    """First row of a part, and the one after its last."""
    start = part * rows_per_part
    return start, min(start + rows_per_part, num_rows)


def num_parts(rows_per_part: int, num_rows: int) -> int:
    """Parts of all rows."""
    return -(-num_rows // rows_per_part)


def write_part(path: Path, table: pa.Table, *, dictionary: Sequence[str] = ()) -> None:
    """Write a part aside and rename it.

    Args:
        path: The file.
        table: Its rows; one row group.
        dictionary: Columns of few distinct texts.
    """
    partial = path.with_name(f".{path.name}.partial")
    pq.write_table(
        table,
        partial,
        compression="zstd",
        use_dictionary=list(dictionary),
        row_group_size=max(1, len(table)),
    )
    partial.replace(path)


def missing_parts(folder: Path, rows_per_part: int, num_rows: int) -> list[int]:
    """Parts that are still to be made; a file that is not whole is one of them."""
    missing: list[int] = []
    for part in range(num_parts(rows_per_part, num_rows)):
        path = part_path(folder, part)
        start, stop = bounds_of(part, rows_per_part, num_rows)
        if path.is_file() and _rows_of(path) == stop - start:
            continue
        if path.is_file():
            log.warning("making %s again, which is not whole", path.name)
        missing.append(part)
    return missing


def read_parts(folder: Path, rows_per_part: int, num_rows: int) -> Iterator[pa.Table]:
    """Read the parts in order, one at a time."""
    for part in range(num_parts(rows_per_part, num_rows)):
        yield pq.read_table(part_path(folder, part))


def _rows_of(path: Path) -> int | None:
    """Rows of a Parquet file; None if it is none."""
    try:
        rows: int = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError):
        return None
    return rows
