"""Opening L1000 files: .gct, .gct.gz and .gctx become the same CellFile as an .h5ad file.

A profile is a row, a gene a column. Labels come from the file, from a table beside it, or both;
gene symbols from a label column or from a table by gene id. Left out: joining several plates (the
GEO files hold all of them) and level 4 and 5 values, which are scores, not expression.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from c2s_rl.cells.vocabulary import shown, unknown_name
from c2s_rl.data.cell_file import CellFile
from c2s_rl.data.gct import read_gct
from c2s_rl.data.gctx import read_gctx
from c2s_rl.data.h5ad_frame import Frame, read_labels, read_symbols
from c2s_rl.data.h5ad_matrix import hdf5_errors
from c2s_rl.data.profiles import ProfileFile
from c2s_rl.data.side_tables import SideTables, name_genes, read_profile_table
from c2s_rl.data.text_column import HeldLabels, HeldNames
from c2s_rl.errors import DataError, MissingFileError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".gct", ".gct.gz", ".gctx")


def is_l1000(path: str) -> bool:
    """Whether a file is read by this module, by the end of its name."""
    return path.lower().endswith(SUFFIXES)


@contextmanager
def open_l1000(
    path: Path,
    *,
    symbol_column: str | None,
    obs_columns: Sequence[str],
    tables: SideTables,
    scratch: Path,
) -> Iterator[CellFile]:
    """Open an L1000 file for reading by profiles; it stays open inside the `with` block.

    Args:
        path: A .gct, .gct.gz or .gctx file.
        symbol_column: The label column of genes that holds symbols, or the ids that
            `tables.genes` lists; None takes the names of the rows.
        obs_columns: Labels of the profiles to read as text.
        tables: Labels and symbols that are not in the file.
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
            if path.name.lower().endswith(".gctx"):
                opened = read_gctx(stack.enter_context(h5py.File(path, "r")), path)
            else:
                opened = read_gct(path, scratch)
            cells = _as_cells(opened, path, symbol_column, obs_columns, tables)
        yield cells


def _as_cells(
    opened: ProfileFile,
    path: Path,
    symbol_column: str | None,
    obs_columns: Sequence[str],
    tables: SideTables,
) -> CellFile:
    place = str(path)
    profile_ids, gene_names = opened.profiles.index(), opened.genes.index()
    symbols: Sequence[str] = read_symbols(opened.genes, symbol_column, place)
    matrix, num_unnamed = opened.matrix, 0
    if tables.genes is not None:
        named = name_genes(tables, symbols, place)
        num_unnamed = len(gene_names) - len(named.rows)
        symbols, matrix = named.symbols, matrix.of_genes(named.rows)
    elif all(symbol.isdecimal() for symbol in symbols):
        raise DataError(
            f"genes must be named by symbols, got numbers ({shown(symbols)}) in {place}; name a "
            "label column of genes as symbol_column, or a table as tables.genes"
        )
    frame: Frame = opened.profiles
    if tables.profiles is not None:
        frame = _Joined(read_profile_table(tables, profile_ids, place), opened.profiles)
    return CellFile(
        path=path,
        place=place,
        cell_ids=HeldNames(profile_ids),
        var_names=tuple(symbols),
        obs={name: _labels(frame, name, place, tables) for name in obs_columns},
        matrix=matrix,
        most_rows=matrix.most_rows,
        num_unnamed_genes=num_unnamed,
    )


def _labels(frame: Frame, name: str, place: str, tables: SideTables) -> HeldLabels:
    known = frame.column_names()
    if name not in known:
        advice = "; name a table of profiles as tables.profiles" if tables.profiles is None else ""
        raise DataError(unknown_name("the label of profiles", name, known, place) + advice)
    return read_labels(frame, name, place=place)


class _Joined:
    """Two frames of the same rows; a column is taken from the first that has it."""

    def __init__(self, first: Frame, second: Frame) -> None:
        self._frames = (first, second)

    def index(self) -> list[str]:
        return self._frames[0].index()

    def column_names(self) -> list[str]:
        return list(dict.fromkeys(n for frame in self._frames for n in frame.column_names()))

    def column(self, name: str) -> "pd.Series":
        first, second = self._frames
        return (first if name in first.column_names() else second).column(name)
