"""A table of gene names: which approved symbol an id, a former symbol or an alias stands for.

Reads HGNC's download (hgnc_complete_set, custom downloads), tables of the same columns for other
species, and L1000's gene_info tables. A name is looked up as written: mouse symbols are not
upper-cased. A former symbol that several genes had, and one that is itself approved today, is never
guessed. Aliases were never official; their case varies, so they are compared without it.
Left out: downloading any table; the user brings one.

Source: HGNC, https://www.genenames.org/download/ (CC0)
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from c2s_rl.cells.vocabulary import shown
from c2s_rl.config import expand_variables
from c2s_rl.data.side_tables import read_table
from c2s_rl.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

# Column names of HGNC's full and custom downloads, and of both generations of L1000's tables.
SYMBOL_COLUMNS = ("symbol", "Approved symbol", "pr_gene_symbol", "gene_symbol")
ENTREZ_COLUMNS = ("entrez_id", "NCBI Gene ID", "NCBI gene ID", "pr_gene_id", "gene_id")
ENSEMBL_COLUMNS = ("ensembl_gene_id", "Ensembl gene ID", "Ensembl ID", "ensembl_id")
PREVIOUS_COLUMNS = ("prev_symbol", "Previous symbols", "Previous symbol")
ALIAS_COLUMNS = ("alias_symbol", "Alias symbols", "Alias symbol")

# With or without version and the mark of the pseudoautosomal copy: ENSG00000182378.14_PAR_Y.
ENSEMBL_ID = re.compile(r"(ENS[A-Z]{0,4}G\d{11})(?:\.\d+)?(?:_PAR_Y)?")
ENTREZ_ID = re.compile(r"(\d+)(?:\.0)?")  # a column of numbers with gaps is one of floats

Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class SymbolTable:
    """Approved symbols, and the names that lead to them."""

    path: Path
    approved: frozenset[str]
    of_ensembl: Names
    """Ensembl id without version to its symbols; several where the table gives several."""
    of_entrez: Names
    of_previous: Names
    """Former symbol to the approved symbols that had it."""
    of_alias: Names
    """Alias in lower case to the approved symbols that have it."""


def read_symbol_table(text_path: str) -> SymbolTable:
    """Read a table of gene names.

    Args:
        text_path: The table, tab-separated (.csv: comma), plain or .gz; may use ${VARIABLES}.

    Raises:
        ConfigError: If the path uses an environment variable that is not set.
        MissingFileError: If there is no such file.
        DataError: If it is no table, has no column of symbols, or none that leads to them.
    """
    path = Path(expand_variables(text_path))
    table = read_table(path)
    columns = [str(name) for name in table.columns]
    symbol = _first(SYMBOL_COLUMNS, columns)
    if symbol is None:
        raise DataError(
            f"a table of genes must have a column of symbols, one of {', '.join(SYMBOL_COLUMNS)}, "
            f"got {shown(columns)} in {path}"
        )
    symbols = _cells(table, symbol)
    # Not every other column must be there: a table of ids and symbols is of use.
    return SymbolTable(
        path=path,
        approved=frozenset(name for name in symbols if name),
        of_ensembl=_names(table, ENSEMBL_COLUMNS, symbols),
        of_entrez=_names(table, ENTREZ_COLUMNS, symbols),
        of_previous=_names(table, PREVIOUS_COLUMNS, symbols),
        of_alias=_names(table, ALIAS_COLUMNS, symbols, is_caseless=True),
    )


def _first(wanted: Sequence[str], columns: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in columns), None)


def _cells(table: "pd.DataFrame", column: str) -> list[str]:
    # HGNC puts quotes around fields that hold several names.
    return [str(text).strip().strip('"') for text in table[column]]


def _names(
    table: "pd.DataFrame",
    wanted: Sequence[str],
    symbols: Sequence[str],
    *,
    is_caseless: bool = False,
) -> Names:
    """Collect the symbols of every name in a column; '' where the table has no such column."""
    column = _first(wanted, [str(name) for name in table.columns])
    found: defaultdict[str, list[str]] = defaultdict(list)
    if column is None:
        return {}
    for text, symbol in zip(_cells(table, column), symbols, strict=True):
        for name in re.split(r"[|,]\s*", text):
            key = name.strip().lower() if is_caseless else name.strip()
            if key and symbol and symbol not in found[key]:
                found[key].append(symbol)
    return {name: tuple(names) for name, names in found.items()}
