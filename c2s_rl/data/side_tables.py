"""Tables that lie beside a file of cells: labels of its cells, symbols of its row ids.

The large L1000 files of GEO hold nothing but ids: what was done to a profile is in an inst_info
table, which gene a row is in a gene_info table or in HGNC's. Matrices as text, MTX folders and .h5
files of 10x come with such tables too. They have one line of column names and are separated by tabs
(.csv: by commas), plain or gzip-compressed. Only the columns that are asked for are held.

Shapes: C cells, N genes.
"""

import csv
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.config import FrozenConfig, expand_variables
from c2s_rl.data.l1000_names import (
    GENE_IDS,
    GENE_SYMBOLS,
    PROFILE_IDS,
    first_known,
    own_name,
)
from c2s_rl.data.text_column import HeldLabels, HeldNames, TextColumn, held_labels
from c2s_rl.errors import DataError, MissingFileError

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "-666", "-666.0", "na", "NA", "nan", "NaN")
"""What stands for "no value" in L1000 files and their tables; -666 is CMap's own sign."""
IDS_AT_ONCE = 65_536


class SideTables(FrozenConfig):
    """Tables beside a file of cells."""

    obs: str | None = Field(
        None, description="Table of the cells; its columns come before those of the file"
    )
    obs_id: str | None = Field(
        None, description="Column of it with the ids of the cells; null: the first"
    )
    profiles: str | None = Field(
        None, description="Instead of obs, for L1000: table of the profiles (inst_info.txt)"
    )
    profile_id: str | None = Field(
        None, description="Column of it with the ids of the profiles; null: inst_id or sample_id"
    )
    genes: str | None = Field(
        None, description="L1000: gives gene ids their symbols; genes it lacks are left out"
    )
    gene_id: str | None = Field(
        None, description="Column of it with the ids; null: entrez_id, pr_gene_id or gene_id"
    )
    gene_symbol: str | None = Field(
        None, description="Column of it; null: symbol, pr_gene_symbol or gene_symbol"
    )

    @model_validator(mode="after")
    def _one_table_of_cells(self) -> Self:
        if self.obs is not None and self.profiles is not None:
            raise ValueError(
                f"tables need either obs or profiles, got {self.obs!r} and {self.profiles!r}"
            )
        return self

    @property
    def paths(self) -> tuple[str, ...]:
        """The tables that are named."""
        return tuple(p for p in (self.obs, self.profiles, self.genes) if p is not None)


@dataclass(frozen=True, eq=False)
class NamedGenes:
    """The genes that a table has a symbol for."""

    rows: npt.NDArray[np.int64]
    """[N] places in the file, rising."""
    symbols: tuple[str, ...]
    """[N] symbol of each."""


class TableFrame:
    """A table as a Frame; cells of it that say so are missing."""

    def __init__(self, table: "pd.DataFrame") -> None:
        """Take a table of text whose index names the rows."""
        self._table = table

    def index(self) -> list[str]:
        """Return the names of the rows."""
        return [str(name) for name in self._table.index]

    def column_names(self) -> list[str]:
        """Return the names of the columns, in order."""
        return [str(name) for name in self._table.columns]

    def column(self, name: str) -> "pd.Series":
        """Read one of `column_names`."""
        column = self._table[name]
        return column.where(~column.isin(MISSING))

    def row_names(self) -> HeldNames:
        """Return the names of the rows."""
        return HeldNames(self.index())

    def texts(self, name: str) -> HeldLabels:
        """Return one of `column_names` as text."""
        return held_labels(self.column(name))


@dataclass(frozen=True)
class ObsTable:
    """A table of cells of which only the header was read."""

    path: Path
    id_column: str
    columns: tuple[str, ...]

    def has(self, name: str) -> bool:
        """Whether it has a column, under this name or one that means the same."""
        return own_name(name, self.columns) is not None

    def labels(
        self, names: Sequence[str], cell_ids: TextColumn, place: str
    ) -> dict[str, HeldLabels]:
        """Read columns for the cells of a file, in their order.

        Args:
            names: Columns that `has` knows.
            cell_ids: [C] ids as in the file.
            place: The file, for messages.

        Raises:
            DataError: If the table repeats an id or lacks a cell of the file.
        """
        own = {name: own_name(name, self.columns) or name for name in names}
        table = read_table(self.path, [self.id_column, *own.values()])
        table = _by_id(table, self.id_column, self.path)
        rows = self._rows(table.index, cell_ids, place)
        frame = TableFrame(table)
        return {name: held_labels(frame.column(column).iloc[rows]) for name, column in own.items()}

    def _rows(self, ids: "pd.Index", cell_ids: TextColumn, place: str) -> npt.NDArray[np.int64]:
        rows = np.empty(len(cell_ids), dtype=np.int64)
        absent: list[str] = []
        for start in range(0, len(cell_ids), IDS_AT_ONCE):
            wanted = cell_ids.read(start, min(start + IDS_AT_ONCE, len(cell_ids)))
            found = ids.get_indexer(wanted.astype(object))
            rows[start : start + len(wanted)] = found
            absent += wanted[found < 0].tolist()
        if absent:
            raise DataError(
                f"a table of cells must have a row for every cell of {place}, got none for "
                f"{len(absent)} ({shown(absent)}) in column {self.id_column!r} of {self.path}"
            )
        return rows


