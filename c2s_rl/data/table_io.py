"""Opening expression tables (.csv, .tsv, .parquet) as a CellFile.

Cells may be rows or columns. The table is parsed once, in blocks, into compressed rows of the
scratch folder (zeros are left out, as in any dense matrix), so memory does not grow with the file.
Which columns are labels is said by the config: those it names; every other column is a gene.

Shapes: C cells, N genes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import numpy as np

from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.formats import Format
from c2s_rl.data.scratch import made_once
from c2s_rl.data.spool import entry_spool, row_spool, spooled_rows, spooled_texts, text_spool
from c2s_rl.data.table_read import (
    TableBlock,
    TableColumns,
    read_header,
    read_parquet_blocks,
    read_parquet_header,
    read_text_blocks,
    sort_columns,
)
from c2s_rl.data.text_column import HeldNames
from c2s_rl.errors import DataError, MissingFileError

DELIMITERS = {Format.CSV: ",", Format.TSV: "\t"}


class Orientation(StrEnum):
    """What a row of a table is."""

    CELLS_BY_GENES = "cells_by_genes"
    GENES_BY_CELLS = "genes_by_cells"


@dataclass(frozen=True)
class TableOptions:
    """How a table is laid out."""

    file_format: Format
    """csv, tsv or parquet."""
    orientation: Orientation
    id_column: str | None
    """Column of row names; None takes pandas' index or the first column."""
    labels: tuple[str, ...]
    """Label columns: of cells where rows are cells, of genes where rows are genes."""
    ignored: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TableCells:
    """An opened table; `genes` has the names of the genes and their label columns."""

    cells: CellFile
    gene_labels: dict[str, tuple[str, ...]]
    """[N] texts of each label column, where rows are genes."""


def open_table(path: Path, options: TableOptions, scratch: Path) -> TableCells:
    """Open a table for reading by cells.

    Args:
        path: The file; .gz is understood for text.
        options: Its layout.
        scratch: A folder that stays for the whole conversion.

    Raises:
        MissingFileError: If there is no such file.
        DataError: If the file is damaged, lacks a column that is named, or holds something other
            than numbers where a gene should be (line and column are named).
    """
    if not path.is_file():
        raise MissingFileError(f"a table of cells must exist, got {path}")
    columns = _columns(path, options)
    is_cells = options.orientation is Orientation.CELLS_BY_GENES
    make = partial(_spool_cells if is_cells else _spool_genes, path, options, columns)
    folder = made_once(scratch, path, repr(options), make)
    ids, *texts = spooled_texts(folder)
    labels = dict(zip((columns.names[p] for p in columns.label_places), texts, strict=True))
    num_genes = len(columns.numbers) if is_cells else len(ids)
    matrix = spooled_rows(folder, num_genes, place=str(path))
    if 0 in matrix.shape:
        raise DataError(
            f"a table must hold cells and genes, got {matrix.shape[0]} and {num_genes} in {path}"
        )
    cells = CellFile(
        path=path,
        place=str(path),
        cell_ids=ids if is_cells else HeldNames(columns.numbers),
        var_names=columns.numbers if is_cells else tuple(ids.read(0, num_genes).tolist()),
        obs=dict(labels) if is_cells else {},
        matrix=matrix,
    )
    if is_cells:
        return TableCells(cells, {})
    return TableCells(
        cells, {name: tuple(column.read(0, num_genes).tolist()) for name, column in labels.items()}
    )


def table_column_names(path: Path, file_format: Format) -> tuple[str, ...]:
    """Return the header of a table.

    Raises:
        DataError: If the file is damaged.
    """
    if file_format is Format.PARQUET:
        return read_parquet_header(path)[0]
    return read_header(path, DELIMITERS[file_format])


def _columns(path: Path, options: TableOptions) -> TableColumns:
    id_column = options.id_column
    if options.file_format is Format.PARQUET:
        names, index = read_parquet_header(path)
        id_column = id_column or index
    else:
        names = read_header(path, DELIMITERS[options.file_format])
    return sort_columns(
        names,
        id_column=id_column,
        labels=options.labels,
        ignored=options.ignored,
        place=str(path),
    )


def _blocks(path: Path, options: TableOptions, columns: TableColumns) -> Iterator[TableBlock]:
    if options.file_format is Format.PARQUET:
        return read_parquet_blocks(path, columns)
    return read_text_blocks(path, DELIMITERS[options.file_format], columns)


def _spool_cells(path: Path, options: TableOptions, columns: TableColumns, folder: Path) -> None:
    num_texts = 1 + len(columns.label_places)
    with row_spool(folder) as add_rows, text_spool(folder, num_texts) as add_texts:
        for block in _blocks(path, options, columns):
            row_Z, column_Z = np.nonzero(block.values_B_N)
            lengths = np.bincount(row_Z, minlength=len(block.ids))
            add_rows(lengths, column_Z, block.values_B_N[row_Z, column_Z])
            add_texts([block.ids, *block.labels])


def _spool_genes(path: Path, options: TableOptions, columns: TableColumns, folder: Path) -> None:
    num_texts = 1 + len(columns.label_places)
    num_genes = 0
    with (
        entry_spool(folder, len(columns.numbers)) as add_entries,
        text_spool(folder, num_texts) as add_texts,
    ):
        for block in _blocks(path, options, columns):
            gene_Z, cell_Z = np.nonzero(block.values_B_N)
            add_entries(cell_Z, num_genes + gene_Z, block.values_B_N[gene_Z, cell_Z])
            add_texts([block.ids, *block.labels])
            num_genes += len(block.ids)
