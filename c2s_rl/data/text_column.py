"""Texts of the rows of a file, read a range at a time: cell ids and obs columns.

A file may have fifty million cells, so nothing that grows with them is held as Python objects where
the format allows otherwise. Formats that hold their labels anyway wrap them here. Missing labels
read as ''. Reading columns of anndata's own layout is in `stored_texts.py`.

Shapes: C rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from c2s_rl.types import IntArray

if TYPE_CHECKING:
    import pandas as pd

TextArray = npt.NDArray[np.str_]


class TextColumn(Protocol):
    """One text a row, '' where it is missing."""

    def __len__(self) -> int:
        """Rows."""

    def read(self, start: int, stop: int) -> TextArray:
        """Read [stop - start] texts of rows start..stop-1."""


@dataclass(frozen=True, eq=False)
class HeldNames:
    """Texts in memory that hardly repeat: names of rows."""

    names: Sequence[str]
    """[C]"""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, start: int, stop: int) -> TextArray:
        """Return the names of rows start..stop-1."""
        return np.array(self.names[start:stop], dtype=np.str_)


@dataclass(frozen=True, eq=False)
class HeldLabels:
    """Texts in memory that repeat, '' where missing."""

    codes: IntArray
    """[C] index into `categories`; -1 where the label is missing."""
    categories: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.codes)

    def read(self, start: int, stop: int) -> TextArray:
        """Return the labels of rows start..stop-1."""
        # The last entry stands for missing: code -1.
        return np.array([*self.categories, ""], dtype=np.str_)[self.codes[start:stop]]


@dataclass(frozen=True, eq=False)
class JoinedTexts:
    """Several columns as one, a space between; a missing part is left out of the text."""

    parts: tuple[TextColumn, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    def read(self, start: int, stop: int) -> TextArray:
        """Return the joined texts of rows start..stop-1; '' where all parts are missing."""
        columns = [part.read(start, stop).tolist() for part in self.parts]
        joined = [" ".join(filter(None, row)) for row in zip(*columns, strict=True)]
        return np.array(joined, dtype=np.str_)


def held_labels(column: "pd.Series") -> HeldLabels:
    """Encode a column of any type as text; missing values stay missing."""
    import pandas as pd

    codes, values = pd.factorize(column, use_na_sentinel=True)
    # As an array: its numbers are written with the digits of their own precision.
    texts = [str(value) for value in np.asarray(values)]
    # Sorted, so that the same cells in another order give the same categories.
    categories = tuple(sorted(set(texts)))
    position = {text: i for i, text in enumerate(categories)}
    remap = np.array([*(position[text] for text in texts), -1], dtype=np.int32)
    return HeldLabels(codes=remap[codes], categories=categories)
