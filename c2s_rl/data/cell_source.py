"""Where a corpus reads cells from: labels of all of them first, then genes of those it uses.

`ShardSource` reads cell shards one row group at a time, so that genes of a large data set are never
in memory together; `TableSource` serves a table that is. Left out: writing shards (`shards.py`).

Shapes: C cells, K genes of one cell, N genes of the vocabulary.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from c2s_rl.cells.rank import IndexArray, UIntArray, stable_hash
from c2s_rl.cells.rank_model import RankModel
from c2s_rl.cells.vocabulary import Vocabulary, unknown_name
from c2s_rl.data.cell_table import CellTable, TextArray
from c2s_rl.data.shards import CellManifest, read_manifest
from c2s_rl.errors import DataError, MissingFileError


@dataclass(frozen=True, eq=False)
class CellLabels:
    """What is known of all cells without their genes."""

    cell_ids: Sequence[str]
    """[C]"""
    obs: Mapping[str, TextArray]
    """Column name to [C] labels; '' where missing."""


@dataclass(frozen=True, eq=False)
class CellPortion:
    """Some cells with their genes."""

    rows: IndexArray
    """[c] place of each among all cells, rising."""
    table: CellTable
    """[c] the cells in that order; without obs, and without values unless asked for."""


class CellSource(Protocol):
    """The cells that a corpus is made of."""

    @property
    def labels(self) -> CellLabels:
        """Ids and obs of all cells."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Symbols of the gene indices."""

    @property
    def organism(self) -> str:
        """Species, as prompts write it."""

    @property
    def seed(self) -> int:
        """Seed of the tie-break that ranked the cells; pseudobulks use it too."""

    def portions(self, rows: IndexArray, *, with_values: bool) -> Iterator[CellPortion]:
        """Read the genes of some cells, a part at a time.

        Args:
            rows: Which cells, rising, each once.
            with_values: Read their expression too.
        """


def gene_hashes(source: CellSource) -> UIntArray:
    """Return the [N] tie-break hash of each symbol."""
    hashes = [stable_hash(symbol, source.seed) for symbol in source.vocabulary.symbols]
    return np.array(hashes, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class TableSource:
    """Cells in memory."""

    table: CellTable
    """Ranked cells; obs holds the columns that the config names."""
    vocabulary: Vocabulary
    """Symbols of the gene indices."""
    organism: str
    """Species, as prompts write it."""
    seed: int
    """Seed of the tie-break that ranked the cells."""

    @property
    def labels(self) -> CellLabels:
        """Ids and obs of all cells."""
        return CellLabels(self.table.cell_ids, self.table.obs)

    def portions(self, rows: IndexArray, *, with_values: bool) -> Iterator[CellPortion]:
        """Give the cells as one portion; values are there whether asked for or not."""
        del with_values
        yield CellPortion(rows, _taken(self.table, rows))


@dataclass(frozen=True, eq=False)
class ShardSource:
    """Cells of a folder of cell shards."""

    folder: Path
    """What the stage `convert` wrote."""
    columns: tuple[str, ...]
    """Obs columns to read."""

    @cached_property
    def manifest(self) -> CellManifest:
        """What all cells share."""
        return read_manifest(self.folder)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Symbols of the gene indices."""
        return self.manifest.vocabulary

    @property
    def organism(self) -> str:
        """Species, as prompts write it."""
        return self.manifest.organism

    @property
    def seed(self) -> int:
        """Seed of the tie-break that ranked the cells."""
        return self.manifest.seed

    @cached_property
    def labels(self) -> CellLabels:
        """Ids and obs of all cells.

        Raises:
            MissingFileError: If a part is not there.
            DataError: If an obs column is unknown (the nearest is named), or the parts are not
                whole or do not hold the cells of the manifest.
        """
        known = self.manifest.obs_columns
        for column in self.columns:
            if column not in known:
                message = unknown_name("the obs column", column, known, str(self.folder))
                raise DataError(f"{message}; these are the columns that convert.obs took along")
        ids: list[str] = []
        obs: dict[str, list[TextArray]] = {column: [] for column in self.columns}
        for part in self.manifest.parts:
            table = _read(self.folder / part, ["cell_id", *self.columns])
            ids += table["cell_id"].to_pylist()
            for column in self.columns:
                texts = table[column].cast(pa.string()).fill_null("").to_pylist()
                obs[column].append(np.array(texts, dtype=np.str_))
        if len(ids) != self.manifest.num_cells:
            raise DataError(
                f"the parts must hold the {self.manifest.num_cells} cells of the manifest, "
                f"got {len(ids)} in {self.folder}"
            )
        return CellLabels(ids, {name: np.concatenate(parts) for name, parts in obs.items()})

    def portions(self, rows: IndexArray, *, with_values: bool) -> Iterator[CellPortion]:
        """Read the genes of some cells, a row group at a time.

        Where values were not written, those of the rank model stand for them.

        Raises:
            MissingFileError: If a part is not there.
            DataError: If a part is not whole Parquet or a gene is not in the vocabulary.
        """
        stored = ["values"] if with_values and self.manifest.has_values else []
        columns = ["cell_id", "genes", *stored]
        model = self.manifest.rank_model if with_values else None
        start = 0
        for part in self.manifest.parts:
            with _open(self.folder / part) as file:
                for group in range(file.num_row_groups):
                    stop = start + file.metadata.row_group(group).num_rows
                    first, last = np.searchsorted(rows, (start, stop))
                    if first < last:
                        table = _read_group(file, group, columns, self.folder / part)
                        wanted = rows[first:last]
                        cells = self._checked(_from_arrow(table.take(wanted - start), model), part)
                        yield CellPortion(wanted, cells)
                    start = stop

    def _checked(self, cells: CellTable, part: str) -> CellTable:
        num = len(self.vocabulary)
        if len(cells.genes) and not 0 <= cells.genes.min() <= cells.genes.max() < num:
            raise DataError(f"genes must be in 0..{num - 1}, got others in {self.folder / part}")
        return cells


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise MissingFileError(f"every part of the manifest must be there, got no {path}")
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from error


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    with _open(path) as file:
        try:
            return file.read(columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise _not_whole(path, error) from error


def _read_group(file: pq.ParquetFile, group: int, columns: Sequence[str], path: Path) -> pa.Table:
    try:
        return file.read_row_group(group, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise _not_whole(path, error) from error


def _not_whole(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"a cell shard must be whole Parquet, got {reason} in {path}")


def _from_arrow(table: pa.Table, rank_model: RankModel | None) -> CellTable:
    """Take cells out of a table; a rank model gives values where the table has none."""
    genes = table["genes"].combine_chunks()
    lengths = genes.value_lengths().to_numpy().astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    values = NO_VALUES
    if "values" in table.column_names:
        values = table["values"].combine_chunks().flatten().to_numpy()
    elif rank_model is not None:
        by_rank = rank_model.expression(int(lengths.max(initial=0)))
        values = by_rank[np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths)]
    return CellTable(
        cell_ids=tuple(table["cell_id"].to_pylist()),
        indptr=indptr,
        genes=genes.flatten().to_numpy(),
        values=values,
    )


def _taken(cells: CellTable, rows: IndexArray) -> CellTable:
    lengths = np.diff(cells.indptr)[rows]
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    places = np.arange(indptr[-1]) + np.repeat(cells.indptr[rows] - indptr[:-1], lengths)
    return CellTable(
        cell_ids=tuple(cells.cell_ids[row] for row in rows.tolist()),
        indptr=indptr,
        genes=cells.genes[places],
        values=cells.values[places],
    )


NO_VALUES = np.zeros(0, dtype=np.float32)