def open_obs_table(tables: SideTables) -> ObsTable | None:
    """Read the header of the table of cells, where there is one.

    Raises:
        ConfigError: If the path uses an environment variable that is not set.
        MissingFileError: If there is no such table.
        DataError: If it is no table or lacks the id column.
    """
    named = tables.obs or tables.profiles
    if named is None:
        return None
    path = Path(expand_variables(named))
    columns = [str(name) for name in read_table(path, num_rows=0).columns]
    if tables.obs is not None:
        id_column = tables.obs_id or first_known(PROFILE_IDS, columns) or columns[0]
    else:
        id_column = tables.profile_id or first_known(PROFILE_IDS, columns) or PROFILE_IDS[0]
    _require_column(id_column, columns, path)
    return ObsTable(path, id_column, tuple(columns))


def name_genes(tables: SideTables, gene_ids: Sequence[str], place: str) -> NamedGenes:
    """Look up the symbols of gene ids.

    Args:
        tables: With `genes` set.
        gene_ids: Ids as in the expression file.
        place: The expression file, for messages.

    Raises:
        MissingFileError: If there is no such table.
        DataError: If it is no table, lacks a column, repeats an id, or knows none of the ids.
    """
    path = Path(expand_variables(tables.genes or ""))
    columns = [str(name) for name in read_table(path, num_rows=0).columns]
    id_column = tables.gene_id or first_known(GENE_IDS, columns) or GENE_IDS[0]
    symbol_column = tables.gene_symbol or first_known(GENE_SYMBOLS, columns) or GENE_SYMBOLS[0]
    for column in (id_column, symbol_column):
        _require_column(column, columns, path)
    table = _by_id(read_table(path, [id_column, symbol_column]), id_column, path)
    symbols = TableFrame(table).column(symbol_column)
    known = {str(gene): str(symbol) for gene, symbol in symbols.dropna().items()}
    rows = [row for row, gene in enumerate(gene_ids) if gene in known]
    if not rows:
        raise DataError(
            f"a table of genes must have symbols for the genes of {place}, got none for "
            f"{shown(gene_ids)} in columns {id_column!r} and {symbol_column!r} of {path}"
        )
    return NamedGenes(np.array(rows, dtype=np.int64), tuple(known[gene_ids[row]] for row in rows))


def read_table(
    path: Path, columns: Sequence[str] | None = None, *, num_rows: int | None = None
) -> "pd.DataFrame":
    """Read a table as text.

    Args:
        path: Tab-separated, or .csv; plain or .gz.
        columns: Those to read; None: all.
        num_rows: Rows to read; None: all.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If it is not a table of text.
    """
    import pandas as pd

    if not path.is_file():
        raise MissingFileError(f"a table must be a file that exists, got {path}")
    is_csv = path.name.lower().removesuffix(".gz").endswith(".csv")
    wanted: Callable[[str], bool] | None = None if columns is None else columns.__contains__
    try:
        table = pd.read_csv(
            path,
            sep="," if is_csv else "\t",
            dtype=str,
            keep_default_na=False,
            # Quotes stand for inches and seconds in tables with tabs, not around texts.
            quoting=csv.QUOTE_MINIMAL if is_csv else csv.QUOTE_NONE,
            usecols=wanted,
            nrows=num_rows,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"a table must be text separated by {'commas' if is_csv else 'tabs'}, got {reason} "
            f"in {path}"
        ) from error
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"a table must be whole, got {error} in {path}") from error
    if not isinstance(table.index, pd.RangeIndex):
        # pandas takes the first field of each line for its name.
        raise DataError(
            f"a table must have a name for every column, got more fields than names in {path}"
        )
    return table


def _require_column(name: str, columns: Sequence[str], path: Path) -> None:
    if name not in columns:
        raise DataError(unknown_name("a column of a table", name, columns, str(path)))


def _by_id(table: "pd.DataFrame", id_column: str, path: Path) -> "pd.DataFrame":
    """Index a table by its ids; rows without an id are left out."""
    table = table[~table[id_column].isin(MISSING)]
    repeated = table[id_column][table[id_column].duplicated()]
    if len(repeated):
        raise DataError(
            f"ids of a table must be unique, got {shown([str(name) for name in repeated])} more "
            f"than once in column {id_column!r} of {path}"
        )
    return table.set_index(id_column, drop=False)
