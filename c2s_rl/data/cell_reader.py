"""Cell shards a few rows at a time, for stages that must not hold all cells in memory.

A row is a cell's place in the folder, counted over all parts. Left out: reading everything at once
(`shards.py`).

Shape suffixes: C cells of the folder, R rows asked for, Z ranked genes of all rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from c2s_rl.cells.rank import IndexArray
from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.data.cell_table import CellTable
from c2s_rl.data.shards import CellManifest, read_manifest
from c2s_rl.errors import DataError, MissingFileError
from c2s_rl.types import IntArray


@dataclass(frozen=True, eq=False)
class LabelCodes:
    """One obs column of all cells."""

    codes_C: IntArray
    """[C] index into `categories`; -1 where the label is missing."""
    categories: tuple[str, ...]
    """Labels in alphabetical order."""


class CellReader:
    """The cells of a folder, by row; it may travel to another process."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest and the sizes of the parts.

        Raises:
            MissingFileError: If the manifest or a part is not there.
            DataError: If a part is damaged, or the parts hold other cells than the manifest says.
        """
        self.folder = folder
        self.manifest: CellManifest = read_manifest(folder)
        self._paths: list[Path] = []
        self._groups: list[int] = []
        bounds = [0]
        for part in self.manifest.parts:
            footer = _open(folder / part).metadata
            for group in range(footer.num_row_groups):
                self._paths.append(folder / part)
                self._groups.append(group)
                bounds.append(bounds[-1] + footer.row_group(group).num_rows)
        self._bounds = np.array(bounds, dtype=np.int64)
        if bounds[-1] != self.manifest.num_cells:
            raise DataError(
                f"the parts must hold the {self.manifest.num_cells} cells of the manifest, "
                f"got {bounds[-1]} in {folder}"
            )

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def require_columns(self, columns: Sequence[str]) -> None:
        """Check that the cells have these obs columns.

        Raises:
            DataError: Naming the first that they lack, and the nearest.
        """
        known = self.manifest.obs_columns
        for column in columns:
            if column not in known:
                raise DataError(unknown_name("the obs column", column, known, str(self.folder)))

    def read(
        self, rows_R: IndexArray, columns: Sequence[str] = (), *, with_values: bool = False
    ) -> CellTable:
        """Read some cells, in the order asked for.

        Args:
            rows_R: [R] rows; only the row groups that hold one of them are read.
            columns: obs columns to read.
            with_values: Read the values too; else the table has none.

        Raises:
            DataError: If a column is unknown, a part is damaged, or the cells have no values.
        """
        self.require_columns(columns)
        names = ["cell_id", "genes", *(["values"] if with_values else []), *columns]
        order = np.argsort(rows_R, kind="stable")
        sorted_R = rows_R[order]
        group_R = np.searchsorted(self._bounds, sorted_R, side="right") - 1
        pieces = [
            self._read_group(group, names).take(
                pa.array(sorted_R[group_R == group] - self._bounds[group])
            )
            for group in np.unique(group_R).tolist()
        ]
        if not pieces:
            return _empty(columns)
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        table = pa.concat_tables(pieces).take(pa.array(back)).combine_chunks()
        return self._as_cells(table, columns, with_values=with_values)

    def rows_with_ids(self, wanted: Collection[str]) -> IndexArray:
        """Rows of the cells that have one of the ids, rising; ids that no cell has are passed over.

        Raises:
            DataError: If a part is damaged.
        """
        values = pa.array(sorted(wanted), pa.string())
        pieces = [np.zeros(0, dtype=np.int64)]
        for group in range(len(self._groups)):
            ids = self._read_group(group, ["cell_id"])["cell_id"]
            found = pc.is_in(ids, value_set=values).to_numpy(zero_copy_only=False)
            pieces.append(np.flatnonzero(found) + self._bounds[group])
        return np.concatenate(pieces)

    def known_ids(self, wanted: Collection[str]) -> frozenset[str]:
        """Those of the ids that cells have.

        Raises:
            DataError: If a part is damaged.
        """
        values = pa.array(sorted(wanted), pa.string())
        known: set[str] = set()
        for group in range(len(self._groups)):
            ids = self._read_group(group, ["cell_id"])["cell_id"]
            known.update(ids.filter(pc.is_in(ids, value_set=values)).to_pylist())
        return frozenset(known)

    def labels(self, column: str) -> LabelCodes:
        """Read one obs column of all cells.

        Raises:
            DataError: If the column is unknown or a part is damaged.
        """
        self.require_columns([column])
        pieces = [
            self._read_group(group, [column])[column].cast(pa.string())
            for group in range(len(self._groups))
        ]
        chunks = [chunk for piece in pieces for chunk in piece.chunks]
        encoded = pa.chunked_array(chunks, pa.string()).dictionary_encode().combine_chunks()
        found = encoded.dictionary.to_pylist()
        categories = tuple(sorted(found))
        place = {label: code for code, label in enumerate(categories)}
        # The last entry stands for a missing label, whose index is null.
        recoded = np.array([*(place[label] for label in found), -1], dtype=np.int32)
        indices = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
        return LabelCodes(recoded[indices], categories)

    def _read_group(self, group: int, names: Sequence[str]) -> pa.Table:
        path = self._paths[group]
        file = _open(path)
        missing = [name for name in names if name not in file.schema_arrow.names]
        if missing:
            raise DataError(
                f"a cell shard must have the column {missing[0]!r}, got "
                f"{', '.join(file.schema_arrow.names)} in {path}"
            )
        try:
            table = file.read_row_group(self._groups[group], columns=list(names))
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"a cell shard must be whole Parquet, got {reason} in {path}"
            ) from error
        # Dictionaries differ from part to part; as text the pieces go together.
        return table.cast(
            pa.schema(
                [
                    pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type)
                    for f in table.schema
                ]
            )
        )

    def _as_cells(self, table: pa.Table, columns: Sequence[str], *, with_values: bool) -> CellTable:
        lists = table["genes"].combine_chunks()
        if isinstance(lists, pa.ChunkedArray):
            lists = lists.chunk(0)
        offsets = lists.offsets.to_numpy().astype(np.int64)
        genes: IntArray = lists.flatten().to_numpy().astype(np.int32, copy=False)
        num_genes = len(self.manifest.symbols)
        if len(genes) and not 0 <= genes.min() <= genes.max() < num_genes:
            raise DataError(f"genes must be in 0..{num_genes - 1}, got others in {self.folder}")
        values = np.zeros(0, dtype=np.float32)
        if with_values:
            values = table["values"].combine_chunks().flatten().to_numpy()
        return CellTable(
            cell_ids=tuple(table["cell_id"].to_pylist()),
            indptr=offsets - offsets[0],
            genes=genes,
            values=values,
            obs={
                name: np.array(table[name].fill_null("").to_pylist(), dtype=np.str_)
                for name in columns
            },
        )


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise MissingFileError(f"every part of the manifest must be there, got no {path}")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"a cell shard must be whole Parquet, got {reason} in {path}")


def _empty(columns: Sequence[str]) -> CellTable:
    none = np.zeros(0, dtype=np.int32)
    return CellTable(
        cell_ids=(),
        indptr=np.zeros(1, dtype=np.int64),
        genes=none,
        values=none.astype(np.float32),
        obs={name: np.zeros(0, dtype=np.str_) for name in columns},
    )
