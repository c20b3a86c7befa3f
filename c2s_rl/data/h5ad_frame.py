"""Tables of cells and genes: the Frame that every format offers, and obs and var of an .h5ad file.

Columns are read one at a time, and by ranges of rows, where the file allows it. Files from before
anndata 0.7 (scanpy ships one) hold the frame as one table and are read through anndata as a whole.
Labels come out as text, whatever type the column has. The frames of L1000 files are in
`side_tables.py` and `gctx.py`.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import h5py

from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.data.stored_texts import stored_texts
from c2s_rl.data.text_column import HeldNames, TextColumn, held_labels
from c2s_rl.errors import DataError, UnknownColumnError

if TYPE_CHECKING:
    import pandas as pd


class Frame(Protocol):
    """obs or var: names of the rows and named columns."""

    def index(self) -> list[str]:
        """Return the names of the rows."""

    def column_names(self) -> list[str]:
        """Return the names of the columns, in order."""

    def column(self, name: str) -> "pd.Series":
        """Read one of `column_names`."""


class TextFrame(Frame, Protocol):
    """A frame whose texts can be read by ranges of rows."""

    def row_names(self) -> TextColumn:
        """Return the names of the rows."""

    def texts(self, name: str) -> TextColumn:
        """Return one of `column_names` as text."""


def open_frame(file: h5py.File, path: Path, name: str) -> TextFrame:
    """Open obs, var or raw.var of an .h5ad file.

    Raises:
        DataError: If the file has no such part.
    """
    # Files from before anndata 0.7 write 'raw.var' where later ones write 'raw/var'.
    node = file.get("raw/var" if name == "raw.var" and "raw" in file else name)
    if node is None:
        raise DataError(f"an .h5ad file must hold obs and var, got no {name} in {path}")
    if node.attrs.get("encoding-version") == "0.2.0":
        return StoredFrame(node, str(path))
    return _LoadedFrame(_load_legacy(path, name))


class StoredFrame:
    """A frame of anndata's layout, in HDF5 or zarr: what is asked for is read."""

    def __init__(self, group: h5py.Group, place: str) -> None:
        """Take the frame's group, and the file for messages."""
        self._group = group
        self._place = place

    def index(self) -> list[str]:
        """Return the names of the rows."""
        names = self.row_names()
        return [str(name) for name in names.read(0, len(names))]

    def row_names(self) -> TextColumn:
        """Return the names of the rows, to be read by ranges."""
        return self._stored(str(self._group.attrs["_index"]))

    def column_names(self) -> list[str]:
        """Return the names of the columns, in order."""
        return [str(name) for name in self._group.attrs["column-order"]]

    def column(self, name: str) -> "pd.Series":
        """Read one column as a whole."""
        import pandas as pd
        from anndata.io import read_elem

        return pd.Series(read_elem(self._node(name)))

    def texts(self, name: str) -> TextColumn:
        """Return one column, to be read by ranges."""
        return self._stored(name)

    def _stored(self, name: str) -> TextColumn:
        return stored_texts(self._node(name), name=name, place=self._place)

    def _node(self, name: str) -> h5py.Group | h5py.Dataset:
        if name not in self._group:
            raise DataError(
                f"a frame must hold the columns that it lists, got no {name!r} in "
                f"{self._group.name} of {self._place}"
            )
        return self._group[name]


class _LoadedFrame:
    """A frame that could only be read as a whole."""

    def __init__(self, frame: "pd.DataFrame") -> None:
        self._frame = frame

    def index(self) -> list[str]:
        return [str(name) for name in self._frame.index]

    def column_names(self) -> list[str]:
        return [str(name) for name in self._frame.columns]

    def column(self, name: str) -> "pd.Series":
        return self._frame[name]

    def row_names(self) -> TextColumn:
        return HeldNames(self.index())

    def texts(self, name: str) -> TextColumn:
        return held_labels(self._frame[name])


def _load_legacy(path: Path, name: str) -> "pd.DataFrame":
    """Read obs or var of an old file through anndata, which knows every version it has written."""
    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about parts of the old file that are not used here
        adata = anndata.read_h5ad(path, backed="r")
    try:
        if name == "raw.var":
            return adata.raw.var
        return adata.obs if name == "obs" else adata.var
    finally:
        adata.file.close()


def read_column(frame: Frame, name: str, *, what: str, place: str) -> "pd.Series":
    """Read one column of a frame.

    Args:
        frame: obs or var.
        name: The column.
        what: 'obs' or 'var', for the message.
        place: The file, for the message.

    Raises:
        DataError: If there is no such column; names the nearest.
    """
    require_column(frame, name, what=what, place=place)
    return frame.column(name)


def require_column(frame: Frame, name: str, *, what: str, place: str) -> None:
    """Check that a frame has a column; see `read_column`.

    Raises:
        DataError: If there is no such column; names the nearest.
    """
    known = frame.column_names()
    if name not in known:
        kind = UnknownColumnError if what == "obs" else DataError
        raise kind(unknown_name(f"the {what} column", name, known, place))


def read_symbols(var: Frame, symbol_column: str | None, place: str) -> list[str]:
    """Read the names of the genes: a var column, or the names of the rows.

    Raises:
        DataError: If there is no such column (the nearest is named) or it lacks a symbol.
    """
    if symbol_column is None:
        return var.index()
    column = read_column(var, symbol_column, what="var", place=place)
    num_missing = int(column.isna().sum())
    if num_missing:
        raise DataError(
            f"every gene must have a symbol, got {num_missing} missing in var column "
            f"{symbol_column!r} in {place}; fill them, for example with the Ensembl id"
        )
    return [str(symbol) for symbol in column]


def read_ids(var: TextFrame, id_column: str, place: str) -> tuple[str, ...]:
    """Read the ids beside the names of the genes; '' where missing.

    Raises:
        DataError: If there is no such column; names the nearest.
    """
    require_column(var, id_column, what="var", place=place)
    ids = var.texts(id_column)
    return tuple(ids.read(0, len(ids)).tolist())


def open_texts(frame: TextFrame, name: str, *, place: str) -> TextColumn:
    """Make one obs column readable as text, by ranges of rows.

    Raises:
        DataError: If there is no such column; names the nearest.
    """
    require_column(frame, name, what="obs", place=place)
    return frame.texts(name)
