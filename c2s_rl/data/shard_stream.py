"""Cell shards read a few cells at a time, in the order of the folder, in bounded memory.

Left out: reading all of them (`shards.read_cells`) and checking what only the whole folder shows
but the number of cells.

Shapes: C cells, Z ranked genes of all cells, N genes of the vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.data.shards import CellManifest
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.types import FloatArray, IntArray

VALUES = "values"


@dataclass(frozen=True, eq=False)
class ShardBatch:
    """Consecutive cells of a folder."""

    cell_ids: list[str]
    """[C]"""
    indptr: IndexArray
    """[C + 1] cell i holds entries indptr[i] to indptr[i + 1]."""
    genes: IntArray
    """[Z] vocabulary indices, highest expression first within a cell."""
    values: FloatArray | None
    """[Z] in the manifest's unit, falling within a cell; None unless asked for."""
    obs: dict[str, npt.NDArray[np.object_]]
    """Column name to [C] labels; '' where missing."""
    source_files: list[str]
    """[C]"""
    source_rows: IndexArray
    """[C] row of the source file."""


def has_values(folder: Path, manifest: CellManifest) -> bool:
    """Tell whether the shards hold expression beside the genes.

    Raises:
        MissingFileError: If the first part is not there.
        DataError: If it is not whole.
    """
    return VALUES in _open(folder / manifest.parts[0]).schema_arrow.names


def iter_cells(
    folder: Path,
    manifest: CellManifest,
    *,
    columns: Sequence[str],
    with_values: bool,
    num_cells: int,
) -> Iterator[ShardBatch]:
    """Read all cells, `num_cells` at a time or fewer.

    Args:
        folder: A folder of cell shards.
        manifest: Its manifest.
        columns: Obs columns to read.
        with_values: Read expression too.
        num_cells: The most cells of a batch.

    Raises:
        MissingFileError: If a part is not there.
        DataError: If an obs column is unknown (the nearest is named), there are no values, or the
            parts are not whole or do not hold what the manifest says.
    """
    for column in columns:
        if column not in manifest.obs_columns:
            known = manifest.obs_columns
            raise DataError(unknown_name("the obs column", column, known, str(folder)))
    wanted = ["cell_id", "genes", "source_file", "source_row", *columns]
    if with_values:
        if not has_values(folder, manifest):
            raise DataError(
                f"these cells must hold their expression, got genes only in {folder}; use "
                "values: rank_model, or convert them with write_values: true"
            )
        wanted.append(VALUES)
    num_read = 0
    for part in manifest.parts:
        for batch in _batches(folder / part, wanted, num_cells):
            cells = _from_arrow(batch, columns, with_values=with_values)
            _require_genes(cells.genes, len(manifest.symbols), folder / part)
            num_read += len(cells.cell_ids)
            yield cells
    if num_read != manifest.num_cells:
        raise DataError(
            f"the parts must hold the {manifest.num_cells} cells of the manifest, "
            f"got {num_read} in {folder}"
        )


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise MissingFileError(f"every part of the manifest must be there, got no {path}")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, error) from error


def _batches(path: Path, wanted: Sequence[str], num_cells: int) -> Iterator[pa.RecordBatch]:
    with _open(path) as file:
        try:
            yield from file.iter_batches(batch_size=num_cells, columns=list(wanted))
        except (pa.ArrowException, OSError) as error:
            raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"a cell shard must be whole Parquet, got {reason} in {path}")


def _from_arrow(batch: pa.RecordBatch, columns: Sequence[str], *, with_values: bool) -> ShardBatch:
    genes = batch.column("genes")
    # A batch may be a slice of a longer array: `flatten` is of its rows only, offsets are not.
    offsets = genes.offsets.to_numpy().astype(np.int64)
    return ShardBatch(
        cell_ids=batch.column("cell_id").to_pylist(),
        indptr=offsets - offsets[0],
        genes=genes.flatten().to_numpy(),
        values=batch.column(VALUES).flatten().to_numpy() if with_values else None,
        obs={name: _labels(batch.column(name)) for name in columns},
        source_files=_labels(batch.column("source_file")).tolist(),
        source_rows=batch.column("source_row").to_numpy(),
    )


def _labels(column: pa.Array) -> npt.NDArray[np.object_]:
    return np.array(column.cast(pa.string()).fill_null("").to_pylist(), dtype=np.object_)


def _require_genes(genes: IntArray, num_genes: int, path: Path) -> None:
    if len(genes) and not 0 <= genes.min() <= genes.max() < num_genes:
        raise DataError(f"genes must be in 0..{num_genes - 1}, got others in {path}")
