"""Columns of anndata's layout that stay in their file: a range of rows is read when asked for.

Text, numbers, categoricals and columns with a mask, in groups of HDF5 or of zarr, which are indexed
alike. Of a categorical only its categories are held. A column of any other encoding is read as a
whole, through anndata.

Shapes: C rows.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt

from c2s_rl.data.text_column import TextArray, TextColumn, held_labels
from c2s_rl.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

NULLABLE = ("nullable-integer", "nullable-boolean", "nullable-string-array")


def stored_texts(node: h5py.Group | h5py.Dataset, *, name: str, place: str) -> TextColumn:
    """Make a column of a stored frame readable by ranges, as text.

    Args:
        node: The column's dataset or group; zarr's array or group as well.
        name: The column, for messages.
        place: The file, for messages.

    Raises:
        DataError: If a code of a categorical has no category, or values and mask differ in length.
    """
    encoding = str(node.attrs.get("encoding-type", "array"))
    if encoding in ("array", "string-array"):
        return _Plain(node)
    if encoding == "categorical":
        categories = [*_as_text(node["categories"][:]).tolist(), ""]
        return _Categorical(
            node["codes"], np.array(categories, dtype=object), f"{name!r} in {place}"
        )
    if encoding in NULLABLE:
        if len(node["values"]) != len(node["mask"]):
            raise DataError(
                f"a column must have a mask for each value, got {len(node['values'])} values and "
                f"{len(node['mask'])} for {name!r} in {place}"
            )
        return _Masked(node["values"], node["mask"])
    return held_labels(_whole(node))


@dataclass(frozen=True, eq=False)
class _Plain:
    """Texts or numbers; a number that is none is missing."""

    values: h5py.Dataset

    def __len__(self) -> int:
        return len(self.values)

    def read(self, start: int, stop: int) -> TextArray:
        return _as_text(self.values[start:stop])


@dataclass(frozen=True, eq=False)
class _Categorical:
    """Codes in the file, categories in memory with '' at their end."""

    codes: h5py.Dataset
    categories: npt.NDArray[np.object_]
    place: str

    def __len__(self) -> int:
        return len(self.codes)

    def read(self, start: int, stop: int) -> TextArray:
        codes = np.asarray(self.codes[start:stop], dtype=np.int64)
        highest = len(self.categories) - 2
        if len(codes) and not -1 <= codes.min() <= codes.max() <= highest:
            wrong = codes.max() if codes.max() > highest else codes.min()
            raise DataError(
                f"a code of a categorical must be in -1..{highest}, got {wrong} for {self.place}"
            )
        # The last entry stands for missing: code -1.
        texts: TextArray = self.categories[codes].astype(np.str_)
        return texts


@dataclass(frozen=True, eq=False)
class _Masked:
    """Values of which some are missing."""

    values: h5py.Dataset
    mask: h5py.Dataset

    def __len__(self) -> int:
        return len(self.values)

    def read(self, start: int, stop: int) -> TextArray:
        texts = _as_text(self.values[start:stop])
        texts[np.asarray(self.mask[start:stop], dtype=bool)] = ""
        return texts


def _as_text(values: npt.NDArray[np.generic]) -> TextArray:
    """Write values as Python does; bytes are decoded, a float that is no number becomes ''."""
    items = values.tolist()
    if values.dtype.kind in "OS":
        items = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in items]
    elif values.dtype.kind == "f":
        # str of numpy's number: the shortest digits of its own precision.
        items = ["" if np.isnan(value) else str(value) for value in values]
    return np.array([str(item) for item in items], dtype=np.str_)


def _whole(node: h5py.Group | h5py.Dataset) -> "pd.Series":
    import pandas as pd
    from anndata.io import read_elem

    return pd.Series(read_elem(node))
