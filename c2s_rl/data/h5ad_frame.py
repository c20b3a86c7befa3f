"""Tables of cells and genes: the Frame that every format offers, and obs and var of an .h5ad file.

Columns are read one at a time where the file allows it. Files from before anndata 0.7 (scanpy ships
one) hold the frame as one table and are read through anndata as a whole. Labels come out as text,
whatever type the column has. The frames of L1000 files are in `side_tables.py` and `gctx.py`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from c2s_rl.cells.vocabulary import unknown_name
from c2s_rl.errors import DataError
from c2s_rl.types import IntArray

if TYPE_CHECKING:
    import pandas as pd

TextArray = npt.NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Labels:
    """One obs column as text."""

    codes: IntArray
    """[C] index into `categories`; -1 where the label is missing."""
    categories: tuple[str, ...]

    def rows(self, start: int, stop: int) -> TextArray:
        """Return the labels of rows start..stop-1; '' where missing."""
        # The last entry stands for missing: code -1.
        return np.array([*self.categories, ""])[self.codes[start:stop]]

    @property
    def num_missing(self) -> int:
        """Cells without a label."""
        return int(np.count_nonzero(self.codes < 0))


class Frame(Protocol):
    """obs or var: names of the rows and named columns."""

    def index(self) -> list[str]:
        """Return the names of the rows."""

    def column_names(self) -> list[str]:
        """Return the names of the columns, in order."""

    def column(self, name: str) -> "pd.Series":
        """Read one of `column_names`."""


def open_frame(file: h5py.File, path: Path, name: str) -> Frame:
    """Open obs, var or raw.var of an .h5ad file.

    Raises:
        DataError: If the file has no such part.
    """
    # Files from before anndata 0.7 write 'raw.var' where later ones write 'raw/var'.
    node = file.get("raw/var" if name == "raw.var" and "raw" in file else name)
    if node is None:
        raise DataError(f"an .h5ad file must hold obs and var, got no {name} in {path}")
    if node.attrs.get("encoding-version") == "0.2.0":
        return _StoredFrame(node)
    return _LoadedFrame(_load_legacy(path, name))


class _StoredFrame:
    """A frame of which each column is read when it is asked for."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def index(self) -> list[str]:
        return [str(name) for name in self._read(str(self._group.attrs["_index"]))]

    def column_names(self) -> list[str]:
        return [str(name) for name in self._group.attrs["column-order"]]

    def column(self, name: str) -> "pd.Series":
        import pandas as pd

        return pd.Series(self._read(name))

    def _read(self, name: str) -> npt.NDArray[np.generic]:
        from anndata.io import read_elem

        values: npt.NDArray[np.generic] = read_elem(self._group[name])
        return values


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
    known = frame.column_names()
    if name not in known:
        raise DataError(unknown_name(f"the {what} column", name, known, place))
    return frame.column(name)


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


def read_labels(frame: Frame, name: str, *, place: str) -> Labels:
    """Read one obs column as text.

    Raises:
        DataError: If there is no such column; names the nearest.
    """
    return as_labels(read_column(frame, name, what="obs", place=place))


def as_labels(column: "pd.Series") -> Labels:
    """Encode a column as text; missing values stay missing."""
    import pandas as pd

    codes, values = pd.factorize(column, use_na_sentinel=True)
    texts = [str(value) for value in values]
    # Sorted, so that the same cells in another order give the same categories.
    categories = tuple(sorted(set(texts)))
    position = {text: i for i, text in enumerate(categories)}
    remap = np.array([*(position[text] for text in texts), -1], dtype=np.int32)
    return Labels(codes=remap[codes], categories=categories)


def joined_labels(parts: Sequence[Labels]) -> Labels:
    """Join several columns into one, a space between; a missing part is left out of the text."""
    import pandas as pd

    columns = [part.rows(0, len(part.codes)).tolist() for part in parts]
    texts = [" ".join(filter(None, row)) or None for row in zip(*columns, strict=True)]
    return as_labels(pd.Series(texts, dtype=object))
