"""Tables that lie beside an expression file: labels of its profiles, symbols of its row ids.

The large L1000 files of GEO hold nothing but ids: what was done to a profile is in an inst_info
table, which gene a row is in a gene_info table or in HGNC's. All are separated by tabs, with one
line of column names, plain or gzip-compressed. Left out: comma-separated tables.
"""

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field

from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.config import FrozenConfig, expand_variables
from c2s_rl.errors import DataError, MissingFileError

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("", "-666", "-666.0", "na", "NA", "nan", "NaN")
"""What stands for "no value" in L1000 files and their tables; -666 is CMap's own sign."""


class SideTables(FrozenConfig):
    """Tables beside a .gct or .gctx file."""

    profiles: str | None = Field(
        None,
        description="Table of the profiles (inst_info.txt); its columns come before the file's",
    )
    profile_id: str = Field("inst_id", description="Column of it with the ids of the profiles")
    genes: str | None = Field(
        None, description="Table that gives gene ids their symbols; genes it lacks are left out"
    )
    gene_id: str = Field("entrez_id", description="Column of it with the gene ids")
    gene_symbol: str = Field("symbol", description="Column of it with the symbols")

    @property
    def paths(self) -> tuple[str, ...]:
        """The tables that are named."""
        return tuple(path for path in (self.profiles, self.genes) if path is not None)


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


def read_profile_table(tables: SideTables, profile_ids: Sequence[str], place: str) -> TableFrame:
    """Read the rows of the profile table that belong to the profiles of a file, in their order.

    Args:
        tables: With `profiles` set.
        profile_ids: Ids as in the expression file.
        place: The expression file, for messages.

    Raises:
        MissingFileError: If there is no such table.
        DataError: If it is no table, lacks the id column or a profile, or repeats an id.
    """
    path = Path(expand_variables(tables.profiles or ""))
    table = _read(path, tables.profile_id, [])
    absent = [name for name in profile_ids if name not in table.index]
    if absent:
        raise DataError(
            f"a table of profiles must have a row for every profile of {place}, got none for "
            f"{len(absent)} ({shown(absent)}) in column {tables.profile_id!r} of {path}"
        )
    return TableFrame(table.loc[list(profile_ids)])


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
    table = _read(path, tables.gene_id, [tables.gene_symbol])
    symbols = TableFrame(table).column(tables.gene_symbol)
    known = {str(gene): str(symbol) for gene, symbol in symbols.dropna().items()}
    rows = [row for row, gene in enumerate(gene_ids) if gene in known]
    if not rows:
        raise DataError(
            f"a table of genes must have symbols for the genes of {place}, got none for "
            f"{shown(gene_ids)} in columns {tables.gene_id!r} and {tables.gene_symbol!r} of {path}"
        )
    return NamedGenes(np.array(rows, dtype=np.int64), tuple(known[gene_ids[row]] for row in rows))


def _read(path: Path, id_column: str, others: Sequence[str]) -> "pd.DataFrame":
    """Read a table by its id column; rows without an id are left out."""
    import pandas as pd

    if not path.is_file():
        raise MissingFileError(f"a table must be a file that exists, got {path}")
    try:
        # Quotes stand for inches and seconds in these tables, not around texts.
        table = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"a table must be text separated by tabs, got {reason} in {path}"
        ) from error
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"a table must be whole, got {error} in {path}") from error
    for column in (id_column, *others):
        if column not in table.columns:
            known = [str(name) for name in table.columns]
            raise DataError(unknown_name("a column of a table", column, known, str(path)))
    table = table[~table[id_column].isin(MISSING)]
    repeated = table[id_column][table[id_column].duplicated()]
    if len(repeated):
        raise DataError(
            f"ids of a table must be unique, got {shown([str(name) for name in repeated])} more "
            f"than once in column {id_column!r} of {path}"
        )
    return table.set_index(id_column, drop=False)
