"""Opening L1000 files: .gct, .gct.gz and .gctx become the same CellFile as an .h5ad file.

A profile is a row, a gene a column. Gene symbols come from a label column, or from a table by gene
id. Left out: joining several plates (the GEO files hold all of them) and values of level 4 and 5,
which are scores, not expression.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py

from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.gct import read_gct
from c2s_rl.data.gctx import read_gctx
from c2s_rl.data.h5ad_frame import Frame, read_column, read_symbols
from c2s_rl.data.h5ad_matrix import hdf5_errors
from c2s_rl.data.l1000_names import GENE_IDS, first_known, own_name
from c2s_rl.data.profiles import ProfileFile
from c2s_rl.data.side_tables import SideTables, name_genes
from c2s_rl.data.text_column import TextColumn
from c2s_rl.errors import DataError, MissingFileError


@dataclass(frozen=True)
class GeneNaming:
    """Where the names of the genes come from."""

    symbol_column: str | None = None
    """Label column with symbols, or the ids that `tables.genes` lists; None: names of the rows."""
    id_column: str | None = None
    """Label column with ids; None takes pr_gene_id or gene_id where there is one."""
    is_resolved_later: bool = False
    """Whether symbols are looked up afterwards, so that numbers may stand for them here."""


@contextmanager
def open_l1000(
    path: Path,
    *,
    is_binary: bool,
    naming: GeneNaming,
    obs_columns: Sequence[str],
    tables: SideTables,
    scratch: Path,
) -> Iterator[CellFile]:
    """Open an L1000 file for reading by profiles; it stays open inside the `with` block.

    Args:
        path: A GCT or GCTX file.
        is_binary: Whether it is GCTX.
        naming: Where the names of the genes come from.
        obs_columns: Labels of the profiles in the file, by their own or their common name.
        tables: Its `genes` names the genes, where it is set.
        scratch: Folder for the values of a text file; see `made_once`.

    Raises:
        MissingFileError: If the file or a table is not there.
        DataError: If a file is damaged, lacks what is asked for (the nearest name is given), or
            its parts disagree.
    """
    if not path.is_file():
        raise MissingFileError(f"an L1000 file must exist, got {path}")
    with ExitStack() as stack:
        with hdf5_errors(path):
            if is_binary:
                opened = read_gctx(stack.enter_context(h5py.File(path, "r")), path)
            else:
                opened = read_gct(path, scratch)
            cells = _as_cells(opened, path, naming, obs_columns, tables)
        yield cells


def _as_cells(
    opened: ProfileFile,
    path: Path,
    naming: GeneNaming,
    obs_columns: Sequence[str],
    tables: SideTables,
) -> CellFile:
    place = str(path)
    symbols: Sequence[str] = read_symbols(opened.genes, naming.symbol_column, place)
    gene_ids = _gene_ids(opened.genes, naming, place)
    matrix, num_unnamed = opened.matrix, 0
    if tables.genes is not None:
        named = name_genes(tables, symbols, place)
        num_unnamed = len(symbols) - len(named.rows)
        symbols, matrix = named.symbols, matrix.of_genes(named.rows)
        gene_ids = tuple(gene_ids[row] for row in named.rows) if gene_ids else ()
    elif not naming.is_resolved_later and all(symbol.isdecimal() for symbol in symbols):
        raise DataError(
            f"genes must be named by symbols, got numbers ({shown(symbols)}) in {place}; name a "
            "label column of genes as symbol_column, or a table as symbols.table or tables.genes"
        )
    return CellFile(
        path=path,
        place=place,
        cell_ids=opened.profiles.row_names(),
        var_names=tuple(symbols),
        obs={name: _labels(opened, name, place) for name in obs_columns},
        matrix=matrix,
        most_rows=matrix.most_rows,
        num_unnamed_genes=num_unnamed,
        gene_ids=gene_ids,
    )


def _gene_ids(genes: Frame, naming: GeneNaming, place: str) -> tuple[str, ...]:
    column = naming.id_column or first_known(GENE_IDS, genes.column_names())
    if column is None:
        return ()
    ids = read_column(genes, column, what="var", place=place)
    return tuple(ids.fillna("").astype(str))


def _labels(opened: ProfileFile, name: str, place: str) -> TextColumn:
    known = opened.profiles.column_names()
    own = own_name(name, known)
    if own is None:
        raise DataError(
            unknown_name("the label of profiles", name, known, place)
            + "; name a table of profiles as tables.profiles"
        )
    return opened.profiles.texts(own)
